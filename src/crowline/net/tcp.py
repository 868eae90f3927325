"""One local TCP port for all that ICE does with TCP: listening, dialling, meeting half-way, asking STUN.

All sockets share the port, so that a NAT that maps endpoint-independently gives all of them the address
that the STUN server saw (RFC 6544 §4.1, §5.2). Connections come out as events; none is trusted until its
owner says so, for only the check of ICE on it tells who is there.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.net.tcp_dial import Dial, Obstacle
from crowline.net.tcp_mapping import MappingLost, TcpMapping
from crowline.net.tcp_punch import TcpPunch
from crowline.net.tcp_sockets import name_of, open_shared
from crowline.net.tcp_stream import TcpStream
from crowline.punch.syn_budget import REPEAT, REPEAT_ON_WINDOWS
from crowline.punch.tcp_schedule import PunchFailed, TcpSchedule
from crowline.stun.client import Mapped

SYN_REPEAT = REPEAT_ON_WINDOWS if sys.platform == "win32" else REPEAT
"""What the plans in `punch/` are told of this system."""

CONNECT_LIMIT = 5.0  # seconds for a connection to a port where somebody should listen
TRUST_LIMIT = 10.0  # seconds from a connection to the proof of who is there; a check needs a round trip
# Connections that came uncalled and that nobody trusts yet; the oldest goes when another comes.
MAX_STRANGERS = 32
_BACKLOG = 32
# Accepted for one wake-up, so that a flood cannot keep the loop from everything else.
_ACCEPTS_PER_WAKE = 16
# Seconds without accepting after the process ran out of descriptors.
_EXHAUSTED_PAUSE = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """There is a connection; it belongs to whoever gets this.

    `number` is that of what was asked for, ``None`` where somebody connected to this port uncalled.
    """

    stream: TcpStream
    number: int | None


class ConnectFailed(Struct, frozen=True):
    """No connection came of `connect`. `message` is the system's word for it."""

    number: int
    remote: Address
    obstacle: Obstacle
    message: str


class PunchOver(Struct, frozen=True):
    """No connection came of `punch`, or the one that came was reset and no other one followed."""

    number: int
    remote: Address
    failure: PunchFailed


TcpEvent: TypeAlias = Opened | ConnectFailed | PunchOver | Mapped | MappingLost


@dataclass(frozen=True, slots=True, eq=False)
class _Connecting:
    """One `connect` with its limit."""

    dial: Dial
    timer: asyncio.TimerHandle

    def close(self) -> None:
        self.timer.cancel()
        self.dial.cancel()


