"""Why this machine did not let a datagram out."""

from __future__ import annotations

from enum import Enum


class SendProblem(Enum):
    """What the system said when it was given a datagram; the values say it in words.

    It is this machine's own word: what routers say of datagrams that have left (ICMP) may be forged, and is
    none of these.
    """

    FORBIDDEN = "a firewall or another rule of this machine forbids it"
    NO_ROUTE = "this machine knows no way there from that address"
    NO_ROOM = "this machine's queues were full"
