"""IP packets as the laboratory's routers and translators see them: read the addresses, rewrite them, answer.

Pure functions on a mutable buffer. `start` is where the IP header begins, so that a tunnel device's own
header may stand before it. A packet that a host left to its network card to finish has only the
pseudo-header's sum in its transport checksum (Linux: CHECKSUM_PARTIAL): `partial` tells so.

RFC 791, 8200 (IP), 768, 9293 (ports), 792, 4443 (ICMP), 1624 (checksums by difference), 5508 (ICMP and NATs).
"""

from __future__ import annotations

import ipaddress
import struct
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from crowline.base.addresses import Address
from crowline.base.errors import MalformedMessage

Readable = bytes | bytearray | memoryview
Writable = bytearray | memoryview

ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58

CHECKSUM_OFFSET = {UDP: 6, TCP: 16}
UDP_HEADER = 8  # bytes
_SHORTEST_TRANSPORT = {UDP: UDP_HEADER, TCP: 20, ICMP: 8, ICMPV6: 8}
_QUOTED_TRANSPORT = 8  # bytes of the offender's payload that every ICMP error quotes (RFC 792)

_ECHO = {ICMP: (8, 0), ICMPV6: (128, 129)}
_ERRORS = {ICMP: (3, 4, 5, 11, 12), ICMPV6: (1, 2, 3, 4)}

# Extension headers to walk over to the transport (RFC 8200 §4); the fragment header ends the walk.
_EXTENSIONS = (0, 43, 60)
_FRAGMENT = 44
_MOST_EXTENSIONS = 8  # no honest packet has more

_HOP_LIMIT_OF_ROUTERS = 64
_SYN, _RST_ACK = 0x02, 0x14  # RFC 9293 §3.1: flags of an opening segment, and of its refusal
_FLAGS = 0x3F  # without those of congestion notification, which an opening segment may carry too
_LONGEST_ERROR = {4: 576, 6: 1280}  # RFC 1812 §4.3.2.3, RFC 4443 §2.4(c)

U16 = struct.Struct("!H")


class MalformedPacket(MalformedMessage):
    """These bytes are not an IP packet."""


class Kind(Enum):
    """What of a packet a translator can hold on to."""

    PORTS = "a transport with ports"
    ECHO = "an ICMP echo, whose identifier stands for a port"
    ERROR = "an ICMP error, which quotes the packet that it is about"
    OTHER = "a fragment or an unknown transport: only the hosts are known"


class Trouble(Enum):
    """Why a router answers with an ICMP error: type and code for IPv4 and for IPv6."""

    TIME_EXCEEDED = (11, 0, 3, 0)
    NO_ROUTE = (3, 0, 1, 0)
    PROHIBITED = (3, 13, 1, 1)
    UNREACHABLE_HOST = (3, 1, 1, 3)


class Header(NamedTuple):
    """Where things are in a packet, and between whom it goes.

    `start` and `transport` are offsets into the buffer. Of an echo both ports are the identifier on the
    asker's side and 0 on the other; of `Kind.ERROR` and `Kind.OTHER` they are 0.
    """

    version: int
    protocol: int
    kind: Kind
    start: int
    transport: int
    source: Address
    destination: Address
    hop_limit: int


class _Network(NamedTuple):
    version: int
    protocol: int
    start: int
    transport: int
    hosts: tuple[str, str]
    hop_limit: int


def parse(buffer: Readable, start: int = 0) -> Header:
    """Read the IP and transport headers at `start`. Raises `MalformedPacket`."""
    return _parse(buffer, start, quoted=False)


def parse_quoted(buffer: Readable, error: Header) -> Header:
    """Read the packet that an ICMP error quotes. Raises `MalformedPacket`."""
    return _parse(buffer, error.transport + 8, quoted=True)


def decrement_hop_limit(buffer: Writable, header: Header, hops: int = 1) -> None:
    """Count so many hops; whether they are left to count is the caller's question."""
    if header.version == 6:
        buffer[header.start + 7] -= hops
        return
    buffer[header.start + 8] -= hops
    # The word with the hop limit in its upper half is less by 0x100 a hop, so its sum's complement is more.
    total = (buffer[header.start + 10] << 8 | buffer[header.start + 11]) + 0x100 * hops
    U16.pack_into(buffer, header.start + 10, (total & 0xFFFF) + (total >> 16))


