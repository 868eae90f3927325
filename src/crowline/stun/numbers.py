"""STUN attributes whose value is one number, or a token of fixed size."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

from crowline.stun.shapes import Attribute, MalformedStun, check_size, read_number


@dataclass(frozen=True, slots=True)
class Priority(Attribute):
    """The priority the sender's candidate would have as peer-reflexive: RFC 8445 §7.1.1."""

    type = 0x0024
    value: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!I", self.value)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_number(cls, value, 4))


@dataclass(frozen=True, slots=True)
class Lifetime(Attribute):
    """Seconds an allocation lives: RFC 8656 §18.2."""

    type = 0x000D
    seconds: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!I", self.seconds)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_number(cls, value, 4))


@dataclass(frozen=True, slots=True)
class TieBreaker(Attribute):
    """64 random bits that settle a role conflict: RFC 8445 §7.3.1.1."""

    tie_breaker: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!Q", self.tie_breaker)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_number(cls, value, 8))


class IceControlled(TieBreaker):
    __slots__ = ()
    type = 0x8029


class IceControlling(TieBreaker):
    __slots__ = ()
    type = 0x802A


@dataclass(frozen=True, slots=True)
class ChannelNumber(Attribute):
    """Number and two reserved bytes: RFC 8656 §18.1. The range is the server's to judge."""

    type = 0x000C
    value: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!Hxx", self.value)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 4)
        return cls(int.from_bytes(value[:2], "big"))


@dataclass(frozen=True, slots=True)
class RequestedTransport(Attribute):
    """An IP protocol number: RFC 8656 §18.8."""

    type = 0x0019
    protocol: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!Bxxx", self.protocol)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 4)
        return cls(value[0])


@dataclass(frozen=True, slots=True)
class EvenPort(Attribute):
    """An even port, and with `reserve` the next one kept too: RFC 8656 §18.7."""

    type = 0x0018
    reserve: bool

    def write(self, transaction_id: bytes) -> bytes:
        return b"\x80" if self.reserve else b"\x00"

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 1)
        return cls(bool(value[0] & 0x80))


@dataclass(frozen=True, slots=True)
class ReservationToken(Attribute):
    """Eight bytes that claim a reserved port: RFC 8656 §18.10."""

    type = 0x0022
    token: bytes

    def write(self, transaction_id: bytes) -> bytes:
        return self.token

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 8)
        return cls(value)


@dataclass(frozen=True, slots=True)
class ResponsePort(Attribute):
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
