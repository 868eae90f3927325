"""The STUN message: 20 bytes of header and a list of attributes (RFC 8489 §5).

Rules of this codec:

1. `parse` raises `MalformedStun` and nothing else, whatever the bytes.
2. Every size in the message must fit exactly; nothing is cut, guessed or filled up.
3. The first attribute of a type counts (RFC 8489 §14).
4. After MESSAGE-INTEGRITY only MESSAGE-INTEGRITY-SHA256 and FINGERPRINT count, after
   MESSAGE-INTEGRITY-SHA256 only FINGERPRINT (§14.5-14.6); the rest must be well formed and is left out.
5. A FINGERPRINT that is present must be right and last (§14.7).
6. The value of padding is ignored (§14).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TypeVar

import msgspec

from crowline.base.machine import Buffer
from crowline.stun import integrity
from crowline.stun.attributes import (
    ATTRIBUTES,
    COMPREHENSION_OPTIONAL,
    COOKIE_BYTES,
    AnyAttribute,
    MalformedStun,
    UnknownAttribute,
)

__all__ = [
    "HEADER_SIZE", "MAX_ATTRIBUTES", "TRANSACTION_ID_SIZE", "MalformedStun", "Message", "MessageClass",
    "Method", "Received", "is_stun", "parse",
]  # fmt: skip

HEADER_SIZE = integrity.HEADER_SIZE
TRANSACTION_ID_SIZE = 12
# Real messages carry about ten; the cap keeps a packet of empty attributes from costing thousands of steps.
MAX_ATTRIBUTES = 64

MESSAGE_INTEGRITY = 0x0008
MESSAGE_INTEGRITY_SHA256 = 0x001C
FINGERPRINT = 0x8028
_PROTECTION = (MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, FINGERPRINT)

_HEADER = struct.Struct("!HH4s12s")
_ATTRIBUTE_HEADER = struct.Struct("!HH")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by size modulo 4

A = TypeVar("A", bound=AnyAttribute)


class Method(IntEnum):
    """What a message is about (RFC 8489 §18.2, RFC 8656 §17, RFC 6062 §6.1). Others are malformed here."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009
    CONNECT = 0x00A
    CONNECTION_BIND = 0x00B
    CONNECTION_ATTEMPT = 0x00C


class MessageClass(IntEnum):
    """What a message is for: to ask, to tell, or to answer well or badly (RFC 8489 §5)."""

    REQUEST = 0b00
    INDICATION = 0b01
    SUCCESS = 0b10
    ERROR = 0b11


class Message(msgspec.Struct, frozen=True):
    """A message as its author meant it: without integrity and fingerprint, which `encode` adds.

    `transaction_id` has 12 bytes (RFC 8489 §5); `attributes` stand in the order in which they are sent.
    """

    method: Method
    message_class: MessageClass
    transaction_id: bytes
    attributes: tuple[AnyAttribute, ...] = ()

    def get(self, cls: type[A]) -> A | None:
        """The first attribute of that class, or ``None``."""
        for attribute in self.attributes:
            if type(attribute) is cls:
                return attribute
        return None

    def get_all(self, cls: type[A]) -> tuple[A, ...]:
        """Every attribute of that class, for the few that may repeat (XOR-PEER-ADDRESS)."""
        return tuple(attribute for attribute in self.attributes if type(attribute) is cls)

    def answer(self, message_class: MessageClass, *attributes: AnyAttribute) -> Message:
        """A response with this request's method and transaction id."""
        return Message(self.method, message_class, self.transaction_id, attributes)

    def encode(self, *, key: bytes | None = None, fingerprint: bool = False, sha256: bool = False) -> bytes:
        """The bytes on the wire.

        `key` adds MESSAGE-INTEGRITY, or with `sha256` MESSAGE-INTEGRITY-SHA256 in its place.
        """
        head = _FIELDS[self.method << 2 | self.message_class]
        transaction_id = self.transaction_id
        body = b"".join(
            [_attribute(attribute.type, attribute.write(transaction_id)) for attribute in self.attributes]
        )
        data = _HEADER.pack(head, len(body), COOKIE_BYTES, transaction_id) + body
        if key is None and not fingerprint:
            return data
        if key is not None and sha256:
            data += _attribute(MESSAGE_INTEGRITY_SHA256, integrity.sha256_integrity(data, key))
        elif key is not None:
            data += _attribute(MESSAGE_INTEGRITY, integrity.sha1_integrity(data, key))
        if fingerprint:
            data += _attribute(FINGERPRINT, integrity.fingerprint(data))
        return integrity.with_length(data, len(data) - HEADER_SIZE)


class Received(msgspec.Struct, frozen=True):
    """A message as it came. Nothing in it is proven until `integrity.verify_integrity` says so.

    `message` holds the attributes that count. The offsets say where MESSAGE-INTEGRITY and
    MESSAGE-INTEGRITY-SHA256 start in `raw`. `unknown_required` lists, each once and in order, the
    comprehension-required types that are not in the table.
    """

    message: Message
    raw: bytes
    integrity_offset: int | None
    sha256_offset: int | None
    has_fingerprint: bool
    unknown_required: tuple[int, ...]

    @property
    def is_signed(self) -> bool:
        """Whether it carries a MESSAGE-INTEGRITY of either kind, right or wrong."""
        return self.integrity_offset is not None or self.sha256_offset is not None


