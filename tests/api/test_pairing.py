"""Two sides that met by a code meet again by name, prove their keys, and see each other waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

import crowline
from crowline.api.pairing import pair, room_with, standing_of
from crowline.base.errors import CrowlineError, NobodyCame, Refused, UsageError
from crowline.rendezvous.role import Role
from crowline.server.server import Server
from paired import PATIENCE, Two, both
from serving import serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


@pytest.fixture
async def two(server: Server, tmp_path: Path) -> Two:
    two = Two(server, tmp_path)
    await two.pair()
    return two


async def test_both_keep_what_it_takes_to_meet_again(server: Server, tmp_path: Path) -> None:
    """The other's key and name, the same secret, opposite roles, and where."""
    two = Two(server, tmp_path)
    ben, ana = await two.pair()
    assert ben.name == "ben" and ana.name == "ana"
    assert ben.public_key == two.ben.own_key().public and ana.public_key == two.ana.own_key().public
    assert ben.secret == ana.secret
    assert ben.role is Role.HOST and ana.role is Role.JOIN
    assert ben.server == ana.server == server.url
    assert two.ana.all() == [ben] and two.ben.all() == [ana]


async def test_who_pairs_again_keeps_the_name_that_it_was_given_here(two: Two) -> None:
    """What it calls itself is a proposal to those who do not know it; the secret is a new one."""
    before = two.ana.rename("ben", "my-ben")
    ben, _ = await two.pair()
    assert ben.name == "my-ben" and ben.secret != before.secret
    assert two.ana.all() == [ben]


@pytest.mark.parametrize("first", [0, 1])
async def test_known_peers_meet_in_either_order_again_and_again(two: Two, first: int) -> None:
    """Without a code; bytes flow, and no stream of the proof is left for the application."""
    for _ in range(2):
        rooms = two.rooms()
        async with asyncio.timeout(PATIENCE), rooms[first] as one, rooms[1 - first] as other:
            peers = await both(one, other)
            assert peers[0].words == peers[1].words
            stream = await peers[1].open_stream()
            await stream.write(b"hello\n")
            there = await peers[0].accept_stream()
            assert await there.readline() == b"hello\n"
            assert await one.peer() is peers[0]


async def test_several_things_go_on_at_once(two: Two) -> None:
    """Each service has a meeting of its own, and so have two who send to each other."""
    chat = two.rooms("chat")
    mine = [room_with("ben", "send", known=two.ana, sends=s, port_mapping=False) for s in (True, False)]
    theirs = [room_with("ana", "send", known=two.ben, sends=s, port_mapping=False) for s in (False, True)]
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        rooms = [await stack.enter_async_context(room) for room in (*chat, *mine, *theirs)]
        words = {(await both(*pair))[0].words for pair in (rooms[:2], rooms[2::2], rooms[3::2])}
        assert len(words) == 3


async def test_whoever_waits_is_seen_by_the_other_side_alone(two: Two, tmp_path: Path) -> None:
    """With the command that is waited with; nobody waits when nobody does."""
    url = two.server.url

    async def waits(known: object) -> list[tuple[str, ...] | None]:
        return [standing.waits for standing in await standing_of(url, known.all())]  # type: ignore[attr-defined]

    assert await waits(two.ben) == [()]
    sending = room_with("ben", "send", sends=True, known=two.ana, port_mapping=False)
    async with asyncio.timeout(PATIENCE), sending, two.rooms("chat")[0]:
        assert await waits(two.ben) == [("send", "chat")]
        assert await waits(two.ana) == [()]
        stranger = Two(two.server, tmp_path / "others")
        await stranger.pair()
        assert await waits(stranger.ben) == [()]
    receiving = room_with("ana", "send", sends=False, known=two.ben, port_mapping=False)
    async with asyncio.timeout(PATIENCE), receiving:
        assert await waits(two.ana) == [("receive",)]


async def test_nobody_who_is_unknown_can_be_met(two: Two) -> None:
    """And whoever is removed is unknown."""
    two.ana.remove("ben")
    with pytest.raises(UsageError, match="Nobody called ben"):
        async with room_with("ben", "chat", known=two.ana):
            pass


async def test_who_does_not_come_is_said(two: Two) -> None:
    """After the time that the caller gave."""
    async with asyncio.timeout(PATIENCE), room_with("ben", "chat", known=two.ana, timeout=0.1) as room:
        with pytest.raises(NobodyCame):
            await room.peer()


async def test_the_secret_without_the_key_is_not_enough(two: Two, tmp_path: Path) -> None:
    """A copy of ben's records with a key of its own is refused by name, and gets nothing to read."""
    thief = Two(two.server, tmp_path / "thief")
    thief.ben.add(two.ben.get("ana"))
    rooms = (two.rooms()[0], thief.rooms()[1])
    is_kept_out = False
    async with asyncio.timeout(PATIENCE):
        with suppress(CrowlineError):
            async with rooms[0] as room, rooms[1] as stolen:
                stealing = asyncio.ensure_future(stolen.peer())
                with pytest.raises(Refused, match="not ben"):
                    await room.peer()
                is_kept_out = True
                stealing.cancel()
                await asyncio.gather(stealing, return_exceptions=True)
    assert is_kept_out


async def test_another_host_of_the_same_user_is_no_peer(server: Server, tmp_path: Path) -> None:
    """Two programs with one folder would know themselves."""
    two = Two(server, tmp_path)
    async with (
        asyncio.timeout(PATIENCE),
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as there,
    ):
        peer = await room.peer()
        results = await asyncio.gather(
            pair(peer, known=two.ana), pair(there, known=two.ana), return_exceptions=True
        )
    assert all(isinstance(result, crowline.ProtocolViolation) for result in results)
    assert two.ana.all() == []


async def test_keys_of_a_session_are_the_same_on_both_sides_alone(server: Server) -> None:
    """One for each label, and others in the next meeting."""
    found = set()
    for _ in range(2):
        async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
            here = await room.peer()
            for label in ("a", "b"):
                assert here.export_key(label) == there.export_key(label)
                found.add(here.export_key(label))
            assert here.is_host and not there.is_host
    assert len(found) == 4 and all(len(key) == 32 for key in found)


async def test_there_is_no_key_before_the_other_side_is_there(server: Server) -> None:
    """The caller is told."""
    async with crowline.host(server.url) as room:
        with pytest.raises(UsageError):
            room._peer.export_key("a")
