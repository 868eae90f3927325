"""What a forwarding tells whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.forward.messages import Reason


@dataclass(frozen=True, slots=True)
class RuleReady:
    """A rule of this side works from now on; `where` programs connect to, here or over there."""

    rule: str
    where: Address | int


@dataclass(frozen=True, slots=True)
class RuleDenied:
    """The other side does not agree to a rule of this one."""

    rule: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Shared:
    """This side lets the other have what it asked for."""

    what: str


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """Something is forwarded: a TCP connection, or a flow of UDP. `what` says from where to where."""

    number: int
    what: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """It is over. `reason` is empty for a proper end, else a sentence without its full stop."""

    number: int
    sent: int
    received: int
    reason: str = ""


ForwardEvent: TypeAlias = RuleReady | RuleDenied | Shared | ConnectionOpened | ConnectionClosed
