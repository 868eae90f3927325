"""What a hub knows of one meeting: no code, no key, and of what the sides say only sealed bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from crowline.rendezvous.rate import Bucket
from crowline.rendezvous.sent import SentLog


@dataclass(slots=True)
class Side:
    """One of the two. `token` lets it come back, `user` is its name at the TURN server."""

    token: str
    user: str
    log: SentLog[bytes]
    connection: int | None
    received: int = 0
    return_by: float | None = None
    gone: bool = False


@dataclass(slots=True)
class Mailbox:
    """One meeting. `hosts` are the IP addresses from which its sides have come."""

    number: int
    source: str
    element: bytes
    expires: float
    host: Side
    text: Bucket
    join: Side | None = None
    hosts: set[str] = field(default_factory=set)
    spent: int = 0
    is_budget_told: bool = False

    def sides(self) -> tuple[Side, ...]:
        return (self.host,) if self.join is None else (self.host, self.join)

    def other(self, side: Side) -> Side | None:
        return self.join if side is self.host else self.host
