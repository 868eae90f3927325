"""The gateway's side of NAT-PMP (RFC 6886) and PCP (RFC 6887): requests are parsed, answers are built."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

from crowline.base.errors import MalformedMessage
from crowline.base.machine import Buffer
from crowline.lab.behaviour import TCP, UDP

NAT_PMP_VERSION = 0
PCP_VERSION = 2
RESPONSE = 128  # set in the operation of every answer, in both protocols

_NAT_PMP_MAP = struct.Struct("!BBHHHI")  # version, operation, 0, inside port, suggested port, lifetime
_NAT_PMP_HEADER = struct.Struct("!BBHI")  # version, operation, result, epoch
_NAT_PMP_MAPPED = struct.Struct("!HHI")  # inside port, outside port, lifetime
_PCP_REQUEST = struct.Struct("!BBHI16s")  # version, operation, 0, lifetime, client
_PCP_RESPONSE = struct.Struct("!BBBBII12x")  # version, operation, 0, result, lifetime, epoch
_PCP_MAP = struct.Struct("!12sB3xHH16s")  # nonce, protocol, inside port, outside port, outside address
_PCP_OPTION = struct.Struct("!BxH")  # code, length
_LONGEST_PCP = 1100  # bytes, RFC 6887 §7

_NAT_PMP_PROTOCOLS = {1: UDP, 2: TCP}


class NatPmpResult(IntEnum):
    """RFC 6886 §3.5."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


class PcpOperation(IntEnum):
    """RFC 6887 §19.2."""

    ANNOUNCE = 0
    MAP = 1


class PcpOption(IntEnum):
    """RFC 6887 §19.4. Codes from 128 on may be ignored."""

    PREFER_FAILURE = 2
    FIRST_OPTIONAL = 128