def rewrite_source(buffer: Writable, header: Header, new: Address, *, partial: bool = False) -> None:
    """Make `new` the source (host and port or echo identifier) and mend the checksums."""
    _rewrite(buffer, header, new, is_source=True, partial=partial)


def rewrite_destination(buffer: Writable, header: Header, new: Address, *, partial: bool = False) -> None:
    """Make `new` the destination (host and port or echo identifier) and mend the checksums."""
    _rewrite(buffer, header, new, is_source=False, partial=partial)


def rewrite_quoted(buffer: Writable, error: Header, quoted: Header, new: Address, *, is_source: bool) -> None:
    """Rewrite one address of the quoted packet and mend the error's checksum (RFC 5508 §4.2).

    The quoted transport checksum stays as it is: nobody can verify it on a packet that is cut short.
    """
    _rewrite_host(buffer, quoted, new, is_source=is_source)
    if quoted.kind is Kind.PORTS:
        U16.pack_into(buffer, quoted.transport + (0 if is_source else 2), new.port)
    elif quoted.kind is Kind.ECHO and is_source == _asks(buffer, quoted):
        U16.pack_into(buffer, quoted.transport + 4, new.port)
    _fill_icmp_checksum(buffer, error)


def icmp_error(buffer: Readable, header: Header, router: str, trouble: Trouble) -> bytes | None:
    """The error that the router at `router` sends to the source; ``None`` where none may be sent.

    No error answers an error, a fragment or a packet to many (RFC 1122 §3.2.2, RFC 4443 §2.4(e)).
    """
    if header.kind in (Kind.ERROR, Kind.OTHER) or ipaddress.ip_address(header.destination.host).is_multicast:
        return None
    source = ipaddress.ip_address(router).packed
    destination = header.source.packed
    room = _LONGEST_ERROR[header.version] - (28 if header.version == 4 else 48)
    quote = bytes(buffer[header.start : header.start + room])
    type_v4, code_v4, type_v6, code_v6 = trouble.value
    if header.version == 4:
        message = bytearray(struct.pack("!BBHI", type_v4, code_v4, 0, 0) + quote)
        U16.pack_into(message, 2, checksum(message))
        return ipv4_header(source + destination, len(message), ICMP, service=0xC0) + bytes(message)
    message = bytearray(struct.pack("!BBHI", type_v6, code_v6, 0, 0) + quote)
    pseudo = source + destination + struct.pack("!II", len(message), ICMPV6)
    U16.pack_into(message, 2, checksum(pseudo + bytes(message)))
    return ipv6_header(source + destination, len(message), ICMPV6) + bytes(message)


def is_opening(buffer: Readable, header: Header) -> bool:
    """Whether this is the first segment of a TCP connection: a SYN alone."""
    if header.protocol != TCP or header.kind is not Kind.PORTS:
        return False
    return buffer[header.transport + 13] & _FLAGS == _SYN


def tcp_reset(buffer: Readable, opening: Header) -> bytes:
    """The refusal of an opening segment, as its destination would send it (RFC 9293 §3.10.7.1)."""
    (sequence,) = struct.unpack_from("!I", buffer, opening.transport + 4)
    source, destination = opening.destination, opening.source
    segment = bytearray(
        struct.pack(
            "!HHIIBBHHH",
            *(source.port, destination.port, 0, (sequence + 1) & 0xFFFFFFFF, 5 << 4, _RST_ACK, 0, 0, 0),
        )
    )
    hosts = source.packed + destination.packed
    if opening.version == 6:
        pseudo = hosts + struct.pack("!II", len(segment), TCP)
        head = ipv6_header(hosts, len(segment), TCP)
    else:
        pseudo = hosts + struct.pack("!HH", TCP, len(segment))
        head = ipv4_header(hosts, len(segment), TCP)
    U16.pack_into(segment, 16, checksum(pseudo + bytes(segment)))
    return head + bytes(segment)


def ipv4_header(
    hosts: bytes, payload: int, protocol: int, *, service: int = 0, hop_limit: int = _HOP_LIMIT_OF_ROUTERS
) -> bytes:
    """A header without options; `hosts` is source and destination, `payload` the length of what follows."""
    fields = (0x45, service, 20 + payload, 0, 0, hop_limit, protocol, 0)
    head = bytearray(struct.pack("!BBHHHBBH", *fields) + hosts)
    U16.pack_into(head, 10, checksum(head))
    return bytes(head)


