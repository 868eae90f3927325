"""Two sides lose each other and meet again: the streams of their session go on as if nothing had been."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

import crowline
from crowline.api import watch
from crowline.api.connection import Connection
from crowline.api.key_point import ByKey
from crowline.api.options import Options
from crowline.api.peer import Peer
from crowline.api.room import Room, enter, opened
from crowline.api.traversal.traversal import Traversal
from crowline.base.errors import Interrupted, PeerRestarted
from crowline.rendezvous.role import Role
from waiting import until

PATIENCE = 60.0


class Restarting:
    """A server that can be killed and begun anew at the same ports, without any memory."""

    def __init__(self) -> None:
        self._web, self._stun = (f"127.0.0.1:{port}" for port in free_ports())
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"ws://{self._web}"

    async def start(self) -> None:
        argv = ["-m", "crowline", "serve", "--listen", self._web, "--stun-listen", self._stun]
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *argv, stdout=quiet, stderr=quiet
        )
        async with asyncio.timeout(PATIENCE):
            while not await self._answers():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.wait()

    async def _answers(self) -> bool:
        assert self._process is not None and self._process.returncode is None
        host, _, port = self._web.partition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


def free_ports() -> list[int]:
    """Two ports that nobody has now."""
    with socket.socket() as web, socket.socket() as stun:
        for each in (web, stun):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (web, stun)]


@pytest.fixture
async def server() -> AsyncIterator[Restarting]:
    running = Restarting()
    await running.start()
    yield running
    await running.stop()


def meets(room: Room) -> bool:
    """Whether it is in a meeting with its other side now."""
    return room._connection._rejoin._is_right


async def echo(peer: Peer) -> None:
    """Send back what comes, on every stream."""
    async for stream in peer.streams():
        while part := await stream.read():
            await stream.write(part)
        await stream.close()


class Flow:
    """Bytes that go to the other side and come back, without end."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.back = 0
        self._sent = hashlib.sha256()
        self._come = hashlib.sha256()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False

    async def begin(self) -> None:
        self._stream = await self._peer.open_stream()
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]

    async def goes_on(self) -> None:
        """More than what was on its way comes back."""
        before = self.back
        await until(lambda: self.back > before + 400_000)

    async def end(self) -> None:
        """Everything that was sent has come back, once, in order."""
        self._is_over = True
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)
        assert self._come.digest() == self._sent.digest()

    async def _write(self) -> None:
        written = 0
        while not self._is_over:
            part = os.urandom(4096)
            self._sent.update(part)
            await self._stream.write(part)
            written += len(part)
            while written > self.back + 200_000:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await self._stream.close()

    async def _read(self) -> None:
        while part := await self._stream.read():
            self._come.update(part)
            self.back += len(part)


async def test_a_restarted_server_is_found_again_and_links_do_not_notice(server: Restarting) -> None:
    """The direct path carries on all the time, and afterwards both can tell each other things again."""
    async with crowline.host(server.url) as room, enter(room.code, server.url) as other:
        here, there = await room.peer(), await other.peer()
        echoing = asyncio.create_task(echo(there))
        await until(lambda: all(p.path is not None and p.path.is_direct for p in (here, there)))
        flow = Flow(here)
        await flow.begin()
        secret = here.resume_secret
        await server.stop()
        await flow.goes_on()
        await server.start()
        await until(lambda: not meets(room) or room._connection._rejoin._line._generation > 0)
        await until(lambda: meets(room) and meets(other))
        await flow.goes_on()
        await flow.end()
        assert here.resume_secret == there.resume_secret == secret and len(secret) == 32
        assert here.path is not None and here.path.is_direct
    echoing.cancel()


async def test_relays_that_begin_anew_carry_the_same_session(server: Restarting) -> None:
    """The server was all that the two had: link zero and relayed addresses. It comes back with no memory."""
    warnings: list[str] = []
    async with (
        crowline.host(server.url, relay_only=True) as room,
        enter(room.code, server.url, relay_only=True) as other,
    ):
        here, there = await room.peer(), await other.peer()
        room.on_warning(warnings.append)
        echoing = asyncio.create_task(echo(there))
        await until(lambda: all(p.path is not None and p.path.kind == "relay" for p in (here, there)))
        flow = Flow(here)
        await flow.begin()
        await flow.goes_on()
        await server.stop()
        await until(lambda: bool(warnings))
        assert warnings == [f"{watch.PATH_BROKE} {watch.PATH_BROKE_HINT}"]
        await server.start()
        await flow.goes_on()
        await until(lambda: all(p.path is not None and p.path.kind == "relay" for p in (here, there)))
        await flow.goes_on()
        await flow.end()
    echoing.cancel()


