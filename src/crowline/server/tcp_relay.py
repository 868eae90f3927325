"""TCP connections with peers, as the TURN machine asks for them (RFC 6062).

Until a client comes for it, a peer's connection is a bare socket that nobody reads: what the peer sends waits
in the kernel, which holds it back when that is much.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Protocol

from crowline.base.addresses import Address
from crowline.server.splice import PeerEnd, Splice
from crowline.server.stream_client import StreamClient, StreamKey
from crowline.server.tcp_listener import reset
from crowline.turn import server_events as events


class TcpMachine(Protocol):
    """The part of `TurnServer` that is about connections with peers."""

    def dialled(self, connection: int, now: float) -> None: ...

    def dial_failed(self, connection: int, now: float) -> None: ...

    def peer_connected(self, relayed: Address, peer: Address, now: float) -> int | None: ...

    def connection_closed(self, connection: int, now: float) -> None: ...

    def take(self, connection: int, size: int, now: float) -> float: ...


class TcpRelay:
    """All connections with peers. `flush()` sends what the machine has to say."""

    def __init__(
        self,
        machine: TcpMachine,
        *,
        dialler: Callable[[Address], socket.socket | None],
        stream: Callable[[StreamKey], StreamClient | None],
        flush: Callable[[], None],
    ) -> None:
        """`dialler(relayed)` gives a socket bound to that relayed address."""
        self._machine = machine
        self._dialler = dialler
        self._stream = stream
        self._flush = flush
        self._waiting: dict[int, socket.socket] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._splices: dict[int, Splice] = {}

    def __len__(self) -> int:
        return len(self._tasks) + len(self._waiting) + len(self._splices)

    def handle(self, event: events.ServerEvent) -> None:
        """Do what the machine wants."""
        if isinstance(event, events.Dial):
            self._start(event.connection, self._dial(event))
        elif isinstance(event, events.Splice):
            self._splice(event)
        else:
            self._hang_up(event.connection)

    def accepted(self, relayed: Address, peer: Address, sock: socket.socket) -> None:
        """A peer connected to a relayed address."""
        connection = self._machine.peer_connected(relayed, peer, time.monotonic())
        if connection is None:
            reset(sock)
        else:
            self._waiting[connection] = sock
        self._flush()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._waiting.values():
            reset(sock)
        self._waiting.clear()
        for splice in self._splices.values():
            splice.abort()
        self._splices.clear()

    # --- connecting -------------------------------------------------------------------------------------

    async def _dial(self, event: events.Dial) -> None:
        """Connect; it is the machine that hangs up on a peer which takes too long."""
        sock = self._dialler(event.relayed)
        try:
            if sock is None:
                raise OSError("no socket for this relayed address")
            target = (event.peer.host, event.peer.port)
            await asyncio.get_running_loop().sock_connect(sock, target)
        except OSError:
            if sock is not None:
                sock.close()
            self._forget_task(event.connection)
            self._machine.dial_failed(event.connection, time.monotonic())
            self._flush()
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        else:
            self._forget_task(event.connection)
            self._waiting[event.connection] = sock
            self._machine.dialled(event.connection, time.monotonic())
            self._flush()

    # --- connected --------------------------------------------------------------------------------------

    def _splice(self, event: events.Splice) -> None:
        connection = event.connection
        sock = self._waiting.pop(connection, None)
        client = None
        if event.local is not None:
            client = self._stream(StreamKey(event.client, event.local, event.transport))
        if sock is None or client is None or client.is_over:
            if sock is not None:
                reset(sock)
            self._machine.connection_closed(connection, time.monotonic())
            return
        splice = Splice(
            client,
            lambda size: self._machine.take(connection, size, time.monotonic()),
            lambda: self._ended(connection),
        )
        self._splices[connection] = splice
        splice.prepare()
        self._start(connection, self._open(connection, sock, splice))

    async def _open(self, connection: int, sock: socket.socket, splice: Splice) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: PeerEnd(splice), sock=sock)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            splice.lost()
        finally:
            self._forget_task(connection)

    def _ended(self, connection: int) -> None:
        self._splices.pop(connection, None)
        self._machine.connection_closed(connection, time.monotonic())
        self._flush()

    def _hang_up(self, connection: int) -> None:
        task = self._tasks.pop(connection, None)
        if task is not None:
            task.cancel()
        sock = self._waiting.pop(connection, None)
        if sock is not None:
            reset(sock)
        splice = self._splices.pop(connection, None)
        if splice is not None:
            splice.hang_up()

    def _start(self, connection: int, work: Coroutine[None, None, None]) -> None:
        self._tasks[connection] = asyncio.create_task(work, name="peer connection")

    def _forget_task(self, connection: int) -> None:
        if self._tasks.get(connection) is asyncio.current_task():
            del self._tasks[connection]
