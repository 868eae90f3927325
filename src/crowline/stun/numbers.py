"""STUN attributes whose value is one number, or a token of fixed size."""

from __future__ import annotations

import struct
from typing import Self

from crowline.stun.shapes import Attribute, MalformedStun, check_size, read_number


class Priority(Attribute, frozen=True):
    """The priority the sender's candidate would have as peer-reflexive: RFC 8445 §7.1.1."""

    type = 0x0024
    value: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!I", self.value)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_number(cls, value, 4))


class Nomination(Attribute, frozen=True):
    """The rank of a nomination among all of its side: of two, both sides take the higher one.

    Sent with USE-CANDIDATE by agents of ours that agreed to renominate; a number of no registry, from the
    half that others ignore (RFC 8489 §18.3).
    """

    type = 0xC3C1
    rank: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!Q", self.rank)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_number(cls, value, 8))


class Lifetime(Attribute, frozen=True):
    """Seconds an allocation lives: RFC 8656 §18.2."""

    type = 0x000D
    seconds: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!I", self.seconds)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_number(cls, value, 4))


class TieBreaker(Attribute, frozen=True):
    """64 random bits that settle a role conflict: RFC 8445 §7.3.1.1."""

    tie_breaker: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!Q", self.tie_breaker)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_number(cls, value, 8))


class IceControlled(TieBreaker, frozen=True):
    type = 0x8029


class IceControlling(TieBreaker, frozen=True):
    type = 0x802A


class ChannelNumber(Attribute, frozen=True):
    """Number and two reserved bytes: RFC 8656 §18.1. The range is the server's to judge."""

    type = 0x000C
    value: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!Hxx", self.value)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 4)
        return cls(int.from_bytes(value[:2], "big"))


class RequestedTransport(Attribute, frozen=True):
    """An IP protocol number: RFC 8656 §18.8."""

    type = 0x0019
    protocol: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!Bxxx", self.protocol)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 4)
        return cls(value[0])


class EvenPort(Attribute, frozen=True):
    """An even port, and with `reserve` the next one kept too: RFC 8656 §18.7."""

    type = 0x0018
    reserve: bool

    def write(self, transaction_id: bytes) -> bytes:
        return b"\x80" if self.reserve else b"\x00"

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 1)
        return cls(bool(value[0] & 0x80))


class ReservationToken(Attribute, frozen=True):
    """Eight bytes that claim a reserved port: RFC 8656 §18.10."""

    type = 0x0022
    token: bytes

    def write(self, transaction_id: bytes) -> bytes:
        return self.token

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 8)
        return cls(value)


class ResponsePort(Attribute, frozen=True):
    """The port to answer to: RFC 5780 §7.5. Padded to four bytes by some senders."""

    type = 0x0027
    port: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!H", self.port)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        if len(value) not in (2, 4):
            raise MalformedStun(f"RESPONSE-PORT of {len(value)} bytes")
        return cls(int.from_bytes(value[:2], "big"))


class ConnectionId(Attribute, frozen=True):
    """Names one connection with a peer: RFC 6062 §6.2.1."""

    type = 0x002A
    value: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!I", self.value)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_number(cls, value, 4))


class Icmp(Attribute, frozen=True):
    """An ICMP error that a relayed datagram met: RFC 8656 §18.13, figure 11.

    The type has seven bits, enough for every error of ICMP and ICMPv6, and the code nine.
    """

    type = 0x8004
    icmp_type: int
    icmp_code: int
    data: int = 0
    """For "too big" the MTU in bytes, else 0."""

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!HHI", 0, (self.icmp_type & 0x7F) << 9 | self.icmp_code, self.data)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 8)
        both, data = struct.unpack("!xxHI", value)
        return cls(both >> 9, both & 0x1FF, data)


class MobilityTicket(Attribute, frozen=True):
    """Opaque bytes that move an allocation to another 5-tuple; empty to ask for one: RFC 8016 §3.1."""

    type = 0x8030
    value: bytes

    def write(self, transaction_id: bytes) -> bytes:
        return self.value

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(value)
