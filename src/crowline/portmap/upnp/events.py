"""What a gateway's client tells its user, and the HTTP requests it has its driver make."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from crowline.base.addresses import Address, AddressClass, classify
from crowline.portmap.upnp.element import MAX_DOCUMENT
from crowline.portmap.upnp.gateway_url import GatewayUrl
from crowline.portmap.upnp.listing import ListedPort
from crowline.portmap.upnp.port_actions import read_external_address
from crowline.portmap.upnp.soap import Answered, Outcome


class Outside(Enum):
    """What the gateway's outside address is worth."""

    PUBLIC = "public"
    """Everybody can reach it."""
    PRIVATE = "private"
    """There is another NAT behind it: a mapping helps only those in between."""
    ABSENT = "absent"
    """It has none, or says none that makes sense."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """To be made over a new TCP connection to `url.address`, without following redirects.

    The answer, its body cut off after `limit` bytes, is given back with `number`.
    """

    number: int
    method: str
    url: GatewayUrl
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    # One byte more than is read: what was cut off must not pass for a whole document.
    limit: int = MAX_DOCUMENT + 1


@dataclass(frozen=True, slots=True)
class OutsideAddress:
    """The gateway's outside address, at first and whenever it changes; `host` is ``None`` when absent."""

    host: str | None
    worth: Outside


@dataclass(frozen=True, slots=True)
class NoService:
    """This gateway maps no ports: `words` says why. Pinholes may still be possible."""

    words: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """What was asked for under `key` is open at `outside`, now or anew: an earlier address is void.

    `outside` has the host of `OutsideAddress`, for a pinhole our own; ``None`` when there is none.
    `lease` is in seconds, 0 without an end; it is renewed before that.
    """

    key: int
    port: int
    outside: Address | None
    lease: int
    is_verified: bool


@dataclass(frozen=True, slots=True)
class MapFailed:
    """What was asked for under `key` is not to be had, or no longer (`was_open`). The key is void."""

    key: int
    words: str
    code: int | None = None
    was_open: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """Everything is deleted, or was given up: `left` mappings could not be deleted in time."""

    left: int


@dataclass(frozen=True, slots=True)
class Listed:
    """What the gateway has open, for whomever."""

    ports: tuple[ListedPort, ...]


GatewayEvent: TypeAlias = OutsideAddress | NoService | Mapped | MapFailed | Listed | Closed


def outside_address(outcome: Outcome) -> OutsideAddress:
    """What the outcome of GetExternalIPAddress says."""
    host = read_external_address(outcome) if isinstance(outcome, Answered) else None
    kind = AddressClass.NEVER if host is None else classify(host)
    if kind is AddressClass.NEVER:
        return OutsideAddress(None, Outside.ABSENT)
    return OutsideAddress(host, Outside.PUBLIC if kind is AddressClass.OPEN else Outside.PRIVATE)