def ipv6_header(
    hosts: bytes, payload: int, protocol: int, *, hop_limit: int = _HOP_LIMIT_OF_ROUTERS
) -> bytes:
    """A header without extensions, for the same arguments."""
    return struct.pack("!IHBB", 0x60000000, payload, protocol, hop_limit) + hosts


def datagram(source: Address, destination: Address, payload: Readable) -> bytes:
    """An IPv4 packet with these bytes in UDP."""
    length = 8 + len(payload)
    hosts = source.packed + destination.packed
    udp = bytearray(struct.pack("!HHHH", source.port, destination.port, length, 0) + bytes(payload))
    total = checksum(hosts + struct.pack("!HH", UDP, length) + bytes(udp))
    U16.pack_into(udp, CHECKSUM_OFFSET[UDP], total or 0xFFFF)
    return ipv4_header(hosts, length, UDP) + bytes(udp)


def checksum(data: Readable) -> int:
    """The Internet checksum of `data` (RFC 1071)."""
    return 0xFFFF ^ _ones_sum(data)


def update_checksum(buffer: Writable, field: int, before: bytes, after: bytes) -> None:
    """Mend the checksum at `field` for bytes that have changed (RFC 1624 equation 3)."""
    (old,) = U16.unpack_from(buffer, field)
    U16.pack_into(
        buffer, field, 0xFFFF ^ _fold((0xFFFF ^ old) + (0xFFFF ^ _ones_sum(before)) + _ones_sum(after))
    )


def update_partial_checksum(buffer: Writable, field: int, before: bytes, after: bytes) -> None:
    """The same for a field that holds the sum itself and not its complement."""
    (old,) = U16.unpack_from(buffer, field)
    U16.pack_into(buffer, field, _fold(old + (0xFFFF ^ _ones_sum(before)) + _ones_sum(after)))


def _parse(buffer: Readable, start: int, *, quoted: bool) -> Header:
    if len(buffer) <= start:
        raise MalformedPacket("an empty packet")
    version = buffer[start] >> 4
    if version == 4:
        return _parse_v4(buffer, start, quoted=quoted)
    if version == 6:
        return _parse_v6(buffer, start, quoted=quoted)
    raise MalformedPacket(f"IP version {version}")


def _parse_v4(buffer: Readable, start: int, *, quoted: bool) -> Header:
    length = (buffer[start] & 0x0F) * 4
    transport = start + length
    if length < 20 or len(buffer) < transport:
        raise MalformedPacket("an IPv4 header that is cut short")
    hosts = (_host(bytes(buffer[start + 12 : start + 16])), _host(bytes(buffer[start + 16 : start + 20])))
    fragmented = bool(U16.unpack_from(buffer, start + 6)[0] & 0x3FFF)  # more to come, or not the first
    network = _Network(4, buffer[start + 9], start, transport, hosts, buffer[start + 8])
    return _with_transport(buffer, network, fragmented=fragmented, quoted=quoted)


def _parse_v6(buffer: Readable, start: int, *, quoted: bool) -> Header:
    transport = start + 40
    if len(buffer) < transport:
        raise MalformedPacket("an IPv6 header that is cut short")
    hosts = (_host(bytes(buffer[start + 8 : start + 24])), _host(bytes(buffer[start + 24 : start + 40])))
    protocol = buffer[start + 6]
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS:
            break
        if len(buffer) < transport + 8:
            raise MalformedPacket("an IPv6 extension header that is cut short")
        protocol, size = buffer[transport], buffer[transport + 1]
        transport += 8 + size * 8
    if len(buffer) < transport:
        raise MalformedPacket("an IPv6 extension header that is cut short")
    network = _Network(6, protocol, start, transport, hosts, buffer[start + 7])
    return _with_transport(buffer, network, fragmented=protocol == _FRAGMENT, quoted=quoted)


