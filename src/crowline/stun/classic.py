"""Binding as RFC 3489 had it: no magic cookie, sixteen bytes of transaction id, addresses in the clear.

Devices that speak only this are still in use. A request is read strictly, because every 20 bytes that start
with 0x0001 might be one; what may be answered is decided elsewhere. RESPONSE-ADDRESS, by which a request
aimed its answer at anybody, is unknown. User names and integrity are ignored: the answer is not signed.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.stun.attributes import (
    COMPREHENSION_OPTIONAL,
    COOKIE_BYTES,
    Attribute,
    ChangeRequest,
    ErrorCode,
    MalformedStun,
    MappedAddress,
    UnknownAttributes,
)
from crowline.stun.shapes import PlainAddress

REQUEST = b"\x00\x01"  # RFC 3489 §11.1
RESPONSE = b"\x01\x01"
ERROR_RESPONSE = b"\x01\x11"
HEADER_SIZE = 20

USERNAME, MESSAGE_INTEGRITY = 0x0006, 0x0008
MAX_ATTRIBUTES = 16

_ATTRIBUTE_HEADER = struct.Struct("!HH")


class SourceAddress(PlainAddress, frozen=True):
    """Where the answer was sent from: RFC 3489 §11.2.5."""

    type = 0x0004


class ChangedAddress(PlainAddress, frozen=True):
    """Where the answer comes from if both flags of CHANGE-REQUEST are set: RFC 3489 §11.2.3."""

    type = 0x0005


class ClassicRequest(Struct, frozen=True):
    """A Binding request; `unknown` are the types that it must not be answered without understanding."""

    transaction_id: bytes
    change: ChangeRequest | None
    unknown: tuple[int, ...]


def is_classic(data: Buffer) -> bool:
    """Whether that may be a Binding request of RFC 3489, and is not one of today."""
    return len(data) >= HEADER_SIZE and bytes(data[:2]) == REQUEST and bytes(data[4:8]) != COOKIE_BYTES


def read_request(data: Buffer) -> ClassicRequest:
    """Raises `MalformedStun`."""
    raw = bytes(data)
    if int.from_bytes(raw[2:4], "big") != len(raw) - HEADER_SIZE:
        raise MalformedStun("the length of a classic request does not fit")
    change: ChangeRequest | None = None
    unknown: list[int] = []
    for number, value in _walk(raw):
        if number == ChangeRequest.type:
            change = change or ChangeRequest.read(value, b"")
        elif number < COMPREHENSION_OPTIONAL and number not in (USERNAME, MESSAGE_INTEGRITY, *unknown):
            unknown.append(number)
    return ClassicRequest(raw[4:HEADER_SIZE], change, tuple(unknown))


def write_response(
    request: ClassicRequest, source: Address, origin: Address | None, changed: Address | None
) -> bytes:
    """RFC 3489 §8.1: how the client is seen, where the answer leaves from, and where else it could."""
    attributes: list[Attribute] = [MappedAddress(source)]
    if origin is not None:
        attributes.append(SourceAddress(origin))
    if changed is not None:
        attributes.append(ChangedAddress(changed))
    return _message(RESPONSE, request, attributes)


def write_unknown(request: ClassicRequest, types: tuple[int, ...], code: int) -> bytes:
    """The error response that lists types; an odd one is listed twice, for there is no padding (§11.2.10)."""
    even = types if len(types) % 2 == 0 else (*types, types[-1])
    return _message(ERROR_RESPONSE, request, [ErrorCode(code), UnknownAttributes(even)])


def _walk(raw: bytes) -> list[tuple[int, bytes]]:
    """Type and value of each attribute; sizes are multiples of four (RFC 3489 §11.2)."""
    found: list[tuple[int, bytes]] = []
    offset = HEADER_SIZE
    while offset < len(raw):
        if len(found) == MAX_ATTRIBUTES or offset + _ATTRIBUTE_HEADER.size > len(raw):
            raise MalformedStun("the attributes of a classic request do not fit")
        number, size = _ATTRIBUTE_HEADER.unpack_from(raw, offset)
        start = offset + _ATTRIBUTE_HEADER.size
        offset = start + size
        if size % 4 or offset > len(raw):
            raise MalformedStun("an attribute of a classic request runs past the end")
        found.append((number, raw[start:offset]))
    return found


def _message(kind: bytes, request: ClassicRequest, attributes: list[Attribute]) -> bytes:
    body = b""
    for attribute in attributes:
        value = attribute.write(request.transaction_id)
        body += _ATTRIBUTE_HEADER.pack(attribute.type, len(value)) + value
    return kind + len(body).to_bytes(2, "big") + request.transaction_id + body
