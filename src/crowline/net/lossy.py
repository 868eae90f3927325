"""Sending by a socket of somebody else, where a datagram that did not leave is one that was lost."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.machine import Transmit
from crowline.base.send_problem import SendProblem
from crowline.net.unsent import problem_of


def lossy(
    send: Callable[[Transmit], object],
    on_unsent: Callable[[Transmit, SendProblem], object] = lambda transmit, problem: None,
) -> Callable[[Transmit], None]:
    """`send`, and `on_unsent` where the system says that it has no way for that datagram, or no room.

    What it says of the datagram itself, that it is too large for example, is raised.
    """

    def attempt(transmit: Transmit) -> None:
        try:
            send(transmit)
        except OSError as error:
            problem = problem_of(error.errno or 0)
            if problem is None:
                raise
            on_unsent(transmit, problem)

    return attempt
