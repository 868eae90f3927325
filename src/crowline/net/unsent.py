"""Datagrams that the system did not take: who is told of them, when, and in which words."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.send_problem import SendProblem

UnsentReceiver: TypeAlias = Callable[[Address, SendProblem], None]
"""Gets the destination of datagrams that did not leave this machine, and why."""

# Ways told of in one turn of the loop; a bulk sender meets the same one again and again.
_MOST = 64

# Linux: EPERM from a firewall (netfilter's OUTPUT), EACCES from a rule of the routing table or for a
# broadcast address, EINVAL and EADDRNOTAVAIL where the socket's own address does not lead there (any more).
_PROBLEMS = {
    SendProblem.FORBIDDEN: ("EPERM", "EACCES"),
    SendProblem.NO_ROUTE: (
        "ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN", "EADDRNOTAVAIL", "EINVAL", "ENODEV",
    ),
    SendProblem.NO_ROOM: ("ENOBUFS", "ENOMEM", "EAGAIN"),
}  # fmt: skip
# Systems differ in which of these they have.
_BY_NUMBER = {
    getattr(errno, name): problem
    for problem, names in _PROBLEMS.items()
    for name in names
    if hasattr(errno, name)
}


def problem_of(error: int) -> SendProblem | None:
    """What an error number of `sendto` says; ``None`` where it is about the datagram, like its size."""
    return _BY_NUMBER.get(error)


class Unsent:
    """Tells `receiver` from the loop, never from within a call that sends, so that it may send itself.

    Each destination and problem is told once a turn, however many datagrams met it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receiver: UnsentReceiver) -> None:
        self._loop = loop
        self._receiver = receiver
        self._noted: dict[tuple[Address, SendProblem], None] = {}
        self._closed = False

    def note(self, destination: Address, error: int) -> None:
        """The system did not take a datagram to `destination`, and gave this error number."""
        problem = problem_of(error)
        if problem is None or len(self._noted) >= _MOST:
            return
        if not self._noted:
            self._loop.call_soon(self._tell)
        self._noted[destination, problem] = None

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True

    def _tell(self) -> None:
        noted, self._noted = self._noted, {}
        for destination, problem in noted:
            if not self._closed:
                self._receiver(destination, problem)
