"""Two sides of one network that meet by a code without a server, on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

import crowline
from crowline.api import lan_point, pocket_hub
from crowline.api.lan_point import service_name
from crowline.api.serverless import host_on_lan, join_on_lan
from crowline.base.addresses import Address
from crowline.net import mdns
from crowline.net.framed_messages import MAX_MESSAGE, FramedMessages
from crowline.rendezvous.code import LAN_NUMBERS, Code


@pytest.fixture(autouse=True)
def quiet_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of multicast DNS that nobody else on this machine uses, time for what must happen, and no other
    network than loopback: nobody there is asked anything.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        monkeypatch.setattr(mdns, "PORT", sock.getsockname()[1])
    monkeypatch.setattr(mdns, "RESOLVE_LIMIT", 30.0)
    monkeypatch.setattr(lan_point, "local_addresses", lambda *, loopback: ["127.0.0.1"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait for what never comes."""
    monkeypatch.setattr(mdns, "REPEATS", ())
    monkeypatch.setattr(mdns, "RESOLVE_LIMIT", 0.3)
    monkeypatch.setattr(lan_point, "HEAD_START", 0.1)


def listening_at(room: crowline.Room) -> tuple[str, int]:
    """Where the hosting side of a room listens."""
    server = room._connection._hub._servers["127.0.0.1"]  # type: ignore[union-attr]
    name: tuple[str, int] = server.sockets[0].getsockname()[:2]
    return name


async def test_a_code_is_enough_in_one_network() -> None:
    """No server runs; the code has a number of five digits, and bytes take a path of their own."""
    data = os.urandom(500_000)
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        assert Code.parse(room.code).number in LAN_NUMBERS
        async with join_on_lan(room.code, loopback=True) as other:
            here, there = await asyncio.gather(room.peer(), other.peer())
            assert here.words == there.words and len(here.words) == 4
            stream = await here.open_stream()
            await stream.write(data)
            await stream.close()
            assert await (await there.accept_stream()).readexactly(len(data)) == data
            assert here.carried["hub"] == here.carried["relay"] == 0


async def test_wrong_words_use_the_code_up() -> None:
    """As with a server: both sides are told, and the right words come too late."""
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        code = Code.parse(room.code)
        wrong = Code.from_secret(code.number, code.secret ^ 1)
        with pytest.raises(crowline.WrongCode):
            async with join_on_lan(str(wrong), loopback=True) as other:
                await other.peer()
        with pytest.raises(crowline.WrongCode):
            await room.peer()


async def test_a_code_that_nobody_has_is_not_found(impatient: None) -> None:
    """After the network had its time to answer; a meeting of another number does not answer."""
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        number = Code.parse(room.code).number
        other = LAN_NUMBERS[(number + 1) % len(LAN_NUMBERS)]
        with pytest.raises(crowline.WrongCode, match="this network"):
            async with join_on_lan(str(Code.from_secret(other, 5)), loopback=True):
                pass


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x07\0\0\0\1x",
        b"\0" + (MAX_MESSAGE + 1).to_bytes(4, "big"),
        b"\0\0\0\0\1\xff",
    ],
    ids=["nothing", "http", "kind", "length", "text"],
)
async def test_noise_at_the_port_hinders_no_meeting(noise: bytes) -> None:
    """A neighbour that is no such program, and stays connected, or sends what is no message."""
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        _, writer = await asyncio.open_connection(*listening_at(room))
        writer.write(noise)
        async with join_on_lan(room.code, loopback=True) as other:
            await asyncio.gather(room.peer(), other.peer())
        writer.close()
        await writer.wait_closed()


async def test_more_connections_than_a_meeting_needs_are_refused() -> None:
    """Whoever holds them open keeps no others out, and nobody for good: a hub drops who says nothing."""
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        own, hub = listening_at(room), room._connection._hub._hub  # type: ignore[union-attr]
        ways = [await asyncio.open_connection(*own) for _ in range(20)]
        # The hosting side itself is one of those from here.
        refused = [reader for reader, _ in ways[pocket_hub.MAX_OF_ONE_HOST - 1 :]]
        assert await asyncio.gather(*(reader.read() for reader in refused)) == [b""] * len(refused)
        assert len(hub._sinks) == pocket_hub.MAX_OF_ONE_HOST
        there = FramedMessages(*await asyncio.open_connection(*own, local_addr=("127.0.0.2", 0)))
        assert isinstance(await anext(there.messages()), str)
        for writer in (*(writer for _, writer in ways), there._writer):
            writer.close()
            await writer.wait_closed()


async def test_where_neither_network_nor_server_answers_the_server_is_named(impatient: None) -> None:
    """It is the one that was meant to answer."""
    code = Code.from_secret(LAN_NUMBERS[7], 99)
    async with asyncio.timeout(60):
        with pytest.raises(crowline.CrowlineError) as caught:
            async with crowline.join(str(code), "ws://127.0.0.1:1"):
                pass
    assert isinstance(caught.value, crowline.ServerUnreachable)


async def test_without_a_server_the_sentence_names_the_network(
    monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    """Somebody without a server is not told to name one first."""
    monkeypatch.delenv("CROWLINE_SERVER", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    async with asyncio.timeout(60):
        with pytest.raises(crowline.WrongCode, match="this network"):
            async with crowline.join(str(Code.from_secret(LAN_NUMBERS[7], 99))):
                pass


async def test_joining_by_such_a_code_needs_no_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody in this network has it: no server is asked, though one is named, and a slow answer counts."""
    monkeypatch.setattr(lan_point, "HEAD_START", 0.0)
    async with (
        asyncio.timeout(60),
        host_on_lan(loopback=True) as room,
        crowline.join(room.code, "ws://127.0.0.1:1") as there,
    ):
        here = await room.peer()
        assert here.words == there.words


def test_the_name_that_is_asked_for_does_not_tell_the_number() -> None:
    """Two numbers have names that have nothing in common but the service."""
    first, second = service_name(12345), service_name(12346)
    assert first != second and "12345" not in first and first.endswith("._crowline._tcp.local")


async def test_a_machine_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be announced there."""
    monkeypatch.setattr(mdns.MdnsNames, "_join", lambda *_: None)
    with pytest.raises(crowline.LocalProblem, match="network"):
        async with host_on_lan(loopback=True):
            pass


async def test_who_waits_is_reached_by_a_network_that_it_came_to_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the port that questions are answered with."""
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        port = listening_at(room)[1]
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.2", port)
        monkeypatch.setattr(lan_point, "local_addresses", lambda *, loopback: ["127.0.0.1", "127.0.0.2"])
        point: Any = room._connection._hub
        point.follow(())
        await asyncio.gather(*point._listening)
        there = await FramedMessages.connect(Address("127.0.0.2", port))
        assert isinstance(await anext(there.messages()), str)
        await there.close()
