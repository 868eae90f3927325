"""STUN attributes: one frozen class for each type, and the table that finds it by its number.

Types from 0x0000 to 0x7FFF are comprehension-required (RFC 8489 §14).

    RFC 8489   addresses, user name, realm, nonce, errors, password algorithms, software
    RFC 8445   priority, use-candidate, roles
    RFC 8656   channel number, lifetime, peers, relays, data, transport, address families, ports, ICMP
    RFC 6062   connection id
    RFC 8016   mobility ticket
    RFC 5780   change-request, response-origin, other-address, padding, response-port
"""

from __future__ import annotations

import struct
from typing import Self

from crowline.stun.numbers import (
    ChannelNumber,
    ConnectionId,
    EvenPort,
    IceControlled,
    IceControlling,
    Icmp,
    Lifetime,
    MobilityTicket,
    Nomination,
    Priority,
    RequestedTransport,
    ReservationToken,
    ResponsePort,
    TieBreaker,
)
from crowline.stun.shapes import (
    COOKIE_BYTES,
    FAMILY_IPV4,
    FAMILY_IPV6,
    MAGIC_COOKIE,
    MAX_TEXT_OCTETS,
    AnyAttribute,
    Attribute,
    Blob,
    Family,
    Flag,
    MalformedStun,
    PlainAddress,
    Text,
    UnknownAttribute,
    XorAddress,
    check_size,
    host_text,
    packed_host,
    read_number,
    read_text,
)

__all__ = [
    "ATTRIBUTES", "COMPREHENSION_OPTIONAL", "COOKIE_BYTES", "FAMILY_IPV4", "FAMILY_IPV6",
    "MAGIC_COOKIE", "AdditionalAddressFamily", "AddressErrorCode", "AlternateDomain",
    "AlternateServer", "AnyAttribute", "Attribute", "ChangeRequest", "ChannelNumber", "ConnectionId",
    "Data", "DontFragment", "ErrorCode", "EvenPort", "IceControlled", "IceControlling", "Icmp", "Lifetime",
    "MalformedStun", "MappedAddress", "MobilityTicket", "Nomination", "Nonce", "OtherAddress", "Padding",
    "PasswordAlgorithm", "PasswordAlgorithms", "Priority", "Realm", "RequestedAddressFamily",
    "RequestedTransport", "ReservationToken", "ResponseOrigin", "ResponsePort", "Software", "TieBreaker",
    "UnknownAttribute", "UnknownAttributes", "UseCandidate", "Userhash", "Username",
    "XorMappedAddress", "XorPeerAddress", "XorRelayedAddress", "host_text", "packed_host",
]  # fmt: skip

COMPREHENSION_OPTIONAL = 0x8000  # types from here on may be ignored, RFC 8489 §14
MAX_USERNAME_OCTETS = 512  # RFC 5389 §15.3; RFC 8489 §14.3 sends at most 508


# --- addresses ------------------------------------------------------------------------------------------


class MappedAddress(PlainAddress, frozen=True):
    type = 0x0001


class ResponseOrigin(PlainAddress, frozen=True):
    """Where a response was sent from: RFC 5780 §7.3."""

    type = 0x802B


class OtherAddress(PlainAddress, frozen=True):
    """The server's alternate address and port: RFC 5780 §7.4."""

    type = 0x802C


class AlternateServer(PlainAddress, frozen=True):
    type = 0x8023


class XorMappedAddress(XorAddress, frozen=True):
    type = 0x0020


class XorPeerAddress(XorAddress, frozen=True):
    type = 0x0012


class XorRelayedAddress(XorAddress, frozen=True):
    type = 0x0016


# --- texts ----------------------------------------------------------------------------------------------


class Username(Text, frozen=True):
    type = 0x0006
    max_octets = MAX_USERNAME_OCTETS


class Realm(Text, frozen=True):
    type = 0x0014


class Nonce(Text, frozen=True):
    type = 0x0015