def is_stun(data: Buffer) -> bool:
    """Whether a datagram looks like STUN: two zero bits, the cookie, a length that fits (RFC 8489 §5)."""
    return (
        len(data) >= HEADER_SIZE
        and data[0] < 0x40
        and data[3] % 4 == 0
        and data[4:8] == COOKIE_BYTES
        and ((data[2] << 8) | data[3]) + HEADER_SIZE == len(data)
    )


def parse(data: Buffer) -> Received:
    """Read one whole message. Raises `MalformedStun`."""
    if not is_stun(data):
        raise MalformedStun("no STUN header")
    raw = bytes(data)
    method, message_class = _read_type(raw[0] << 8 | raw[1])
    transaction_id = raw[8:HEADER_SIZE]
    attributes: list[AnyAttribute] = []
    unknown: list[int] = []
    offsets: dict[int, int] = {}
    for number, offset, value in _walk(raw):
        cls = ATTRIBUTES.get(number)
        if cls is not None:
            attribute: AnyAttribute = cls.read(value, transaction_id)
        elif number in _PROTECTION:
            _note_protection(raw, number, offset, value, offsets)
            continue
        else:
            attribute = UnknownAttribute(number, value)
        if offsets:
            continue
        attributes.append(attribute)
        if cls is None and number < COMPREHENSION_OPTIONAL and number not in unknown:
            unknown.append(number)
    return Received(
        message=Message(method, message_class, transaction_id, tuple(attributes)),
        raw=raw,
        integrity_offset=offsets.get(MESSAGE_INTEGRITY),
        sha256_offset=offsets.get(MESSAGE_INTEGRITY_SHA256),
        has_fingerprint=FINGERPRINT in offsets,
        unknown_required=tuple(unknown),
    )


def _walk(raw: bytes) -> list[tuple[int, int, bytes]]:
    """Type, offset and value of each attribute, padding skipped."""
    found: list[tuple[int, int, bytes]] = []
    offset, end_of_all = HEADER_SIZE, len(raw)
    while offset < end_of_all:
        if len(found) == MAX_ATTRIBUTES:
            raise MalformedStun(f"more than {MAX_ATTRIBUTES} attributes")
        # The header's length is a multiple of four, and so is every step: four bytes are always left here.
        number, size = _ATTRIBUTE_HEADER.unpack_from(raw, offset)
        start = offset + integrity.ATTRIBUTE_HEADER_SIZE
        end = start + size
        after = end + (-size & 3)
        if after > end_of_all:
            raise MalformedStun("an attribute runs past the end")
        found.append((number, offset, raw[start:end]))
        offset = after
    return found


def _note_protection(raw: bytes, number: int, offset: int, value: bytes, offsets: dict[int, int]) -> None:
    """Check the size of a protecting attribute, and keep its offset where it counts."""
    if number == MESSAGE_INTEGRITY:
        if len(value) != integrity.SHA1_SIZE:
            raise MalformedStun(f"MESSAGE-INTEGRITY of {len(value)} bytes")
        if not offsets:
            offsets[number] = offset
    elif number == MESSAGE_INTEGRITY_SHA256:
        if not integrity.MIN_SHA256_SIZE <= len(value) <= integrity.SHA256_SIZE or len(value) % 4:
            raise MalformedStun(f"MESSAGE-INTEGRITY-SHA256 of {len(value)} bytes")
        offsets.setdefault(number, offset)
    else:
        if len(value) != 4 or offset + 8 != len(raw):
            raise MalformedStun("FINGERPRINT is not four bytes at the end")
        if value != integrity.fingerprint(raw[:offset]):
            raise MalformedStun("the fingerprint does not fit")
        offsets[number] = offset


def _attribute(number: int, value: bytes) -> bytes:
    size = len(value)
    return _ATTRIBUTE_HEADER.pack(number, size) + value + _PADDING[size & 3]


def _type_field(method: int, message_class: int) -> int:
    """Method and class woven into 14 bits: RFC 8489 §5, figure 3."""
    woven = (method & 0x000F) | (method & 0x0070) << 1 | (method & 0x0F80) << 2
    return woven | (message_class & 1) << 4 | (message_class & 2) << 7


def _read_type(field: int) -> tuple[Method, MessageClass]:
    known = _TYPES.get(field)
    if known is None:
        number = (field & 0x000F) | (field & 0x00E0) >> 1 | (field & 0x3E00) >> 2
        raise MalformedStun(f"unknown method 0x{number:03x}")
    return known


_TYPES = {_type_field(method, kind): (method, kind) for method in Method for kind in MessageClass}
# By whole numbers, whose hash costs nothing: an enumeration's is a call.
_FIELDS = {method << 2 | kind: field for field, (method, kind) in _TYPES.items()}