def vanish(connection: Connection) -> None:
    """What the kernel does when a process is killed: its sockets are closed, and nobody says a word."""
    point: Any = connection._hub
    point._reader.cancel()
    point.socket.abort()
    traversal = connection._traversal
    assert traversal is not None
    traversal.close()
    connection._session_pump.close()
    connection.ended.set_result(None)


async def test_a_side_that_comes_again_as_another_process_ends_the_session_at_once(
    server: Restarting,
) -> None:
    """The side that still runs hears of it, and meets the new process by the same secret."""
    connection = Connection(Role.HOST, Options(server.url))
    await connection.open()
    await connection.code_ready
    async with enter(str(connection.code), server.url) as other:
        await connection.opened
        there = await other.peer()
        stream = await there.open_stream()
        await stream.write(b"half of it")
        secret = there.resume_secret
        vanish(connection)
        place = ByKey(server.url, secret, lasts=True)
        async with opened(Connection(Role.HOST, Options(server.url, place=place))) as again:
            with pytest.raises(PeerRestarted):
                async with asyncio.timeout(PATIENCE):
                    await stream.readexactly(1)
            place = ByKey(server.url, secret, lasts=True)
            async with opened(Connection(Role.JOIN, Options(server.url, place=place))) as anew:
                async with asyncio.timeout(PATIENCE):
                    one, two = await asyncio.gather(again.peer(), anew.peer())
                assert one.words == two.words
                assert one.resume_secret == two.resume_secret == secret
                stream = await one.open_stream()
                await stream.write(b"all of it\n")
                assert await (await two.accept_stream()).readline() == b"all of it\n"
    await connection._release()


async def test_a_process_that_is_gone_is_given_up(
    server: Restarting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub saw its connection end, nothing came any more, and nobody came in its place."""
    monkeypatch.setattr(watch, "HUNG_UP_LIMIT", 2.0)
    connection = Connection(Role.HOST, Options(server.url))
    await connection.open()
    await connection.code_ready
    async with enter(str(connection.code), server.url) as other:
        await connection.opened
        there = await other.peer()
        vanish(connection)
        with pytest.raises(Interrupted, match="went away") as caught:
            async with asyncio.timeout(PATIENCE):
                await there.accept_stream()
        assert not isinstance(caught.value, PeerRestarted) and "same command" in caught.value.hint
    await connection._release()


async def test_link_zero_that_broke_is_replaced_by_that_of_another_meeting(
    server: Restarting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else leads to the other side; one WebSocket breaks, and frames may be missing."""
    monkeypatch.setattr(watch, "SEEK_AFTER", 1.0)
    monkeypatch.setattr(watch, "SEEK_EVERY", 1.0)
    monkeypatch.setattr(Traversal, "send", lambda self, transmit: None)
    async with crowline.host(server.url) as room, enter(room.code, server.url) as other:
        here, there = await room.peer(), await other.peer()
        echoing = asyncio.create_task(echo(there))
        flow = Flow(here)
        await flow.begin()
        await flow.goes_on()
        for side in (room, other):
            point: Any = side._connection._hub
            point.socket.abort()
            await until(lambda: here.path is None)
            await flow.goes_on()
        await flow.end()
        assert here.path is not None and here.path.kind == "hub"
    echoing.cancel()


async def test_a_waiting_side_outlives_the_server(server: Restarting) -> None:
    """Whoever waits where a secret leads is there again after the server was away."""
    secret = os.urandom(32)
    place = ByKey(server.url, secret)
    async with opened(Connection(Role.HOST, Options(server.url, place=place))) as room:
        await room._connection.code_ready
        await server.stop()
        await server.start()
        place = ByKey(server.url, secret)
        async with opened(Connection(Role.JOIN, Options(server.url, place=place))) as other:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(room.peer(), other.peer())
