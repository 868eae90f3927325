"""PCP (RFC 6887), the client's side: requests are built, answers are parsed. IPv4 stands in IPv6's form."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

from crowline.base.addresses import Address
from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer

VERSION = 2
RESPONSE = 128  # set in the operation of every answer
NONCE_SIZE = 12  # bytes, RFC 6887 §11.1
LONGEST = 1100  # bytes, RFC 6887 §7
MAX_OPTIONS = 8  # in one answer; there are three options, and each stands there at most once

_REQUEST = struct.Struct("!BBHI16s")  # version, operation, 0, lifetime, client
_RESPONSE = struct.Struct("!BBBBII12x")  # version, operation, 0, result, lifetime, epoch
_MAP = struct.Struct("!12sB3xHH16s")  # nonce, protocol, inside port, outside port, outside address
_PEER = struct.Struct("!H2x16s")  # remote port, remote address
_OPTION = struct.Struct("!BxH")  # code, length
_FIRST_OPTIONAL = 128  # options from this code on may be ignored (RFC 6887 §7.3)


class MalformedPcp(MalformedMessage):
    """The datagram is no answer of PCP."""


class Operation(IntEnum):
    """RFC 6887 §19.2."""

    ANNOUNCE = 0
    MAP = 1
    PEER = 2


class Option(IntEnum):
    """RFC 6887 §19.4."""

    THIRD_PARTY = 1
    PREFER_FAILURE = 2
    FILTER = 3


_OPTION_SIZES: dict[int, int] = {Option.THIRD_PARTY: 16, Option.PREFER_FAILURE: 0, Option.FILTER: 20}  # bytes
_BODY_SIZES: dict[int, int] = {Operation.MAP: _MAP.size, Operation.PEER: _MAP.size + _PEER.size}


class PcpResult(IntEnum):
    """RFC 6887 §7.4."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13
    UNKNOWN = 255

    @classmethod
    def _missing_(cls, value: object) -> PcpResult:
        return cls.UNKNOWN

    @property
    def words(self) -> str:
        """For a person."""
        return _WORDS[self]


_WORDS = {
    PcpResult.SUCCESS: "done",
    PcpResult.UNSUPP_VERSION: "the gateway does not speak this version",
    PcpResult.NOT_AUTHORIZED: "the gateway refuses: switched off there, or the port is somebody else's",
    PcpResult.MALFORMED_REQUEST: "the gateway cannot read the request",
    PcpResult.UNSUPP_OPCODE: "the gateway does not know this request",
    PcpResult.UNSUPP_OPTION: "the gateway does not know an option that was asked for",
    PcpResult.MALFORMED_OPTION: "the gateway cannot read an option of the request",
    PcpResult.NETWORK_FAILURE: "the gateway itself has no connection to the outside",
    PcpResult.NO_RESOURCES: "the gateway can open no more ports now",
    PcpResult.UNSUPP_PROTOCOL: "the gateway does not open ports of this protocol",
    PcpResult.USER_EX_QUOTA: "the gateway opens no more ports for this host",
    PcpResult.CANNOT_PROVIDE_EXTERNAL: "that very outside port is not to be had",
    PcpResult.ADDRESS_MISMATCH: "another translator stands between this host and the gateway",
    PcpResult.EXCESSIVE_REMOTE_PEERS: "the gateway cannot filter for so many hosts",
    PcpResult.UNKNOWN: "the gateway gave a result that no specification names",
}


@dataclass(frozen=True, slots=True)
class Mapped:
    """What an answer to MAP or PEER says. `remote` is the peer's address, of PEER alone."""

    nonce: bytes
    protocol: int
    inside_port: int
    outside: Address
    remote: Address | None = None


@dataclass(frozen=True, slots=True)
class PcpAnswer:
    """`lifetime` in seconds: of the mapping, or of a failure the time in which to ask again is of no use.

    `mapped` is ``None`` for ANNOUNCE, and for a failure that does not repeat its request. `third_party` is
    the host for which the port was asked, if the answer names one.
    """

    operation: int
    result: PcpResult
    lifetime: int
    epoch: int
    mapped: Mapped | None
    third_party: str | None


def announce_request(client: str) -> bytes:
    """Are you there, and since when? (RFC 6887 §14.1)"""
    return _header(Operation.ANNOUNCE, 0, client)


def map_request(
    client: str,
    nonce: bytes,
    protocol: int,
    inside_port: int,
    suggested: Address,
    lifetime: int,
    *,
    prefer_failure: bool = False,
    third_party: str | None = None,
) -> bytes:
    """Open a port for `lifetime` seconds, or close it with lifetime 0 (RFC 6887 §11.1, §15.1).

    `suggested` has port 0 or an unspecified host for "any". `prefer_failure`: rather none than another.
    `third_party`: the port is for that host, not for `client` (§13.1). Raises `UsageError` for inside port 0
    and protocol 0, which mean all of them, and for a nonce of the wrong size.
    """
    body = _mapping(nonce, protocol, inside_port, suggested)
    options = _third_party(third_party)
    if prefer_failure and lifetime:
        options += _OPTION.pack(Option.PREFER_FAILURE, 0)
    return _header(Operation.MAP, lifetime, client) + body + options