class PcpResult(IntEnum):
    """RFC 6887 §7.4."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12


class MalformedPortMapping(MalformedMessage):
    """The datagram is no request, or one that says `result` to."""

    def __init__(self, message: str, result: PcpResult | None = None) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """NAT-PMP: which outside address is it? (RFC 6886 §3.2)"""


@dataclass(frozen=True, slots=True)
class MapRequest:
    """NAT-PMP: open a port (RFC 6886 §3.3), or close it with lifetime 0, port 0 meaning all (§3.4)."""

    protocol: int
    inside_port: int
    suggested_port: int
    lifetime: int


@dataclass(frozen=True, slots=True)
class UnknownRequest:
    """NAT-PMP: an operation that nobody knows."""


@dataclass(frozen=True, slots=True)
class PcpHeader:
    """What every PCP request begins with; `client` is the address that the sender believes to have."""

    operation: int
    lifetime: int
    client: str


@dataclass(frozen=True, slots=True)
class PcpMap:
    """PCP: the body of a MAP request (RFC 6887 §11.1) with its options, by code."""

    nonce: bytes
    protocol: int
    inside_port: int
    suggested_port: int
    suggested_host: str
    options: frozenset[int]


def version_of(data: Buffer) -> int:
    """The protocol version of a request. Raises for what is too short, or an answer itself."""
    if len(data) < 2:
        raise MalformedPortMapping("too short for a version and an operation")
    if data[1] & RESPONSE:
        raise MalformedPortMapping("an answer, not a request")
    return data[0]


def parse_nat_pmp(data: Buffer) -> AddressRequest | MapRequest | UnknownRequest:
    """A request of version 0."""
    operation = data[1]
    if operation == 0:
        return AddressRequest()
    if operation not in _NAT_PMP_PROTOCOLS:
        return UnknownRequest()
    if len(data) < _NAT_PMP_MAP.size:
        raise MalformedPortMapping("too short for a mapping")
    _, _, _, inside, suggested, lifetime = _NAT_PMP_MAP.unpack_from(data)
    return MapRequest(_NAT_PMP_PROTOCOLS[operation], inside, suggested, lifetime)


def nat_pmp_failure(data: Buffer, result: NatPmpResult, epoch: int) -> bytes:
    """The answer that says no, to that request."""
    body = bytes(data[4 : _NAT_PMP_MAP.size]) if result is NatPmpResult.OUT_OF_RESOURCES else b""
    return _NAT_PMP_HEADER.pack(NAT_PMP_VERSION, data[1] | RESPONSE, result, epoch) + body


def nat_pmp_address(host: str, epoch: int) -> bytes:
    """The outside address."""
    header = _NAT_PMP_HEADER.pack(NAT_PMP_VERSION, RESPONSE, NatPmpResult.SUCCESS, epoch)
    return header + ipaddress.IPv4Address(host).packed


def nat_pmp_mapped(request: MapRequest, outside_port: int, lifetime: int, epoch: int) -> bytes:
    """The port that was opened, or with 0 and 0 that it is closed."""
    operation = next(code for code, protocol in _NAT_PMP_PROTOCOLS.items() if protocol == request.protocol)
    header = _NAT_PMP_HEADER.pack(NAT_PMP_VERSION, operation | RESPONSE, NatPmpResult.SUCCESS, epoch)
    return header + _NAT_PMP_MAPPED.pack(request.inside_port, outside_port, lifetime)


def parse_pcp(data: Buffer) -> PcpHeader:
    """The header of a request of version 2."""
    if not _PCP_REQUEST.size <= len(data) <= _LONGEST_PCP or len(data) % 4:
        raise MalformedPortMapping("no length that a request has", PcpResult.MALFORMED_REQUEST)
    _, operation, _, lifetime, client = _PCP_REQUEST.unpack_from(data)
    return PcpHeader(operation, lifetime, _host(client))


def parse_pcp_map(data: Buffer) -> PcpMap:
    """The rest of a MAP request."""
    end = _PCP_REQUEST.size + _PCP_MAP.size
    if len(data) < end:
        raise MalformedPortMapping("too short for a mapping", PcpResult.MALFORMED_REQUEST)
    nonce, protocol, inside, suggested, host = _PCP_MAP.unpack_from(data, _PCP_REQUEST.size)
    if protocol == 0 and inside != 0:
        raise MalformedPortMapping("a port of no protocol", PcpResult.MALFORMED_REQUEST)
    return PcpMap(nonce, protocol, inside, suggested, _host(host), _options(data, end))


def pcp_response(
    data: Buffer, result: PcpResult, lifetime: int, epoch: int, *, body: bytes | None = None
) -> bytes:
    """The answer to a request. Without `body` what followed the request's header follows this one too, so
    that a failure can be told from others (RFC 6887 §8.3)."""
    header = _PCP_RESPONSE.pack(PCP_VERSION, data[1] | RESPONSE, 0, result, lifetime, epoch)
    if body is None:
        body = bytes(data[_PCP_REQUEST.size : _LONGEST_PCP])
        body += bytes(-len(body) % 4)
    return header + body


def pcp_mapped(request: PcpMap, host: str, port: int) -> bytes:
    """The body of a MAP answer, with the options that were heeded."""
    mapped = _PCP_MAP.pack(request.nonce, request.protocol, request.inside_port, port, _packed(host))
    if PcpOption.PREFER_FAILURE in request.options:
        mapped += _PCP_OPTION.pack(PcpOption.PREFER_FAILURE, 0)
    return mapped


def _options(data: Buffer, offset: int) -> frozenset[int]:
    """The codes of the options. What they say is nothing to this gateway: the only one it heeds is empty."""
    codes = set()
    while offset < len(data):
        code, length = _PCP_OPTION.unpack_from(data, offset)
        offset += _PCP_OPTION.size + length + -length % 4
        if offset > len(data) or (code == PcpOption.PREFER_FAILURE and length):
            raise MalformedPortMapping("an option of the wrong length", PcpResult.MALFORMED_OPTION)
        if code < PcpOption.FIRST_OPTIONAL and code != PcpOption.PREFER_FAILURE:
            raise MalformedPortMapping("an option that is not known here", PcpResult.UNSUPP_OPTION)
        codes.add(code)
    return frozenset(codes)


def _host(packed: bytes) -> str:
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _packed(host: str) -> bytes:
    return ipaddress.IPv6Address(f"::ffff:{host}").packed