def _with_transport(buffer: Readable, network: _Network, *, fragmented: bool, quoted: bool) -> Header:
    protocol, transport = network.protocol, network.transport
    kind, ports = Kind.OTHER, (0, 0)
    if not fragmented and protocol in _SHORTEST_TRANSPORT:
        needed = _QUOTED_TRANSPORT if quoted else _SHORTEST_TRANSPORT[protocol]
        if len(buffer) < transport + needed:
            raise MalformedPacket("a transport header that is cut short")
        kind, ports = _read_transport(buffer, protocol, transport)
    source, destination = Address(network.hosts[0], ports[0]), Address(network.hosts[1], ports[1])
    return Header(
        network.version, protocol, kind, network.start, transport, source, destination, network.hop_limit
    )


def _read_transport(buffer: Readable, protocol: int, transport: int) -> tuple[Kind, tuple[int, int]]:
    if protocol in (UDP, TCP):
        source, destination = struct.unpack_from("!HH", buffer, transport)
        return Kind.PORTS, (source, destination)
    icmp_type = buffer[transport]
    if icmp_type in _ECHO[protocol]:
        (identifier,) = U16.unpack_from(buffer, transport + 4)
        return Kind.ECHO, (identifier, 0) if icmp_type == _ECHO[protocol][0] else (0, identifier)
    if icmp_type in _ERRORS[protocol]:
        return Kind.ERROR, (0, 0)
    return Kind.OTHER, (0, 0)


def _rewrite(buffer: Writable, header: Header, new: Address, *, is_source: bool, partial: bool) -> None:
    before, after = _rewrite_host(buffer, header, new, is_source=is_source)
    transport = header.transport
    if header.kind is Kind.ECHO:
        if is_source == _asks(buffer, header):  # the identifier belongs to the asker alone
            old = bytes(buffer[transport + 4 : transport + 6])
            U16.pack_into(buffer, transport + 4, new.port)
            update_checksum(buffer, transport + 2, old, U16.pack(new.port))
        if header.version == 6:  # ICMPv6 covers a pseudo-header, ICMP does not
            update_checksum(buffer, transport + 2, before, after)
        return
    if header.kind is not Kind.PORTS:
        return
    offset = transport + (0 if is_source else 2)
    old_port = bytes(buffer[offset : offset + 2])
    U16.pack_into(buffer, offset, new.port)
    field = transport + CHECKSUM_OFFSET[header.protocol]
    if partial:
        update_partial_checksum(buffer, field, before, after)
        return
    is_udp = header.protocol == UDP
    if is_udp and U16.unpack_from(buffer, field)[0] == 0:
        return  # the sender computed none (RFC 768)
    update_checksum(buffer, field, before + old_port, after + U16.pack(new.port))
    if is_udp and U16.unpack_from(buffer, field)[0] == 0:
        U16.pack_into(buffer, field, 0xFFFF)


def _rewrite_host(buffer: Writable, header: Header, new: Address, *, is_source: bool) -> tuple[bytes, bytes]:
    size = 4 if header.version == 4 else 16
    first = header.start + (12 if header.version == 4 else 8)
    offset = first if is_source else first + size
    before, after = bytes(buffer[offset : offset + size]), _packed(new.host)
    buffer[offset : offset + size] = after
    if header.version == 4:
        update_checksum(buffer, header.start + 10, before, after)
    return before, after


def _asks(buffer: Readable, echo: Header) -> bool:
    return buffer[echo.transport] == _ECHO[echo.protocol][0]


def _fill_icmp_checksum(buffer: Writable, header: Header) -> None:
    U16.pack_into(buffer, header.transport + 2, 0)
    message = bytes(buffer[header.transport :])
    pseudo = b""
    if header.version == 6:
        hosts = bytes(buffer[header.start + 8 : header.start + 40])
        pseudo = hosts + struct.pack("!II", len(message), ICMPV6)
    U16.pack_into(buffer, header.transport + 2, checksum(pseudo + message))


def _ones_sum(data: Readable) -> int:
    """The sum of all 16-bit words with its carries folded in: the number that the bytes are, modulo 2^16 - 1,
    where only nothing but zeros gives zero."""
    number = int.from_bytes(data, "big") << (len(data) % 2 * 8)
    return number % 0xFFFF or (0xFFFF if number else 0)


def _fold(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@lru_cache(maxsize=4096)
def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed


@lru_cache(maxsize=4096)  # the lab has few hosts, and every packet names two of them
def _host(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))
