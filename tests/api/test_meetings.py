"""Two sides of a meeting in one process, through a real server on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

import crowline
from crowline.api.connection import Connection
from crowline.api.options import Options
from crowline.api.room import CodeTypo, check_code
from crowline.base.machine import Transmit
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.role import Role
from crowline.server.server import Server
from serving import serving
from waiting import until


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


async def test_streams_flow_both_ways_and_the_path_becomes_direct(server: Server) -> None:
    """What is written before there is a direct path arrives in order; both sides show the same words."""
    data = os.urandom(3_000_000)

    async def hosting(room: crowline.Room) -> tuple[str, ...]:
        peer = await room.peer()
        stream = await peer.open_stream()
        await stream.write(data)
        await stream.close()
        assert await stream.readexactly(32) == hashlib.sha256(data).digest()
        await until(lambda: peer.path is not None and peer.path.is_direct)
        assert peer.path is not None and peer.path.kind == "lan" and peer.path.transport == "udp"
        assert peer.paths()[0].kind == "lan" and {p.kind for p in peer.paths()} >= {"lan", "hub"}
        assert peer.setup_ms is not None and peer.direct_ms is not None and peer.direct_ms >= peer.setup_ms
        assert sum(peer.carried.values()) >= len(data)
        return peer.words

    async with crowline.host(server.url) as room:
        host = asyncio.create_task(hosting(room))
        async with crowline.join(room.code, server.url) as peer:
            async for stream in peer.streams():
                received = b""
                while part := await stream.read():
                    received += part
                await stream.write(hashlib.sha256(received).digest())
                await stream.close()
                break
            words = peer.words
            assert await host == words
    assert received == data


async def test_what_the_session_says_by_its_timer_leaves_at_once(server: Server) -> None:
    """No link keeps a ping to itself until something else happens on it: it would seem to be dead."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        await until(lambda: here.path is not None and here.path.is_direct)
        connection, sent = room._connection, []
        (link, *_) = connection.carriers.paths.up.values()
        say = link.send
        link.send = lambda data, now: (sent.append(bytes(data)), say(data, now))  # type: ignore[method-assign]
        connection.session.links.ping(asyncio.get_running_loop().time())
        connection._session_pump._expire()
        assert sent and there.path is not None
        assert not connection.carriers.pairs._quic.dirty  # type: ignore[union-attr]


async def test_many_streams_at_once_keep_their_bytes_apart(server: Server) -> None:
    """Twenty streams from each side, echoed by the other."""

    async def echo(peer: crowline.Peer) -> None:
        async for stream in peer.streams():

            async def serve(stream: crowline.Stream = stream) -> None:
                while line := await stream.readline():
                    await stream.write(line.upper())
                await stream.close()

            tasks.append(asyncio.create_task(serve()))

    async def talk(peer: crowline.Peer, name: str) -> None:
        stream = await peer.open_stream()
        for number in range(20):
            await stream.write(f"{name} {number}\n".encode())
            assert await stream.readline() == f"{name} {number}\n".upper().encode()
        await stream.close()
        assert await stream.read() == b""

    tasks: list[asyncio.Task[None]] = []
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        tasks += [asyncio.create_task(echo(peer)) for peer in (here, there)]
        async with asyncio.timeout(30):
            await asyncio.gather(
                *(talk(p, f"{i}{n}") for i, p in enumerate((here, there)) for n in range(20))
            )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_wrong_code_fails_on_both_sides_and_is_dead(server: Server) -> None:
    """One wrong guess: the guesser, the host and whoever has the right code are all told."""
    async with crowline.host(server.url) as room:
        waiting = asyncio.create_task(room.peer())
        number = room.code.split("-")[0]
        guess = next(code for code in other_codes(int(number)) if code != room.code)
        with pytest.raises(crowline.WrongCode):
            async with crowline.join(guess, server.url):
                pass
        with pytest.raises(crowline.WrongCode):
            await waiting
        with pytest.raises(crowline.WrongCode):
            async with crowline.join(room.code, server.url):
                pass


def other_codes(number: int) -> list[str]:
    from crowline.rendezvous.code import Code

    return [str(Code.from_secret(number, secret)) for secret in (0x1234567, 0x0ABCDEF)]


