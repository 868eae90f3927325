"""Client and hub: one JSON object a WebSocket text message, told apart by ``t``; bytes are Base64.

The first message of each side carries the protocol version ``v``. Unknown fields are ignored, so that a
version can grow; what changes the meaning of a field raises the version.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from crowline.base.errors import MalformedMessage
from crowline.base.machine import Buffer
from crowline.rendezvous.appointment import NAME_BYTES
from crowline.rendezvous.code import MAX_NUMBER
from crowline.rendezvous.pake import MAX_ELEMENT

VERSION = 1

MAX_MESSAGE = 64 * 1024
"""Bytes of one WebSocket message, text or binary: a session frame of link zero is the largest."""

Version = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Number = Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]
Element = Annotated[bytes, msgspec.Meta(max_length=MAX_ELEMENT)]
Name = Annotated[bytes, msgspec.Meta(min_length=NAME_BYTES, max_length=NAME_BYTES)]
SideToken = Annotated[str, msgspec.Meta(max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
HostText = Annotated[str, msgspec.Meta(max_length=253)]
IpText = Annotated[str, msgspec.Meta(max_length=45)]
"""The longest text form of an IPv6 address has 45 characters."""
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Fingerprint = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
MessageKind = Literal["confirm", "sealed"]
Place = Literal["host", "join"]
Ending = Literal["burned", "expired", "flood", "replaced", "renewed"]

MAX_LOOKED_UP = 64
"""Mailboxes that one `Look` asks for: more than most people's list of other sides."""


class MalformedWire(MalformedMessage):
    """A message between client and server cannot be read."""


class ServerAddress(msgspec.Struct, frozen=True):
    """Where a service of the server listens. An empty `host`: the address by which the hub was reached.

    `fingerprint` is the SHA-256 of the only certificate a TLS service may show, in hexadecimal; without it
    the certificate must be good for `host`.
    """

    host: HostText
    port: Port
    transport: Literal["udp", "tcp", "tls"] = "udp"
    fingerprint: Fingerprint = ""


class TurnGrant(msgspec.Struct, frozen=True):
    """Credentials for the server's TURN service, good for this meeting and for `lifetime` seconds."""

    servers: Annotated[tuple[ServerAddress, ...], msgspec.Meta(max_length=8)]
    username: Annotated[str, msgspec.Meta(max_length=256)]
    password: Annotated[str, msgspec.Meta(max_length=256)]
    lifetime: Count

    def __repr__(self) -> str:
        return f"TurnGrant(servers={self.servers!r}, …)"


# From the client


class Allocate(msgspec.Struct, frozen=True, tag_field="t", tag="allocate"):
    """The host asks for a number. `element` waits in the mailbox for the other side.

    `hidden`: nobody is to learn from the hub whether this side is at some address.
    """

    v: Version
    element: Element
    hidden: bool = False


class Claim(msgspec.Struct, frozen=True, tag_field="t", tag="claim"):
    """The other side takes its place in the mailbox; only one ever gets it. `hidden` as with `Allocate`."""

    v: Version
    number: Number
    element: Element
    hidden: bool = False


class Meet(msgspec.Struct, frozen=True, tag_field="t", tag="meet"):
    """One of two that share a secret takes its place in the mailbox `name`, whoever of them comes first.

    Who held that place before is sent away: it is an earlier life of the same side. `hidden` as with
    `Allocate`.
    """

    v: Version
    name: Name
    place: Place
    element: Element
    hidden: bool = False


class Look(msgspec.Struct, frozen=True, tag_field="t", tag="look"):
    """Who is in these mailboxes now? Only who shares a mailbox's secret can name it."""

    v: Version
    names: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_LOOKED_UP)]


class Resume(msgspec.Struct, frozen=True, tag_field="t", tag="resume"):
    """A side is back on a new WebSocket and has `received` messages of the other side so far."""

    v: Version
    token: SideToken
    received: Count


class Relay(msgspec.Struct, frozen=True, tag_field="t", tag="relay"):
    """For the other side, which gets it as `Relayed`."""

    kind: MessageKind
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_MESSAGE)]


class Burn(msgspec.Struct, frozen=True, tag_field="t", tag="burn"):
    """The other side did not know the code: nobody may try it again."""


class Leave(msgspec.Struct, frozen=True, tag_field="t", tag="leave"):
    """This side is done and does not come back."""


class Ping(msgspec.Struct, frozen=True, tag_field="t", tag="ping"):
    """The meeting is still wanted."""


class Vouch(msgspec.Struct, frozen=True, tag_field="t", tag="vouch"):
    """Is the other side at that IP address? Only to a hub whose welcome says that it answers that."""

    host: IpText


ClientMessage: TypeAlias = Allocate | Claim | Meet | Look | Resume | Relay | Burn | Leave | Ping | Vouch

# From the hub


