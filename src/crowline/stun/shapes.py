"""The shapes a STUN attribute's value can have, and the error for one that has none of them.

`read` raises `MalformedStun` for a value of the wrong size or range: a fixed-size attribute of another size
is malformed, never cut or filled up.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from typing import ClassVar, Self, TypeAlias

import msgspec

from crowline.base.addresses import Address
from crowline.base.errors import MalformedMessage

MAGIC_COOKIE = 0x2112A442
COOKIE_BYTES = MAGIC_COOKIE.to_bytes(4, "big")

MAX_TEXT_OCTETS = 763  # 127 characters of UTF-8 at their longest, RFC 8489 §14.8-14.14
FAMILY_IPV4 = 0x01
FAMILY_IPV6 = 0x02
_ADDRESS_HEAD = struct.Struct("!BBH")


class MalformedStun(MalformedMessage):
    """The other side sent a STUN message that cannot be read."""


class Attribute(msgspec.Struct, frozen=True):
    """What every attribute has; `type` is its number on the wire."""

    type: ClassVar[int]

    def write(self, transaction_id: bytes) -> bytes:
        """The value without header and padding. XOR addresses need the transaction id (RFC 8489 §14.2)."""
        raise NotImplementedError

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        """The attribute from its value. Raises `MalformedStun`."""
        raise NotImplementedError


class UnknownAttribute(msgspec.Struct, frozen=True):
    """An attribute of a type that is not in the table; kept so that a message can be written as it came."""

    type: int
    value: bytes

    def write(self, transaction_id: bytes) -> bytes:
        return self.value


AnyAttribute: TypeAlias = Attribute | UnknownAttribute


class PlainAddress(Attribute, frozen=True):
    """An address in the clear: RFC 8489 §14.1."""

    address: Address

    def write(self, transaction_id: bytes) -> bytes:
        packed = packed_host(self.address.host)
        family = FAMILY_IPV4 if len(packed) == 4 else FAMILY_IPV6
        return struct.pack("!BBH", 0, family, self.address.port) + packed

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_address(cls, value)
        return cls(Address(host_text(value[4:]), int.from_bytes(value[2:4], "big")))


class XorAddress(Attribute, frozen=True):
    """An address hidden from meddling NATs by cookie and transaction id: RFC 8489 §14.2."""

    address: Address

    def write(self, transaction_id: bytes) -> bytes:
        packed = packed_host(self.address.host)
        family = FAMILY_IPV4 if len(packed) == 4 else FAMILY_IPV6
        port = self.address.port ^ (MAGIC_COOKIE >> 16)
        return _ADDRESS_HEAD.pack(0, family, port) + _xor(packed, transaction_id)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_address(cls, value)
        port = int.from_bytes(value[2:4], "big") ^ (MAGIC_COOKIE >> 16)
        return cls(Address(host_text(_xor(value[4:], transaction_id)), port))


class Text(Attribute, frozen=True):
    """UTF-8 of at most `max_octets`; it may hold anything a peer likes, so escape it before showing it."""

    max_octets: ClassVar[int] = MAX_TEXT_OCTETS

    value: str

    def write(self, transaction_id: bytes) -> bytes:
        return self.value.encode()

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(read_text(cls.__name__, value, cls.max_octets))


class Flag(Attribute, frozen=True):
    """Present or absent, without a value."""

    def write(self, transaction_id: bytes) -> bytes:
        return b""

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 0)
        return cls()


class Blob(Attribute, frozen=True):
    """Bytes of any size."""

    value: bytes

    def write(self, transaction_id: bytes) -> bytes:
        return self.value

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        return cls(value)


class Family(Attribute, frozen=True):
    """An address family in the first of four bytes: RFC 8656 §18.6."""

    family: int

    def write(self, transaction_id: bytes) -> bytes:
        return struct.pack("!Bxxx", self.family)

    @classmethod
    def read(cls, value: bytes, transaction_id: bytes) -> Self:
        check_size(cls, value, 4)
        return cls(value[0])


@functools.lru_cache(maxsize=4096)
def packed_host(host: str) -> bytes:
    """The 4 or 16 bytes of an IP address in its canonical text form."""
    if ":" in host:
        return ipaddress.IPv6Address(host).packed
    return bytes(map(int, host.split(".")))


@functools.lru_cache(maxsize=4096)
def host_text(packed: bytes) -> str:
    """The canonical text form of 4 or 16 bytes of IP address."""
    if len(packed) == 4:
        return ".".join(map(str, packed))
    return str(ipaddress.IPv6Address(packed))


def _xor(packed: bytes, transaction_id: bytes) -> bytes:
    """IPv4 needs the cookie alone, so that the few addresses of a server's clients need no arithmetic."""
    return _xor_cookie(packed) if len(packed) == 4 else _xor_mask(packed, COOKIE_BYTES + transaction_id)


@functools.lru_cache(maxsize=4096)
def _xor_cookie(packed: bytes) -> bytes:
    return _xor_mask(packed, COOKIE_BYTES)


def _xor_mask(packed: bytes, mask: bytes) -> bytes:
    return (int.from_bytes(packed, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(packed), "big")


def check_address(cls: type[Attribute], value: bytes) -> None:
    if len(value) >= 4:
        size = {FAMILY_IPV4: 8, FAMILY_IPV6: 20}.get(value[1])
        if len(value) == size:
            return
    raise MalformedStun(f"{cls.__name__} of {len(value)} bytes or of an unknown family")


def check_size(cls: type[Attribute], value: bytes, size: int) -> None:
    if len(value) != size:
        raise MalformedStun(f"{cls.__name__} of {len(value)} bytes, not {size}")


def read_number(cls: type[Attribute], value: bytes, size: int) -> int:
    check_size(cls, value, size)
    return int.from_bytes(value, "big")


def read_text(name: str, value: bytes, max_octets: int) -> str:
    if len(value) > max_octets:
        raise MalformedStun(f"{name} of {len(value)} bytes, more than {max_octets}")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedStun(f"{name} is not UTF-8") from None
