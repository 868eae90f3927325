"""Packets as routers see them, checked against checksums computed anew from the whole packet."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.addresses import Address
from crowline.lab.packet import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Header,
    Kind,
    MalformedPacket,
    Trouble,
    checksum,
    decrement_hop_limit,
    icmp_error,
    parse,
    parse_quoted,
    rewrite_destination,
    rewrite_quoted,
    rewrite_source,
)

A4, B4, N4 = Address("192.0.2.1", 5000), Address("198.51.100.2", 3478), Address("203.0.113.9", 61234)
A6, B6, N6 = Address("2001:db8::1", 5000), Address("2001:db8::2", 3478), Address("2001:db8:9::9", 61234)
PAIRS = pytest.mark.parametrize(("a", "b", "n"), [(A4, B4, N4), (A6, B6, N6)], ids=["v4", "v6"])
TRANSPORTS = pytest.mark.parametrize("protocol", [UDP, TCP], ids=["udp", "tcp"])


def ip(source: Address, destination: Address, protocol: int, payload: bytes, hops: int = 64) -> bytearray:
    """An IP packet; its transport checksum is whatever `payload` says."""
    if source.is_ipv6:
        head = struct.pack("!IHBB", 0x60000000, len(payload), protocol, hops)
        return bytearray(head + source.packed + destination.packed + payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0x4000, hops, protocol, 0)
    packet = bytearray(head + source.packed + destination.packed)
    struct.pack_into("!H", packet, 10, checksum(packet))
    return packet + payload


def transport(a: Address, b: Address, protocol: int, data: bytes = b"payload") -> bytearray:
    """A whole UDP or TCP packet with right checksums."""
    if protocol == UDP:
        payload = bytearray(struct.pack("!HHHH", a.port, b.port, 8 + len(data), 0) + data)
    else:
        payload = bytearray(struct.pack("!HHIIBBHHH", a.port, b.port, 1, 2, 0x50, 0x18, 999, 0, 0) + data)
    packet = ip(a, b, protocol, bytes(payload))
    header = parse(packet)
    field = header.transport + (6 if protocol == UDP else 16)
    struct.pack_into("!H", packet, field, transport_sum(packet, header) or 0xFFFF)
    return packet


def echo(a: Address, b: Address, identifier: int, *, reply: bool = False) -> bytearray:
    v6 = a.is_ipv6
    message = bytearray(
        struct.pack("!BBHHH", (129 if v6 else 0) if reply else (128 if v6 else 8), 0, 0, identifier, 1)
    )
    packet = ip(a, b, ICMPV6 if v6 else ICMP, bytes(message + b"ping"))
    header = parse(packet)
    struct.pack_into("!H", packet, header.transport + 2, transport_sum(packet, header))
    return packet


def pseudo_header(packet: bytes | bytearray, header: Header) -> bytes:
    length = len(packet) - header.transport
    hosts = header.source.packed + header.destination.packed
    if header.version == 6:
        return hosts + struct.pack("!II", length, header.protocol)
    return b"" if header.protocol == ICMP else hosts + struct.pack("!HH", header.protocol, length)


def transport_sum(packet: bytes | bytearray, header: Header) -> int:
    return checksum(pseudo_header(packet, header) + bytes(packet[header.transport :]))


def assert_sound(packet: bytes | bytearray) -> Header:
    """Every checksum of the packet is right."""
    header = parse(packet)
    if header.version == 4:
        assert checksum(packet[:20]) == 0, "the IP header's checksum is wrong"
    assert transport_sum(packet, header) == 0, "the transport checksum is wrong"
    return header


@PAIRS
@TRANSPORTS
def test_parse_reads_both_ends(a: Address, b: Address, n: Address, protocol: int) -> None:
    """Source, destination, protocol and hop limit come out as they were put in."""
    header = parse(transport(a, b, protocol))
    assert (header.source, header.destination, header.protocol, header.hop_limit) == (a, b, protocol, 64)
    assert header.kind is Kind.PORTS


@PAIRS
@TRANSPORTS
def test_rewriting_keeps_checksums_right(a: Address, b: Address, n: Address, protocol: int) -> None:
    """After a new source and a new destination every checksum is still right."""
    packet = transport(a, b, protocol)
    rewrite_source(packet, parse(packet), n)
    assert assert_sound(packet).source == n
    rewrite_destination(packet, parse(packet), a)
    assert assert_sound(packet).destination == a


@given(
    st.binary(min_size=4, max_size=4),
    st.integers(0, 65535),
    st.binary(max_size=60),
    st.sampled_from([UDP, TCP]),
)
def test_any_rewriting_keeps_checksums_right(host: bytes, port: int, data: bytes, protocol: int) -> None:
    """Checksums by difference agree with checksums of the whole, also at the two zeros."""
    packet = transport(A4, B4, protocol, data)
    new = Address.parse(str(ipaddress.ip_address(host)), port)
    rewrite_source(packet, parse(packet), new)
    header = assert_sound(packet)
    assert header.source == new
    assert protocol != UDP or packet[header.transport + 6 : header.transport + 8] != b"\0\0"


@PAIRS
@TRANSPORTS
def test_rewriting_a_partial_checksum(a: Address, b: Address, n: Address, protocol: int) -> None:
    """A field that holds the pseudo-header's sum holds the new pseudo-header's sum afterwards."""
    packet = transport(a, b, protocol)
    header = parse(packet)
    field = header.transport + (6 if protocol == UDP else 16)
    struct.pack_into("!H", packet, field, 0xFFFF ^ checksum(pseudo_header(packet, header)))
    rewrite_source(packet, header, n, partial=True)
    changed = parse(packet)
    assert changed.source == n
    assert struct.unpack_from("!H", packet, field)[0] == 0xFFFF ^ checksum(pseudo_header(packet, changed))


def test_a_udp_packet_without_checksum_stays_without() -> None:
    """Zero means that the sender computed none (RFC 768)."""
    packet = transport(A4, B4, UDP)
    packet[26:28] = b"\0\0"
    rewrite_source(packet, parse(packet), N4)
    assert packet[26:28] == b"\0\0"
    assert parse(packet).source == N4


@PAIRS
def test_an_echo_is_translated_by_its_identifier(a: Address, b: Address, n: Address) -> None:
    """The identifier stands for the asker's port, in the request and in the reply."""
    request = echo(a, b, 77)
    assert (parse(request).source.port, parse(request).destination.port) == (77, 0)
    rewrite_source(request, parse(request), n)
    assert assert_sound(request).source == n

    reply = echo(b, n, n.port, reply=True)
    rewrite_destination(reply, parse(reply), Address(a.host, 77))
    header = assert_sound(reply)
    assert header.destination == Address(a.host, 77)
    assert header.source == Address(b.host, 0)