class Software(Text, frozen=True):
    type = 0x8022


class AlternateDomain(Text, frozen=True):
    type = 0x8003
    max_octets = 255


# --- flags and blobs ------------------------------------------------------------------------------------


class UseCandidate(Flag, frozen=True):
    type = 0x0025


class DontFragment(Flag, frozen=True):
    type = 0x001A


class Data(Blob, frozen=True):
    type = 0x0013


class Padding(Blob, frozen=True):
    type = 0x0026


class PasswordAlgorithms(Blob, frozen=True):
    """The server's list, kept as bytes because a client must echo it exactly: RFC 8489 §14.11."""

    type = 0x8002


class PasswordAlgorithm(Blob, frozen=True):
    type = 0x001D


class RequestedAddressFamily(Family, frozen=True):
    type = 0x0017


class AdditionalAddressFamily(Family, frozen=True):
    type = 0x8000


# --- structures -----------------------------------------------------------------------------------------


class ErrorCode(Attribute, frozen=True):
    """A code of 300 to 699 and a reason for a person: RFC 8489 §14.8."""

    type = 0x0009
    code: int
    reason: str = ""

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!HBB", 0, self.code // 100, self.code % 100) + self.reason.encode()

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        if len(value) < 4:
            raise MalformedStun(f"ERROR-CODE of {len(value)} bytes")
        hundreds, rest = value[2] & 0x07, value[3]
        if not 3 <= hundreds <= 6 or rest > 99:
            raise MalformedStun(f"error class {hundreds}, number {rest}")
        return cls(hundreds * 100 + rest, read_text("ERROR-CODE", value[4:], MAX_TEXT_OCTETS))


class AddressErrorCode(Attribute, frozen=True):
    """Why one of two address families got no relay: RFC 8656 §18.12."""

    type = 0x8001
    family: int
    code: int
    reason: str = ""

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!BxBB", self.family, self.code // 100, self.code % 100) + self.reason.encode()

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        error = ErrorCode.read(value, transaction_id)
        return cls(value[0], error.code, error.reason)


class UnknownAttributes(Attribute, frozen=True):
    """The types a 420 complains about: RFC 8489 §14.13."""

    type = 0x000A
    types: tuple[int, ...]

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack(f"!{len(self.types)}H", *self.types)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        if len(value) % 2:
            raise MalformedStun(f"UNKNOWN-ATTRIBUTES of {len(value)} bytes")
        return cls(struct.unpack(f"!{len(value) // 2}H", value))


class ChangeRequest(Attribute, frozen=True):
    """Answer from the other IP address, the other port or both: RFC 5780 §7.2."""

    type = 0x0003
    change_ip: bool
    change_port: bool

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!I", (self.change_ip << 2) | (self.change_port << 1))

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        bits = read_number(cls, value, 4)
        return cls(bool(bits & 4), bool(bits & 2))


class Userhash(Attribute, frozen=True):
    """SHA-256 of user and realm, in place of the user name: RFC 8489 §14.4."""

    type = 0x001E
    value: bytes

    def write(self, transaction_id: bytes) -> bytes:
        return self.value

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 32)
        return cls(value)


ATTRIBUTES: dict[int, type[Attribute]] = {
    cls.type: cls
    for cls in (
        MappedAddress, ChangeRequest, Username, ErrorCode, UnknownAttributes, ChannelNumber, Lifetime,
        XorPeerAddress, Data, Realm, Nonce, XorRelayedAddress, RequestedAddressFamily, EvenPort,
        RequestedTransport, DontFragment, PasswordAlgorithm, Userhash, XorMappedAddress, ReservationToken,
        Priority, UseCandidate, Padding, ResponsePort, AdditionalAddressFamily, AddressErrorCode,
        PasswordAlgorithms, AlternateDomain, Software, AlternateServer, IceControlled, IceControlling,
        ResponseOrigin, OtherAddress, ConnectionId, Icmp, MobilityTicket, Nomination,
    )
}  # fmt: skip
