"""When TCP and TLS to a TURN server may be tried beside UDP, which carries datagrams best.

A stream is opened when no datagram of the server has come back within `HEAD_START`, which is more than a
round trip to a server nearby, so that where UDP works no connection is made in vain. It asks for an
allocation when twice the time that connecting took has passed as well, so that UDP across a slow line is not
overtaken by TCP across the same line. Where UDP is blocked all this costs a tenth of a second, while link
zero carries data.
"""

from __future__ import annotations

# Seconds for UDP alone, and the same where it has led to the server before: two requests may get lost then.
HEAD_START = 0.05
KNOWN_HEAD_START = 1.0
# Seconds from the first question, and connection times, until a stream asks for an allocation.
STREAM_PATIENCE = 0.1
CONNECT_TIMES = 2.0


def head_start(*, asks_datagrams: bool, has_answered: bool) -> float:
    """Seconds from asking by UDP to opening streams. `has_answered`: UDP has led to the server before."""
    if not asks_datagrams:
        return 0.0
    return KNOWN_HEAD_START if has_answered else HEAD_START


def may_allocate_at(asked: float, began: float, opened: float) -> float:
    """When a stream may ask that was opened from `began` to `opened`; `asked`: when UDP was first asked."""
    return max(asked + STREAM_PATIENCE, began + CONNECT_TIMES * (opened - began))