@PAIRS
def test_hop_limit_counts_down(a: Address, b: Address, n: Address) -> None:
    """One hop less, and the header's checksum still right."""
    packet = transport(a, b, UDP)
    decrement_hop_limit(packet, parse(packet))
    assert assert_sound(packet).hop_limit == 63


@PAIRS
@pytest.mark.parametrize("trouble", list(Trouble))
def test_an_error_quotes_the_offender(a: Address, b: Address, n: Address, trouble: Trouble) -> None:
    """The error comes from the router, goes to the source and quotes the packet, as short as it must be."""
    packet = transport(a, b, UDP, b"x" * 1400)
    error = icmp_error(packet, parse(packet), n.host, trouble)
    assert error is not None
    header = assert_sound(error)
    assert (header.source.host, header.destination.host, header.kind) == (n.host, a.host, Kind.ERROR)
    assert (error[header.transport], error[header.transport + 1]) in (trouble.value[:2], trouble.value[2:])
    quoted = parse_quoted(error, header)
    assert (quoted.source, quoted.destination, quoted.protocol) == (a, b, UDP)
    assert len(error) <= (1280 if a.is_ipv6 else 576)


@PAIRS
@pytest.mark.parametrize("is_source", [True, False])
def test_a_quoted_packet_is_translated(a: Address, b: Address, n: Address, is_source: bool) -> None:
    """Address and port inside the quotation change, and the error's own checksum follows."""
    packet = transport(a, b, TCP)
    error = bytearray(icmp_error(packet, parse(packet), b.host, Trouble.TIME_EXCEEDED) or b"")
    rewrite_quoted(error, parse(error), parse_quoted(error, parse(error)), n, is_source=is_source)
    quoted = parse_quoted(error, assert_sound(error))
    assert (quoted.source, quoted.destination) == ((n, b) if is_source else (a, n))
    if quoted.version == 4:
        assert checksum(error[quoted.start : quoted.start + 20]) == 0