def peer_request(
    client: str,
    nonce: bytes,
    protocol: int,
    inside_port: int,
    suggested: Address,
    remote: Address,
    lifetime: int,
    *,
    third_party: str | None = None,
) -> bytes:
    """Keep the mapping of one flow to `remote` for `lifetime` seconds (RFC 6887 §12.1).

    Raises as `map_request` does.
    """
    body = _mapping(nonce, protocol, inside_port, suggested)
    body += _PEER.pack(remote.port, _packed(remote.host))
    return _header(Operation.PEER, lifetime, client) + body + _third_party(third_party)


def any_outside(client: str) -> Address:
    """The suggestion that leaves it to the gateway, of the client's family."""
    return Address("::" if ":" in client else "0.0.0.0", 0)


def parse(data: Buffer) -> PcpAnswer:
    """An answer of version 2. Raises `MalformedPcp`."""
    if not _RESPONSE.size <= len(data) <= LONGEST or len(data) % 4:
        raise MalformedPcp("no length that an answer has")
    version, operation, _, code, lifetime, epoch = _RESPONSE.unpack_from(data)
    if version != VERSION or not operation & RESPONSE:
        raise MalformedPcp("no answer of this version")
    result = PcpResult(code)
    operation ^= RESPONSE
    mapped, end = _body(data, operation)
    if mapped is None and operation in (Operation.MAP, Operation.PEER) and result is PcpResult.SUCCESS:
        raise MalformedPcp("a success that does not say what it is about")
    third_party = _options(data, end) if result is PcpResult.SUCCESS else None
    return PcpAnswer(operation, result, lifetime, epoch, mapped, third_party)


def _header(operation: Operation, lifetime: int, client: str) -> bytes:
    return _REQUEST.pack(VERSION, operation, 0, lifetime, _packed(client))


def _mapping(nonce: bytes, protocol: int, inside_port: int, suggested: Address) -> bytes:
    if len(nonce) != NONCE_SIZE:
        raise UsageError(f"a nonce has {NONCE_SIZE} bytes")
    if not 1 <= protocol <= 0xFF or not 1 <= inside_port <= 0xFFFF:
        raise UsageError(f"port {inside_port} of protocol {protocol} cannot be opened")
    return _MAP.pack(nonce, protocol, inside_port, suggested.port, _packed(suggested.host))


def _third_party(host: str | None) -> bytes:
    if host is None:
        return b""
    return _OPTION.pack(Option.THIRD_PARTY, 16) + _packed(host)


def _body(data: Buffer, operation: int) -> tuple[Mapped | None, int]:
    """What follows the header, and where the options begin."""
    at = _RESPONSE.size
    size = _BODY_SIZES.get(operation)
    if size is None:
        return None, at
    if len(data) < at + size:
        return None, len(data)
    nonce, protocol, inside_port, outside_port, outside = _MAP.unpack_from(data, at)
    remote = None
    if operation == Operation.PEER:
        port, host = _PEER.unpack_from(data, at + _MAP.size)
        remote = Address(_host(host), port)
    return Mapped(nonce, protocol, inside_port, Address(_host(outside), outside_port), remote), at + size


def _options(data: Buffer, at: int) -> str | None:
    """The host of THIRD_PARTY, if it is there; every option must fit (RFC 6887 §7.3)."""
    third_party: str | None = None
    seen: set[int] = set()
    while at < len(data):
        code, length = _OPTION.unpack_from(data, at)
        value = bytes(data[at + _OPTION.size : at + _OPTION.size + length])
        at += _OPTION.size + length + -length % 4
        if at > len(data) or len(seen) == MAX_OPTIONS or (code in seen and code != Option.FILTER):
            raise MalformedPcp("options that do not fit, or too many")
        seen.add(code)
        if code in _OPTION_SIZES:
            if length != _OPTION_SIZES[code]:
                raise MalformedPcp("an option of the wrong length")
        elif 0 < code < _FIRST_OPTIONAL:
            raise MalformedPcp("an option that was not asked for")
        if code == Option.THIRD_PARTY:
            third_party = _host(value)
    return third_party


def _host(packed: bytes) -> str:
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _packed(host: str) -> bytes:
    address = ipaddress.ip_address(host)
    return address.packed if address.version == 6 else b"\x00" * 10 + b"\xff\xff" + address.packed
