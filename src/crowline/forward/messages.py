"""Messages of a forwarding: a length of two bytes, network byte order, then JSON.

On the agreed stream each side asks for its rules and answers the other's, at any time and in any order:

| message | meaning |
| --- | --- |
| `Reach` | may I reach that host and port from your side? |
| `Roam` | may I reach from your side what your permits allow, as my programs name it? |
| `Listen` | listen there, on your side; what arrives goes to my side |
| `Granted`, `Denied` | the answer to a rule, by the number that its side gave it |

Every other stream is one TCP connection or one flow of UDP. It begins with `Connect` (for a rule `Reach` or
`Roam` of the side that opens it) or `Arrived` (for a rule `Listen` of the side that did not). The opener's
bytes may follow at once; the other side's begin with `Opened` or `Failed`.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from crowline.base.errors import MalformedMessage

LENGTH = struct.Struct("!H")
# A message: two names and a few numbers.
MAX_MESSAGE = 2048
# RFC 1035 §2.3.4: a name.
MAX_HOST = 255
# Rules that one side may ask for.
MAX_RULES = 64

Transport: TypeAlias = Literal["tcp", "udp"]
# People are asked about hosts: one in which there is no space cannot pass for a part of the question.
_WORD = r"^\S*$"
Host: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_HOST, pattern=_WORD)]
Port: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class Reason(StrEnum):
    """Why something does not come to be. What is not known here is read as `FAILED`."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    UNKNOWN_NAME = "unknown-name"
    NOT_ALLOWED = "not-allowed"
    PORT_TAKEN = "port-taken"
    TOO_MANY = "too-many"
    FAILED = "failed"

    @classmethod
    def _missing_(cls, value: object) -> Reason:
        return cls.FAILED

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Reason.REFUSED: "nothing listens there",
    Reason.UNREACHABLE: "there is no way to it",
    Reason.SILENT: "it does not answer",
    Reason.UNKNOWN_NAME: "there is no such name",
    Reason.NOT_ALLOWED: "that is not allowed there",
    Reason.PORT_TAKEN: "that port cannot be listened at there",
    Reason.TOO_MANY: "there are too many already",
    Reason.FAILED: "it failed",
}


class _Message(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    pass


class Reach(_Message, frozen=True, tag="reach"):
    rule: Number
    transport: Transport
    host: Host
    port: Port


class Roam(_Message, frozen=True, tag="roam"):
    rule: Number


class Listen(_Message, frozen=True, tag="listen"):
    """`target` says to people where it leads."""

    rule: Number
    transport: Transport
    host: Host
    port: Port
    target: Annotated[str, msgspec.Meta(max_length=MAX_HOST + 8, pattern=_WORD)]


class Granted(_Message, frozen=True, tag="granted"):
    """`port`: where a `Listen` listens."""

    rule: Number
    port: Port = 0


class Denied(_Message, frozen=True, tag="denied"):
    rule: Number
    reason: str


class Connect(_Message, frozen=True, tag="connect"):
    """`host` and `port` are for a rule `Roam`. A flow of UDP has a number, even where the host opened it; one
    of `Roam` names a host in each datagram and none here.
    """

    rule: Number
    transport: Transport
    host: Host = ""
    port: Port = 0
    flow: Number | None = None


class Arrived(_Message, frozen=True, tag="arrived"):
    rule: Number
    flow: Number | None = None


class Opened(_Message, frozen=True, tag="opened"):
    pass


class Failed(_Message, frozen=True, tag="failed"):
    reason: str


Request: TypeAlias = Reach | Roam | Listen
Control: TypeAlias = Request | Granted | Denied
Head: TypeAlias = Connect | Arrived
Answer: TypeAlias = Opened | Failed

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_control: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)
_head: msgspec.json.Decoder[Head] = msgspec.json.Decoder(Head)
_answer: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


class MalformedForwardMessage(MalformedMessage):
    """A message of a forwarding cannot be read."""


def encode(message: Control | Head | Answer) -> bytes:
    """With its length in front."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_control(body: bytes) -> Control:
    """Without its length. Raises `MalformedForwardMessage`."""
    return _decode(_control, body)


def decode_head(body: bytes) -> Head:
    """As `decode_control`."""
    return _decode(_head, body)


def decode_answer(body: bytes) -> Answer:
    """As `decode_control`."""
    return _decode(_answer, body)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedForwardMessage("The other side sent what is no message of a forwarding.") from error