def test_a_quoted_echo_is_translated() -> None:
    """An error about a ping finds its way back by the identifier."""
    packet = echo(N4, B4, N4.port)
    error = bytearray(icmp_error(packet, parse(packet), B4.host, Trouble.TIME_EXCEEDED) or b"")
    inside = Address(A4.host, 77)
    rewrite_quoted(error, parse(error), parse_quoted(error, parse(error)), inside, is_source=True)
    assert parse_quoted(error, assert_sound(error)).source == inside


def test_no_error_answers_an_error() -> None:
    """Nor a fragment, nor a packet to many: otherwise errors would breed."""
    packet = transport(A4, B4, UDP)
    error = icmp_error(packet, parse(packet), N4.host, Trouble.TIME_EXCEEDED)
    assert error is not None
    assert icmp_error(error, parse(error), N4.host, Trouble.TIME_EXCEEDED) is None
    many = transport(A4, Address("224.0.0.251", 5353), UDP)
    assert icmp_error(many, parse(many), N4.host, Trouble.TIME_EXCEEDED) is None
    fragment = ip(A4, B4, UDP, b"in the middle")
    fragment[6:8] = b"\x00\x10"
    assert icmp_error(fragment, parse(fragment), N4.host, Trouble.TIME_EXCEEDED) is None


def test_a_fragment_has_no_ports() -> None:
    """What looks like ports in a later fragment is payload."""
    fragment = ip(A4, B4, UDP, b"in the middle")
    fragment[6:8] = b"\x00\x10"
    header = parse(fragment)
    assert (header.kind, header.source.port, header.destination.port) == (Kind.OTHER, 0, 0)
    v6 = ip(A6, B6, 44, b"\x11\0\0\x08\0\0\0\1" + b"in the middle")
    assert parse(v6).kind is Kind.OTHER


def test_extension_headers_are_walked_over() -> None:
    """Ports are found behind IPv6 destination options."""
    inner = struct.pack("!HHHH", 1, 2, 8, 0)
    header = parse(ip(A6, B6, 60, b"\x11\0\1\4\0\0\0\0" + inner))
    assert (header.protocol, header.source.port, header.destination.port) == (UDP, 1, 2)


def test_a_header_before_the_packet_is_left_alone() -> None:
    """`start` shifts everything, and what stands before is untouched."""
    packet = bytearray(b"0123456789") + transport(A4, B4, UDP)
    header = parse(packet, 10)
    rewrite_source(packet, header, N4)
    decrement_hop_limit(packet, header)
    assert packet[:10] == b"0123456789"
    assert assert_sound(packet[10:]).source == N4


@pytest.mark.parametrize("protocol", [UDP, TCP, ICMP])
def test_cut_short_packets_are_refused(protocol: int) -> None:
    """Every prefix that lacks a part of a header is malformed, and nothing else is raised."""
    packet = echo(A4, B4, 1) if protocol == ICMP else transport(A4, B4, protocol)
    whole = 20 + (20 if protocol == TCP else 8)
    for length in range(whole):
        with pytest.raises(MalformedPacket):
            parse(packet[:length])
    assert parse(packet[:whole]).protocol == protocol


@given(st.binary(max_size=120))
def test_arbitrary_bytes_parse_or_are_malformed(data: bytes) -> None:
    """No input makes the parser raise anything else, the quotation of an error included."""
    try:
        header = parse(data)
        if header.kind is Kind.ERROR:
            parse_quoted(data, header)
    except MalformedPacket:
        return
    assert header.transport <= len(data)
