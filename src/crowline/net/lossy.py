"""Sending by a socket of somebody else, where a datagram that did not leave is one that was lost."""

from __future__ import annotations

import errno
from collections.abc import Callable

from crowline.base.machine import Transmit
from crowline.base.send_problem import SendProblem
from crowline.net.unsent import problem_of

# What an earlier datagram met, by the word of a router or host; a connected socket tells it in place of the
# call's own outcome. Who repeats what was lost repeats both.
_EARLIER = {errno.ECONNREFUSED, errno.ECONNRESET}


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
            if problem is not None:
                on_unsent(transmit, problem)
            elif error.errno not in _EARLIER:
                raise

    return attempt