async def test_a_used_or_unknown_code_is_refused(server: Server) -> None:
    """A third side gets the same answer as one with a code that never was."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url):
        with pytest.raises(crowline.WrongCode):
            async with crowline.join(room.code, server.url):
                pass
    with pytest.raises(crowline.WrongCode):
        async with crowline.join(other_codes(4711)[0], server.url):
            pass


async def test_a_typo_never_reaches_the_server() -> None:
    """The checksum is looked at here; no server is needed to say so."""
    code = other_codes(7)[0]
    number, first, second, third = code.split("-")
    with pytest.raises(CodeTypo):
        async with crowline.join(f"{number}-{second}-{first}-{third}", "ws://127.0.0.1:1"):
            pass
    assert check_code(code.upper().replace("-", "  ")) == code


async def test_relay_only_uses_the_relay_and_shows_no_address(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither side learns an address of the other but the server's."""
    from crowline.api.traversal.other_side import OtherSide
    from crowline.rendezvous.signals import CandidateSignal

    told: list[CandidateSignal] = []
    original = OtherSide.add
    monkeypatch.setattr(OtherSide, "add", lambda self, s: (told.append(s), original(self, s))[1])
    async with (
        crowline.host(server.url, relay_only=True) as room,
        crowline.join(room.code, server.url, relay_only=True) as there,
    ):
        here = await room.peer()
        await until(lambda: here.path is not None and here.path.kind == "relay")
        stream = await here.open_stream()
        await stream.write(bytes(1_000_000))
        await stream.close()
        other = await there.accept_stream()
        assert len(await other.readexactly(1_000_000)) == 1_000_000
    assert told and all(signal.kind == "relay" and signal.related_host == "" for signal in told)
    front = server._front
    assert front is not None
    await until(lambda: front.is_idle)


async def test_direct_only_sends_nothing_through_a_server(server: Server) -> None:
    """The peer is there only once a direct path is."""
    async with (
        crowline.host(server.url, direct_only=True) as room,
        crowline.join(room.code, server.url, direct_only=True) as there,
    ):
        here = await room.peer()
        assert here.path is not None and here.path.is_direct
        stream = await here.open_stream()
        await stream.write(b"straight\n")
        assert await (await there.accept_stream()).readline() == b"straight\n"
        assert here.carried["hub"] == here.carried["relay"] == 0


async def test_a_problem_of_one_machine_is_a_refusal_to_the_other(server: Server) -> None:
    """Exit code 8 is for the side whose disk is full, and so are the names of its folders; what it said on a
    stream is heard before.
    """
    code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def host() -> None:
        async with crowline.host(server.url) as room:
            code.set_result(room.code)
            peer = await room.peer()
            stream = await peer.open_stream()
            await stream.write(b"no room here\n")
            await stream.close()
            raise crowline.LocalProblem("/home/me/private is full.")

    hosting = asyncio.create_task(host())
    with pytest.raises(crowline.CrowlineError) as caught:
        async with crowline.join(await code, server.url) as peer:
            stream = await peer.accept_stream()
            assert await stream.readline() == b"no room here\n"
            await peer.accept_stream()
    with pytest.raises(crowline.LocalProblem):
        await hosting
    assert isinstance(caught.value, crowline.Refused) and caught.value.exit_code == 5
    assert "private" not in caught.value.message


async def test_the_direct_path_outlives_the_server() -> None:
    """When the server goes away in the middle, the stream goes on."""
    async with (
        serving() as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as there,
    ):
        here = await room.peer()
        stream = await here.open_stream()
        await stream.write(b"before\n")
        other = await there.accept_stream()
        assert await other.readline() == b"before\n"
        await until(lambda: all(p.path is not None and p.path.is_direct for p in (here, there)))
        await server.close()
        await stream.write(b"after\n")
        async with asyncio.timeout(30):
            assert await other.readline() == b"after\n"


