"""The many sockets that a plan for hard NATs opens beside those of ICE: by number, and closed all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Buffer, Transmit
from crowline.base.send_problem import SendProblem
from crowline.net.udp import UdpSocket

# Descriptors that everything else of this process may need meanwhile, where the system gives no more of them.
RESERVE = 16

Arrival: TypeAlias = Callable[[int, memoryview, Address], None]
"""Gets the number of the socket, a datagram, good only during the call, and its source."""


class PunchSockets:
    """`on_datagram` hears what arrives, `on_forbidden` that this machine does not let the sockets send."""

    def __init__(self, on_datagram: Arrival, on_forbidden: Callable[[], None] = lambda: None) -> None:
        self._on_datagram = on_datagram
        self._on_forbidden = on_forbidden
        self._sockets: dict[int, UdpSocket] = {}
        self._is_exhausted = False

    def __len__(self) -> int:
        return len(self._sockets)

    def open(self, number: int, host: str) -> Address | None:
        """Where the socket of that number is, at `host`, opened if it is not there; None where it cannot be.

        Where the system gives no more, a few that it gave are closed again: they are not worth more than what
        else this process has to open. None is opened after that until some are closed.
        """
        socket = self._sockets.get(number)
        if socket is None and not self._is_exhausted:
            try:
                socket = self._sockets[number] = self._bind(number, host)
            except (LocalProblem, OSError):
                self._is_exhausted = True
                for last in list(self._sockets)[-RESERVE:]:
                    self._sockets.pop(last).close()
        return socket.local if socket is not None else None

    def send(self, number: int, data: Buffer, destination: Address, hop_limit: int | None = None) -> None:
        """Send by the socket of that number; nothing happens where there is none."""
        if (socket := self._sockets.get(number)) is not None:
            socket.send(Transmit(data, destination, hop_limit=hop_limit))

    def give_away(self, number: int) -> UdpSocket | None:
        """The socket of that number; whoever takes it hands it over to somebody and closes it."""
        return self._sockets.pop(number, None)

    def close(self, below: int | None = None) -> None:
        """Close those with smaller numbers, or all, as far as they were not given away."""
        for number in [each for each in self._sockets if below is None or each < below]:
            self._sockets.pop(number).close()
        self._is_exhausted = False

    def _bind(self, number: int, host: str) -> UdpSocket:
        def received(data: memoryview, source: Address, segment_size: int) -> None:
            for start in range(0, len(data), segment_size):
                self._on_datagram(number, data[start : start + segment_size], source)

        def unsent(_: Address, problem: SendProblem) -> None:
            if problem is SendProblem.FORBIDDEN:
                self._on_forbidden()

        return UdpSocket.bind(Address(host, 0), received, on_unsent=unsent)