class Welcome(msgspec.Struct, frozen=True, tag_field="t", tag="welcome"):
    """The hub's first message, sent at once.

    `budget`: bytes that link zero carries freely, both sides together; `rate`: how many a second after that,
    0 if it ends there. `credit`: how many a side may send before the first `Budget`. `vouches`: it takes
    `Vouch`.
    """

    v: Version
    stun: Annotated[tuple[ServerAddress, ...], msgspec.Meta(max_length=8)] = ()
    budget: Count = 0
    max_message: Count = MAX_MESSAGE
    motd: Annotated[str, msgspec.Meta(max_length=MAX_MESSAGE)] = ""
    credit: Count = 0
    rate: Count = 0
    vouches: bool = False

    @property
    def grants_more(self) -> bool:
        """Whether a side may ever send more than its first credit."""
        return self.rate > 0 or self.budget > 2 * self.credit


class Allocated(msgspec.Struct, frozen=True, tag_field="t", tag="allocated"):
    """The host's number, good for `lifetime` seconds. `token` opens the way back after a broken WebSocket."""

    number: Number
    token: SideToken
    lifetime: Count


class Claimed(msgspec.Struct, frozen=True, tag_field="t", tag="claimed"):
    """Both are there: the answer to `Claim`, with the host's element."""

    element: Element
    token: SideToken
    turn: TurnGrant | None = None


class Joined(msgspec.Struct, frozen=True, tag_field="t", tag="joined"):
    """Both are there: the host gets the other side's element."""

    element: Element
    turn: TurnGrant | None = None


class Placed(msgspec.Struct, frozen=True, tag_field="t", tag="placed"):
    """The answer to `Meet`: the place is yours while you are connected, or back within `lifetime` seconds."""

    token: SideToken
    lifetime: Count


class Met(msgspec.Struct, frozen=True, tag_field="t", tag="met"):
    """Both who share the secret are there: each gets the other's element."""

    element: Element
    turn: TurnGrant | None = None


class Waiting(msgspec.Struct, frozen=True, tag_field="t", tag="waiting"):
    """The answer to `Look`: for each name the places that are taken by somebody who is connected now."""

    places: Annotated[tuple[tuple[Place, ...], ...], msgspec.Meta(max_length=MAX_LOOKED_UP)]


class Relayed(msgspec.Struct, frozen=True, tag_field="t", tag="relayed"):
    """From the other side, by the hub's own knowledge of who sent it."""

    kind: MessageKind
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_MESSAGE)]


class Resumed(msgspec.Struct, frozen=True, tag_field="t", tag="resumed"):
    """The hub has `received` messages of this side for the other; those that were missed follow."""

    received: Count


class Left(msgspec.Struct, frozen=True, tag_field="t", tag="left"):
    """The other side's WebSocket ended; if not `final`, it may come back. `silent`: nobody ended it, nothing
    came any more.
    """

    final: bool
    silent: bool = False


class Back(msgspec.Struct, frozen=True, tag_field="t", tag="back"):
    """The other side is back."""


class Budget(msgspec.Struct, frozen=True, tag_field="t", tag="budget"):
    """This side may send `limit` bytes of link zero in all, and more will come unless this is `final`."""

    limit: Count
    final: bool = False


class Gone(msgspec.Struct, frozen=True, tag_field="t", tag="gone"):
    """The mailbox is closed. ``replaced``: this side came once more by another connection; ``renewed``: the
    other side did, and waits there now."""

    reason: Ending


class Error(msgspec.Struct, frozen=True, tag_field="t", tag="error"):
    """The request was refused; `retry` is in seconds, for those that may be repeated."""

    code: Literal["version", "malformed", "no-such-code", "slow-down", "full", "lost"]
    retry: Count = 0


class Pong(msgspec.Struct, frozen=True, tag_field="t", tag="pong"):
    """The answer to `Ping`."""


class Vouched(msgspec.Struct, frozen=True, tag_field="t", tag="vouched"):
    """The other side came to this server from that IP address, which was asked for. There is no other answer
    to `Vouch`: the hub names no address that the asking side has not named."""

    host: IpText


HubMessage: TypeAlias = (
    Welcome
    | Allocated
    | Claimed
    | Joined
    | Placed
    | Met
    | Waiting
    | Relayed
    | Resumed
    | Left
    | Back
    | Budget
    | Gone
    | Error
    | Pong
    | Vouched
)

_client_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_hub_decoder: msgspec.json.Decoder[HubMessage] = msgspec.json.Decoder(HubMessage)
M = TypeVar("M")


def encode(message: ClientMessage | HubMessage) -> bytes:
    """One text message."""
    return msgspec.json.encode(message)


def decode_client(data: Buffer) -> ClientMessage:
    """What a client sent. Raises `MalformedWire`."""
    return _decode(_client_decoder, data)


def decode_hub(data: Buffer) -> HubMessage:
    """What a hub sent. Raises `MalformedWire`."""
    return _decode(_hub_decoder, data)


def _decode(decoder: msgspec.json.Decoder[M], data: Buffer) -> M:
    if len(data) > MAX_MESSAGE:
        raise MalformedWire
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MalformedWire from None
