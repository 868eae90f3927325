"""A cable that is out for minutes, in whole connections: the event loop's clock leaps over idle time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

import crowline
from crowline.api.peer import Peer
from crowline.api.room import Room, enter
from crowline.api.traversal.traversal import Traversal
from crowline.api.watch import PATH_BROKE
from crowline.base.errors import Interrupted
from crowline.net.arrival import Arrival
from crowline.net.udp import UdpSocket
from crowline.server.listener import stop_accepting
from crowline.server.server import Server
from serving import serving

MINUTE = 60.0


class Leaping(asyncio.SelectorEventLoop):
    """While it `leaps`: where nothing has come and nothing is due yet, it is later at once."""

    def __init__(self) -> None:
        self.leaps = False
        self.ahead = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return super().time() + self.ahead


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self, loop: Leaping) -> None:
        super().__init__()
        self._loop = loop
        self._waited_at = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if not self._loop.leaps or not timeout:
            return super().select(timeout)
        # Threads have their say too, a moment in each second.
        is_due = self._loop.ahead > self._waited_at + 1.0
        ready = super().select(0.001 if is_due else 0)
        if is_due:
            self._waited_at = self._loop.ahead
        if not ready:
            self._loop.ahead += timeout
        return ready


class Cable:
    """The way of two sides to each other and to a server: out, it loses datagrams and holds up streams."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._is_in = asyncio.Event()
        self._is_in.set()
        deliver = UdpSocket._deliver

        def receive(sock: UdpSocket, data: memoryview, arrival: Arrival) -> None:
            if self._is_in.is_set():
                deliver(sock, data, arrival)

        monkeypatch.setattr(UdpSocket, "_deliver", receive)

    @contextmanager
    def out(self) -> Iterator[None]:
        """While it is entered, the cable is out and time goes by fast."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Leaping)
        self._is_in.clear()
        loop.leaps = True
        yield
        loop.leaps = False
        self._is_in.set()

    @asynccontextmanager
    async def to(self, server: Server) -> AsyncIterator[str]:
        """The server's URL by this cable."""
        visits: set[asyncio.Task[None]] = set()

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while part := await reader.read(65536):
                    await self._is_in.wait()
                    writer.write(part)
            finally:
                writer.transport.abort()

        async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            visits.add(asyncio.current_task())  # type: ignore[arg-type]
            try:
                await self._is_in.wait()
                far = await asyncio.open_connection(server.address.host, server.address.port)
                await asyncio.gather(carry(reader, far[1]), carry(far[0], writer), return_exceptions=True)
            finally:
                writer.transport.abort()

        near = await asyncio.start_server(visit, "127.0.0.1", 0)
        yield f"ws://127.0.0.1:{near.sockets[0].getsockname()[1]}"
        await stop_accepting([near])
        for task in visits:
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)


class Outage:
    """Two sides with a direct path, and their cable."""

    def __init__(self, room: Room, here: Peer, there: Peer, cable: Cable) -> None:
        self.here, self.there, self.cable = here, there, cable
        self.warnings: list[str] = []
        room.on_warning(self.warnings.append)


def lived_through(
    monkeypatch: pytest.MonkeyPatch, live: Callable[[Outage], Awaitable[None]], **options: float
) -> None:
    """Have two sides meet, and do that."""
    allocate = Traversal.allocate
    monkeypatch.setattr(Traversal, "open_tcp", lambda self, *, usable: self.on_tcp_gathered())
    monkeypatch.setattr(Traversal, "allocate", lambda self, grant: allocate(self, None))

    async def main() -> None:
        cable = Cable(monkeypatch)
        async with (
            serving() as server,
            cable.to(server) as url,
            crowline.host(url, **options) as room,
            enter(room.code, url, **options) as other,
        ):
            here, there = await asyncio.gather(room.peer(), other.peer())
            while not all(peer.path is not None and peer.path.is_direct for peer in (here, there)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await live(Outage(room, here, there, cable))

    with asyncio.Runner(loop_factory=Leaping) as runner:
        runner.run(main())


@pytest.mark.parametrize("minutes", [0.5, 10])
def test_a_session_outlives_a_cable_that_is_out_for_minutes(
    monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    """Nobody knows the two any more, and no pair is left; what was written meanwhile arrives."""

    async def live(outage: Outage) -> None:
        stream = await outage.here.open_stream()
        await stream.write(b"before\n")
        taken = await outage.there.accept_stream()
        assert await taken.readline() == b"before\n"
        with outage.cable.out():
            await stream.write(b"meanwhile\n")
            await asyncio.sleep(minutes * MINUTE)
        async with asyncio.timeout(60):
            assert await taken.readline() == b"meanwhile\n"
        assert outage.warnings and outage.warnings[0].startswith(PATH_BROKE)

    lived_through(monkeypatch, live)


def test_a_deadline_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides end then, each by itself, and neither much earlier."""

    async def live(outage: Outage) -> None:
        began = asyncio.get_running_loop().time()
        with outage.cable.out():
            for peer in (outage.here, outage.there):
                with pytest.raises(Interrupted):
                    await peer.accept_stream()
                assert 2 * MINUTE <= asyncio.get_running_loop().time() - began < 3 * MINUTE

    lived_through(monkeypatch, live, deadline=2 * MINUTE)
