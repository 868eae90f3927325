"""A peer that lies about who it is, while pairing: nothing is kept of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

import crowline
from crowline.api.pairing import KnownPeer, KnownPeers, pair, room_with
from crowline.api.pairing.identity import Card
from crowline.base.errors import CrowlineError
from crowline.base.secrets import Secret
from crowline.rendezvous.long_term_key import LongTermKey
from crowline.rendezvous.role import Role
from crowline.server.server import Server
from paired import Two, both
from serving import serving

PATIENCE = 30.0  # seconds for anything that must happen here
KEY = LongTermKey(Secret(os.urandom(32)))
OTHER = LongTermKey(Secret(os.urandom(32)))
Forge = Callable[[bytes], bytes]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


def card(key: bytes, proof: bytes, name: str = "x") -> bytes:
    return msgspec.json.encode(Card(key, proof, name)) + b"\n"


FORGERIES: dict[str, Forge] = {
    "nothing": lambda binding: b"\n",
    "no object": lambda binding: b"[]\n",
    "nested": lambda binding: b"[" * 900 + b"\n",
    "too long": lambda binding: card(KEY.public, KEY.prove(Role.JOIN, binding))[:-2] + b" " * 2000 + b"}\n",
    "no end": lambda binding: card(KEY.public, KEY.prove(Role.JOIN, binding))[:-1],
    "somebody else's key": lambda binding: card(OTHER.public, KEY.prove(Role.JOIN, binding)),
    "another meeting": lambda binding: card(KEY.public, KEY.prove(Role.JOIN, bytes(32))),
    "the other role": lambda binding: card(KEY.public, KEY.prove(Role.HOST, binding)),
    "no signature": lambda binding: card(KEY.public, bytes(64)),
    "a key of small order": lambda binding: card(bytes(32), bytes(64)),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_k8_who_proves_nothing_is_not_kept(server: Server, tmp_path: Path, forge: Forge) -> None:
    """Each lie is a protocol error."""
    known = KnownPeers(tmp_path)
    async with (
        asyncio.timeout(PATIENCE),
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as liar,
    ):
        pairing = asyncio.create_task(pair(await room.peer(), known=known))
        stream = await liar.accept_stream()
        await stream.write(b"crowline/pair 1\n" + forge(liar.export_key("identity")))
        await stream.close()
        with pytest.raises(crowline.ProtocolViolation):
            await pairing
    assert known.all() == []


async def test_k8_an_honest_card_cannot_be_sent_back(server: Server, tmp_path: Path) -> None:
    """What the other side sends of itself proves nothing when it comes from somebody else."""
    known = KnownPeers(tmp_path)
    async with (
        asyncio.timeout(PATIENCE),
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as mirror,
    ):
        pairing = asyncio.create_task(pair(await room.peer(), known=known))
        stream = await mirror.accept_stream()
        assert await stream.readline() == b"crowline/pair 1\n"
        await stream.write(b"crowline/pair 1\n")
        await stream.write(await stream.readline())
        with pytest.raises(crowline.ProtocolViolation):
            await pairing
    assert known.all() == []


@pytest.mark.parametrize("leaves", [b"", b"lost\n"])
async def test_who_did_not_keep_this_side_is_not_kept_either(
    server: Server, tmp_path: Path, leaves: bytes
) -> None:
    """And what was kept of the same key before stays as it was."""
    known = KnownPeers(tmp_path)
    for expected in (0, 1):
        async with (
            asyncio.timeout(PATIENCE),
            crowline.host(server.url) as room,
            crowline.join(room.code, server.url) as there,
        ):
            pairing = asyncio.create_task(pair(await room.peer(), known=known))
            stream = await there.accept_stream()
            proof = KEY.prove(Role.JOIN, there.export_key("identity"))
            await stream.write(b"crowline/pair 1\n" + card(KEY.public, proof, "../\x1b[31mx") + leaves)
            await stream.close()
            with pytest.raises(CrowlineError):
                await pairing
        assert len(known.all()) == expected
        if not expected:
            before = known.add(_record())
    assert known.all() == [before]


def _record() -> KnownPeer:
    return KnownPeer("mallory", KEY.public, Secret(bytes(32)), Role.HOST, "ws://192.0.2.1")


async def test_a_thief_of_the_secret_cannot_go_on_with_a_session(server: Server, tmp_path: Path) -> None:
    """It can come to the meeting, which ends what goes on there, and is met by a demand for the key."""
    two, thief = Two(server, tmp_path / "two"), KnownPeers(tmp_path / "thief")
    await two.pair()
    thief.add(two.ben.get("ana"))
    is_kept_out = False
    async with asyncio.timeout(PATIENCE):
        rooms = two.rooms()
        with suppress(CrowlineError):
            async with rooms[0] as ana, rooms[1] as ben:
                here, there = await both(ana, ben)
                stream = await here.open_stream()
                await stream.write(b"for ben alone")
                assert await (await there.accept_stream()).readexactly(13) == b"for ben alone"
                async with room_with("ana", "chat", known=thief, port_mapping=False) as stolen:
                    stealing = asyncio.ensure_future(stolen.peer())
                    with pytest.raises(crowline.Interrupted):
                        await stream.read()
                    is_kept_out = not stealing.done()
                    stealing.cancel()
                    await asyncio.gather(stealing, return_exceptions=True)
    assert is_kept_out