class TcpPort:
    """A listening port in the running event loop, which has to be one that watches descriptors: on Windows, a
    `SelectorEventLoop`. `on_event` is never called from within a call to this object."""

    def __init__(
        self, listener: socket.socket, on_event: Callable[[TcpEvent], None], entropy: Callable[[int], bytes]
    ) -> None:
        """Takes over a socket that listens; `bind` makes one."""
        self.local = name_of(listener.getsockname())
        self._listener = listener
        self._on_event = on_event
        self._entropy = entropy
        self._loop = asyncio.get_running_loop()
        self._numbers = 0
        self._connecting: dict[int, _Connecting] = {}
        self._punches: dict[int, TcpPunch] = {}
        self._mappings: dict[Address, TcpMapping] = {}
        # Connections that nobody trusts yet, the oldest first, with the ends of their patience.
        self._untrusted: dict[TcpStream, asyncio.TimerHandle] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop.add_reader(listener, self._accept)

    @classmethod
    def bind(
        cls, address: Address, on_event: Callable[[TcpEvent], None], *, entropy: Callable[[int], bytes]
    ) -> TcpPort:
        """Listen at `address`, port 0 for one of the system's choice. Raises `LocalProblem`."""
        try:
            listener = open_shared(address)
        except OSError as error:
            raise _problem(address, error) from error
        try:
            listener.listen(_BACKLOG)
            return cls(listener, on_event, entropy)
        except OSError as error:
            listener.close()
            raise _problem(address, error) from error
        except BaseException:
            listener.close()
            raise

    def connect(self, remote: Address, limit: float = CONNECT_LIMIT) -> int:
        """Connect to where somebody should listen (RFC 6544: active): `Opened` or `ConnectFailed` follows.

        After `limit` seconds of silence it is given up. The plan that the call is part of counts the SYNs.
        """
        number = self._next_number()
        dial = Dial(
            self.local,
            remote,
            lambda sock: self._connected(number, remote, sock),
            lambda obstacle, message: self._connect_failed(number, remote, obstacle, message),
        )
        silent = Obstacle.SILENT
        timer = self._loop.call_later(limit, self._connect_failed, number, remote, silent, silent.value)
        self._connecting[number] = _Connecting(dial, timer)
        return number

    def punch(self, schedule: TcpSchedule) -> int:
        """Meet the other side half-way, by that plan, from now on: `Opened` or `PunchOver` follows.

        A connection that the other side resets before it is trusted is tried again: another event follows.
        """
        number = self._next_number()
        self._punches[number] = TcpPunch(
            self.local,
            schedule,
            lambda sock: self._met(number, sock),
            lambda failure: self._punch_failed(number, schedule.remote, failure),
        )
        return number

    def proven(self) -> None:
        """The budget has fewer limits than before: plans that it stopped go on, if it lets them."""
        for punch in list(self._punches.values()):
            punch.proven()

    def is_punching(self, number: int) -> bool:
        """Whether that plan, begun by `punch`, goes on, be it only in case its connection is reset."""
        return number in self._punches

    def cancel(self, number: int) -> None:
        """End what `connect` or `punch` began; no event follows. What came of it stays."""
        connecting = self._connecting.pop(number, None)
        if connecting is not None:
            connecting.close()
        punch = self._punches.pop(number, None)
        if punch is not None:
            punch.close()

    def ask(self, server: Address) -> None:
        """Learn from a STUN server under which address it sees this port, and stay connected with it.

        `Mapped` follows, again whenever the address changes, and `MappingLost` at the end.
        """
        if server not in self._mappings:
            self._mappings[server] = TcpMapping(
                self.local, server, lambda event: self._mapping(server, event), entropy=self._entropy
            )

    def stop_asking(self) -> None:
        """End the connections with STUN servers; no event follows."""
        for mapping in self._mappings.values():
            mapping.close()
        self._mappings.clear()

    def close(self) -> None:
        """Close everything but the connections that somebody trusts. No event follows."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for number in [*self._connecting, *self._punches]:
            self.cancel(number)
        self.stop_asking()
        for stream in list(self._untrusted):
            stream.abort()

    # --- connections ------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            if self._closed:
                return
            try:
                sock, name = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_EXHAUSTED_PAUSE, self._accept_again)
                return
            self._let_in(sock, name_of(name))

    def _accept_again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _let_in(self, sock: socket.socket, remote: Address) -> None:
        """What is accepted from where a plan dials is what the plan is for: the other side was quicker."""
        number = next((number for number, punch in self._punches.items() if punch.remote == remote), None)
        if number is not None:
            self._punches[number].let_in()
        if not self._open(sock, number) and number is not None:
            self._punches[number].lost()

    def _connected(self, number: int, remote: Address, sock: socket.socket) -> None:
        self._connecting.pop(number).timer.cancel()
        if not self._open(sock, number):
            self._on_event(ConnectFailed(number, remote, Obstacle.REFUSED, Obstacle.REFUSED.value))

    def _connect_failed(self, number: int, remote: Address, obstacle: Obstacle, message: str) -> None:
        self._connecting.pop(number).close()
        self._on_event(ConnectFailed(number, remote, obstacle, message))

    def _met(self, number: int, sock: socket.socket) -> None:
        if not self._open(sock, number):
            self._punches[number].lost()

    def _punch_failed(self, number: int, remote: Address, failure: PunchFailed) -> None:
        self.cancel(number)
        self._on_event(PunchOver(number, remote, failure))

    def _mapping(self, server: Address, event: Mapped | MappingLost) -> None:
        if isinstance(event, MappingLost):
            del self._mappings[server]
        self._on_event(event)

    def _open(self, sock: socket.socket, number: int | None) -> bool:
        """Give a connection to whom it belongs; False when it is gone again."""
        try:
            stream = TcpStream(
                sock,
                is_accepted=number is None,
                on_trusted=lambda stream: self._trusted(stream, number),
                on_ended=lambda stream, was_reset: self._ended(stream, number, was_reset),
            )
        except OSError:
            return False
        self._untrusted[stream] = self._loop.call_later(TRUST_LIMIT, stream.drop, "it did not prove itself")
        self._evict()
        self._on_event(Opened(stream, number))
        return True

    def _evict(self) -> None:
        strangers = [stream for stream in self._untrusted if stream.is_stranger]
        if len(strangers) > MAX_STRANGERS:
            strangers[0].drop("others came who have not proven themselves either")

    def _trusted(self, stream: TcpStream, number: int | None) -> None:
        self._untrusted.pop(stream).cancel()
        if number is not None:
            self.cancel(number)

    def _ended(self, stream: TcpStream, number: int | None, was_reset: bool) -> None:
        timer = self._untrusted.pop(stream, None)
        if timer is None:
            return
        timer.cancel()
        if number is None:
            return
        punch = self._punches.get(number)
        if punch is None or not (was_reset and punch.lost()):
            self.cancel(number)

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


def _problem(address: Address, error: OSError) -> LocalProblem:
    return LocalProblem(f"TCP {address} cannot be used: {error.strerror or error}.")