async def test_a_direct_path_that_dies_in_mid_stream_is_left_for_the_relay(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets vanish without a word; within seconds the relay carries on, and no byte is lost or repeated."""
    from crowline.api.traversal.traversal import Traversal

    cut = False
    send = Traversal.send

    def send_or_lose(self: Traversal, transmit: Transmit) -> None:
        relayed = transmit.local in self._gatherer._relayed
        if relayed or not cut:
            send(self, transmit)

    monkeypatch.setattr(Traversal, "send", send_or_lose)
    data = os.urandom(20_000_000)
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()

        def ready() -> bool:
            return all({"lan", "relay"} <= {path.kind for path in p.paths()} for p in (here, there))

        await until(ready)
        stream = await here.open_stream()

        async def write() -> None:
            for start in range(0, len(data), 100_000):
                await stream.write(data[start : start + 100_000])
            await stream.close()

        writing = asyncio.create_task(write())
        other = await there.accept_stream()
        received = await other.readexactly(2_000_000)
        cut = True
        began = asyncio.get_running_loop().time()
        await until(lambda: here.path is not None and here.path.kind == "relay")
        assert asyncio.get_running_loop().time() - began < 25  # consent ends after 30 s
        assert here.path is not None and "silent" in here.path.reason
        async with asyncio.timeout(30):
            while part := await other.read():
                received += part
        await writing
    assert received == data


async def test_leaving_with_an_error_tells_the_other_side_why(server: Server) -> None:
    """The sentence arrives, with the exception that its code means over there."""
    with pytest.raises(crowline.LocalProblem):
        async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
            await room.peer()

            async def listen() -> None:
                await there.accept_stream()

            listening = asyncio.create_task(listen())
            await asyncio.sleep(0.05)
            try:
                await room._connection.close(8, "the disk is full")
                with pytest.raises(crowline.Refused, match="the disk is full"):
                    await listening
            finally:
                listening.cancel()
            raise crowline.LocalProblem("the disk is full")


async def test_a_side_that_dies_is_noticed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said: the WebSocket breaks and the links fall silent."""
    from crowline.api import watch

    monkeypatch.setattr(watch, "HUNG_UP_LIMIT", 2.0)
    async with crowline.host(server.url) as room:
        there = Connection(Role.JOIN, Options(server.url), parse(room.code))
        await there.open()
        await there.opened
        peer = await room.peer()
        listening = asyncio.create_task(peer.accept_stream())
        kill(there)
        with pytest.raises(crowline.Interrupted):
            async with asyncio.timeout(30):
                await listening
        await there._release()


def parse(code: str):  # type: ignore[no-untyped-def]
    from crowline.rendezvous.code import Code

    return Code.parse(code)


def kill(connection: Connection) -> None:
    """Everything stops as if the process had: sockets close, nothing is sent."""
    traversal, hub = connection._traversal, connection._hub
    assert traversal is not None and hub is not None
    for socket in traversal._gatherer._sockets.values():
        socket.close()
    streams = list(traversal._tcp._pairs._streams.values())
    traversal._tcp.close()
    for stream in streams:
        stream.stream.abort()
    transport = hub.socket._connection.transport
    assert transport is not None and hub._reader is not None
    hub._reader.cancel()
    transport.abort()


async def test_a_host_that_waits_survives_a_broken_websocket(server: Server) -> None:
    """The code on the screen stays good: the host comes back to its mailbox, and the person is told."""
    warnings: list[str] = []
    async with crowline.host(server.url) as room:
        room.on_warning(warnings.append)
        hub = room._connection._hub
        assert hub is not None
        first = hub.socket
        transport = first._connection.transport
        assert transport is not None
        transport.abort()
        await until(lambda: hub.socket is not first)
        async with crowline.join(room.code, server.url) as there:
            here = await room.peer()
            stream = await here.open_stream()
            await stream.write(b"still here\n")
            assert await (await there.accept_stream()).readline() == b"still here\n"
    assert warnings == ["The connection to the server broke; trying again."]


async def test_a_server_that_does_not_come_back_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the attempts the person is told which server it was about."""
    from crowline.api import hub_channel

    monkeypatch.setattr(hub_channel, "RETURN_DELAYS", (0.01, 0.01))
    async with serving() as server, crowline.host(server.url) as room:
        await server.close()
        with pytest.raises(crowline.ServerUnreachable):
            async with asyncio.timeout(30):
                await room.peer()


async def test_nobody_comes_in_time(server: Server) -> None:
    """`timeout` is how long to wait for the other side."""
    async with crowline.host(server.url, timeout=0.1) as room:
        with pytest.raises(crowline.NobodyCame):
            await room.peer()


async def test_link_zero_stops_at_its_budget_with_a_clear_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the server's WebSocket works, its budget is used, then both sides hear why it ends."""
    from crowline.api import watch
    from crowline.api.traversal.traversal import Traversal

    monkeypatch.setattr(watch, "PATH_LIMIT", 1.0)
    monkeypatch.setattr(Traversal, "send", lambda self, transmit: None)
    async with serving(HubLimits(budget=600_000)) as server:
        with pytest.raises(crowline.NoPath):
            async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
                here = await room.peer()
                stream = await here.open_stream()

                async def read() -> int:
                    other, count = await there.accept_stream(), 0
                    try:
                        while part := await other.read():
                            count += len(part)
                    except crowline.NoPath:
                        return count
                    raise AssertionError("the stream ended without a reason")

                reading = asyncio.create_task(read())
                with pytest.raises(crowline.NoPath, match="allowance"):
                    async with asyncio.timeout(30):
                        await stream.write(bytes(5_000_000))
                assert 200_000 < await reading < 600_000
                raise crowline.NoPath


@pytest.mark.parametrize("budget", [0, 100_000])
async def test_a_server_that_carries_nothing_is_no_path(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With less than what link zero keeps for its last words it is used up from the start, and says so."""
    from crowline.api import watch
    from crowline.api.traversal.traversal import Traversal

    monkeypatch.setattr(watch, "PATH_LIMIT", 1.0)
    monkeypatch.setattr(Traversal, "send", lambda self, transmit: None)
    async with serving(HubLimits(budget=budget)) as server:
        with pytest.raises(crowline.NoPath):
            async with crowline.host(server.url) as room, crowline.join(room.code, server.url):
                here = await room.peer()
                async with asyncio.timeout(30):
                    await here.accept_stream()


async def test_both_sides_at_once_may_use_link_zero_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub shares the budget out between them and drops nothing: the end is as clear as with one."""
    from crowline.api import watch
    from crowline.api.traversal.traversal import Traversal

    monkeypatch.setattr(watch, "PATH_LIMIT", 1.0)
    monkeypatch.setattr(Traversal, "send", lambda self, transmit: None)

    async def drain(peer: crowline.Peer) -> None:
        stream = await peer.accept_stream()
        while await stream.read():
            pass

    async def pour(peer: crowline.Peer) -> None:
        stream = await peer.open_stream()
        reading = asyncio.create_task(drain(peer))
        with pytest.raises(crowline.NoPath, match="allowance"):
            async with asyncio.timeout(30):
                await stream.write(bytes(5_000_000))
                await stream.delivered()
        with pytest.raises(crowline.NoPath):
            await reading

    async with (
        serving(HubLimits(budget=600_000)) as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as there,
    ):
        await asyncio.gather(pour(await room.peer()), pour(there))


async def test_link_zero_goes_on_beyond_its_budget_where_the_server_has_a_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing but the WebSocket works: both sides' bytes arrive whole, no faster than the rate."""
    from crowline.api.traversal.traversal import Traversal

    monkeypatch.setattr(Traversal, "send", lambda self, transmit: None)
    data = os.urandom(2_000_000)

    async def pour(peer: crowline.Peer) -> None:
        stream = await peer.open_stream()
        await stream.write(data)
        await stream.close()

    async def drain(peer: crowline.Peer) -> bytes:
        stream, digest = await peer.accept_stream(), hashlib.sha256()
        while part := await stream.read():
            digest.update(part)
        return digest.digest()

    async with (
        asyncio.timeout(30),
        serving(HubLimits(budget=600_000, link_rate=2_000_000)) as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as there,
    ):
        here = await room.peer()
        began = asyncio.get_running_loop().time()
        _, _, *digests = await asyncio.gather(pour(here), pour(there), drain(here), drain(there))
        assert digests == [hashlib.sha256(data).digest()] * 2
        assert asyncio.get_running_loop().time() - began > 1.2


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1", "ftp://x", "ws://", "ws://127.0.0.1:notaport", "ws://a..b:1", "ws://" + "x" * 70],
)
async def test_a_url_that_is_none(url: str) -> None:
    """Misuse is told apart from a server that is down."""
    with pytest.raises(crowline.UsageError):
        async with crowline.host(url):
            pass


async def test_a_server_that_is_down_or_is_none() -> None:
    """A closed port, a port that says nothing sensible and one that closes at once: each is a sentence."""

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    for handler in (rude, web):
        other = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(crowline.ServerUnreachable):
            async with crowline.host(f"ws://127.0.0.1:{port}"):
                pass
        other.close()
        await other.wait_closed()
    with pytest.raises(crowline.ServerUnreachable):
        async with crowline.host(f"ws://127.0.0.1:{port}"):
            pass


async def test_a_proxy_that_needs_a_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment may name a SOCKS proxy, for which nothing is installed."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", "socks5h://127.0.0.1:1")
    monkeypatch.setenv("socks_proxy", "socks5h://127.0.0.1:1")
    with pytest.raises(crowline.ServerUnreachable):
        async with crowline.host("ws://192.0.2.1:8080"):
            pass


async def test_misused_options() -> None:
    """Two wishes that exclude each other."""
    with pytest.raises(crowline.UsageError):
        async with crowline.host("ws://127.0.0.1:1", relay_only=True, direct_only=True):
            pass


def test_the_public_names_are_what_the_package_says() -> None:
    """Every name of `__all__` is there, and nothing else resolves."""
    assert all(getattr(crowline, name) for name in crowline.__all__)
    with pytest.raises(AttributeError):
        crowline.nothing  # type: ignore[attr-defined]  # noqa: B018
