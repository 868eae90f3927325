"""NAT-PMP (RFC 6886), the client's side: requests are built, answers are parsed."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer

VERSION = 0
RESPONSE = 128  # set in the operation of every answer
LONGEST = 1100  # bytes; a gateway that knows PCP too may answer version 0 with PCP's size (RFC 6887 §7)

_ADDRESS, _MAP_UDP, _MAP_TCP = 0, 1, 2
_OPERATIONS = {17: _MAP_UDP, 6: _MAP_TCP}  # by protocol number of IP
_PROTOCOLS = {operation: protocol for protocol, operation in _OPERATIONS.items()}

_HEADER = struct.Struct("!BBHI")  # version, operation, result, epoch
_MAP_REQUEST = struct.Struct("!BBHHHI")  # version, operation, 0, inside port, suggested port, lifetime
_MAPPED = struct.Struct("!HHI")  # inside port, outside port, lifetime


class MalformedNatPmp(MalformedMessage):
    """The datagram is no answer of NAT-PMP."""


class NatPmpResult(IntEnum):
    """RFC 6886 §3.5."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5
    UNKNOWN = 0xFFFF

    @classmethod
    def _missing_(cls, value: object) -> NatPmpResult:
        return cls.UNKNOWN

    @property
    def words(self) -> str:
        """For a person."""
        return _WORDS[self]


_WORDS = {
    NatPmpResult.SUCCESS: "done",
    NatPmpResult.UNSUPPORTED_VERSION: "the gateway does not speak this version",
    NatPmpResult.NOT_AUTHORIZED: "the gateway refuses: port mapping is off there, or not for this host",
    NatPmpResult.NETWORK_FAILURE: "the gateway itself has no connection to the outside",
    NatPmpResult.OUT_OF_RESOURCES: "the gateway can open no more ports now",
    NatPmpResult.UNSUPPORTED_OPCODE: "the gateway does not know this request",
    NatPmpResult.UNKNOWN: "the gateway gave a result that no specification names",
}


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """The outside address; ``None`` where the result is no success."""

    result: NatPmpResult
    epoch: int
    host: str | None


@dataclass(frozen=True, slots=True)
class MapAnswer:
    """A port that was opened, or with lifetime 0 is closed.

    A failure may leave out all that follows the epoch: `inside_port` is ``None`` then.
    """

    result: NatPmpResult
    epoch: int
    protocol: int
    inside_port: int | None
    outside_port: int
    lifetime: int


@dataclass(frozen=True, slots=True)
class OtherAnswer:
    """An answer to a request that NAT-PMP does not have, such as one of another version."""

    result: NatPmpResult
    epoch: int


NatPmpAnswer = AddressAnswer | MapAnswer | OtherAnswer


def address_request() -> bytes:
    """Which outside address is it? (RFC 6886 §3.2)"""
    return bytes((VERSION, _ADDRESS))


def map_request(protocol: int, inside_port: int, suggested_port: int, lifetime: int) -> bytes:
    """Open a port for `lifetime` seconds (RFC 6886 §3.3), or close it with lifetime 0 (§3.4).

    Raises `UsageError` for another protocol than UDP and TCP, and for inside port 0, which means all ports.
    """
    if protocol not in _OPERATIONS:
        raise UsageError(f"NAT-PMP opens ports of UDP and TCP, not of protocol {protocol}")
    if not 1 <= inside_port <= 0xFFFF:
        raise UsageError(f"port {inside_port} cannot be opened")
    return _MAP_REQUEST.pack(VERSION, _OPERATIONS[protocol], 0, inside_port, suggested_port, lifetime)


def parse(data: Buffer) -> NatPmpAnswer:
    """An answer of version 0. Raises `MalformedNatPmp`."""
    if not _HEADER.size <= len(data) <= LONGEST:
        raise MalformedNatPmp("no length that an answer has")
    version, operation, code, epoch = _HEADER.unpack_from(data)
    if version != VERSION or not operation & RESPONSE:
        raise MalformedNatPmp("no answer of this version")
    result = NatPmpResult(code)
    operation ^= RESPONSE
    if operation == _ADDRESS:
        return AddressAnswer(result, epoch, _host(data) if result is NatPmpResult.SUCCESS else None)
    if operation in _PROTOCOLS:
        return _map_answer(data, result, epoch, _PROTOCOLS[operation])
    return OtherAnswer(result, epoch)


def _host(data: Buffer) -> str:
    packed = bytes(data[_HEADER.size : _HEADER.size + 4])
    if len(packed) < 4:
        raise MalformedNatPmp("too short for an address")
    return str(ipaddress.IPv4Address(packed))


def _map_answer(data: Buffer, result: NatPmpResult, epoch: int, protocol: int) -> MapAnswer:
    if len(data) >= _HEADER.size + _MAPPED.size:
        return MapAnswer(result, epoch, protocol, *_MAPPED.unpack_from(data, _HEADER.size))
    if result is NatPmpResult.SUCCESS:
        raise MalformedNatPmp("too short for a mapping")
    inside_port = None
    if len(data) >= _HEADER.size + 2:
        inside_port = int.from_bytes(data[_HEADER.size : _HEADER.size + 2], "big")
    return MapAnswer(result, epoch, protocol, inside_port, 0, 0)
