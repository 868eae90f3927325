"""Packets between the families, byte for byte: addresses, checksums, device headers."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.addresses import Address
from crowline.lab import nat64
from crowline.lab.packet import ICMP, ICMPV6, TCP, UDP, Kind, checksum, ipv4_header, ipv6_header, parse
from crowline.lab.tun import HEADER_SIZE

INSIDE, SERVER = Address("2001:db8:1::10", 5000), Address("198.51.100.1", 3478)
SERVER_V6 = Address("64:ff9b::c633:6401", 3478)
OUTSIDE = Address("203.0.113.1", 40001)

DEVICE = struct.Struct("=BBHHHH")


def pseudo(source: Address, destination: Address, length: int, protocol: int) -> bytes:
    layout = "!II" if source.is_ipv6 else "!HH"
    parts = (length, protocol) if source.is_ipv6 else (protocol, length)
    return source.packed + destination.packed + struct.pack(layout, *parts)


def packet(
    source: Address, destination: Address, protocol: int, body: bytes, device: bytes = b""
) -> bytearray:
    head = ipv6_header if source.is_ipv6 else ipv4_header
    ip = head(source.packed + destination.packed, len(body), protocol, hop_limit=40)
    return bytearray(device or bytes(HEADER_SIZE)) + ip + body


def transport(
    source: Address, destination: Address, protocol: int, payload: bytes, *, summed: bool = True
) -> bytes:
    if protocol == UDP:
        body = bytearray(struct.pack("!HHHH", source.port, destination.port, 8 + len(payload), 0) + payload)
        field = 6
    else:
        fields = (source.port, destination.port, 1, 2, 0x50, 0x10, 1000, 0, 0)
        body = bytearray(struct.pack("!HHIIBBHHH", *fields) + payload)
        field = 16
    if summed:
        total = checksum(pseudo(source, destination, len(body), protocol) + bytes(body))
        struct.pack_into("!H", body, field, total or 0xFFFF if protocol == UDP else total)
    return bytes(body)


def assert_sound(data: bytearray, protocol: int, payload: bytes) -> None:
    """Every checksum is right, and the payload is what it was."""
    header = parse(data, HEADER_SIZE)
    body = bytes(data[header.transport :])
    if header.version == 4:
        assert checksum(data[HEADER_SIZE : header.transport]) == 0
    assert header.protocol == protocol
    assert checksum(pseudo(header.source, header.destination, len(body), protocol) + body) == 0
    assert body.endswith(payload)
    assert header.hop_limit == 40


@pytest.mark.parametrize("protocol", [UDP, TCP])
@given(payload=st.binary(max_size=80), port=st.integers(1, 65535))
def test_transports_cross_in_both_directions(protocol: int, payload: bytes, port: int) -> None:
    """Out with new ends, back with the old ones, right checksums on every side."""
    out = packet(INSIDE, SERVER_V6, protocol, transport(INSIDE, SERVER_V6, protocol, payload))
    outside = Address(OUTSIDE.host, port)
    nat64.translate(out, parse(out, HEADER_SIZE), outside, SERVER)
    header = parse(out, HEADER_SIZE)
    assert (header.version, header.source, header.destination) == (4, outside, SERVER)
    assert_sound(out, protocol, payload)
    back = packet(SERVER, outside, protocol, transport(SERVER, outside, protocol, payload))
    nat64.translate(back, parse(back, HEADER_SIZE), SERVER_V6, INSIDE)
    header = parse(back, HEADER_SIZE)
    assert (header.version, header.source, header.destination) == (6, SERVER_V6, INSIDE)
    assert_sound(back, protocol, payload)


def test_a_datagram_without_checksum_gets_one() -> None:
    """IPv4 may leave it out, IPv6 may not (RFC 7915 §4.5)."""
    back = packet(SERVER, OUTSIDE, UDP, transport(SERVER, OUTSIDE, UDP, b"data", summed=False))
    nat64.translate(back, parse(back, HEADER_SIZE), SERVER_V6, INSIDE)
    assert_sound(back, UDP, b"data")


@pytest.mark.parametrize(
    ("kinds", "start"), [((1, 4), 20), ((4, 1), 40), ((5, 5), 20)], ids=["to 6", "to 4", "UDP"]
)
def test_runs_keep_their_shape(kinds: tuple[int, int], start: int) -> None:
    """The device's header follows the length of the IP header, and names the other family's kind of run."""
    to_v6 = start == 20
    source, destination = (SERVER, OUTSIDE) if to_v6 else (INSIDE, SERVER_V6)
    ends = (SERVER_V6, INSIDE) if to_v6 else (OUTSIDE, SERVER)
    protocol = UDP if kinds[0] == 5 else TCP
    device = DEVICE.pack(1, kinds[0] | 0x80, start + 20, 1200, start, 16)
    data = packet(source, destination, protocol, transport(source, destination, protocol, b"x" * 99), device)
    nat64.translate(data, parse(data, HEADER_SIZE), *ends)
    other = 60 - start
    assert DEVICE.unpack_from(data) == (1, kinds[1] | 0x80, other + 20, 1200, other, 16)


def test_a_partial_sum_stays_one() -> None:
    """What the receiver's card is to finish holds the pseudo-header's sum, of the new addresses."""
    body = bytearray(transport(INSIDE, SERVER_V6, UDP, b"data", summed=False))
    partial = 0xFFFF ^ checksum(pseudo(INSIDE, SERVER_V6, len(body), UDP))
    struct.pack_into("!H", body, 6, partial)
    data = packet(INSIDE, SERVER_V6, UDP, bytes(body), DEVICE.pack(1, 0, 0, 0, 40, 6))
    nat64.translate(data, parse(data, HEADER_SIZE), OUTSIDE, SERVER)
    (found,) = struct.unpack_from("!H", data, parse(data, HEADER_SIZE).transport + 6)
    assert found % 0xFFFF == (0xFFFF ^ checksum(pseudo(OUTSIDE, SERVER, len(body), UDP))) % 0xFFFF


def test_echoes_cross_with_their_identifier() -> None:
    """A request becomes one of the other protocol, its reply comes back as a reply."""
    body = bytearray(struct.pack("!BBHHH", 128, 0, 0, 77, 1) + b"ping")
    out = packet(INSIDE, SERVER_V6, ICMPV6, bytes(body))
    nat64.translate(out, parse(out, HEADER_SIZE), Address(OUTSIDE.host, 99), Address(SERVER.host, 0))
    header = parse(out, HEADER_SIZE)
    assert (header.protocol, header.kind, header.source.port) == (ICMP, Kind.ECHO, 99)
    assert out[header.transport] == 8 and checksum(out[header.transport :]) == 0
    reply = packet(SERVER, OUTSIDE, ICMP, struct.pack("!BBHHH", 0, 0, 0, 99, 1) + b"ping")
    nat64.translate(reply, parse(reply, HEADER_SIZE), Address(SERVER_V6.host, 0), Address(INSIDE.host, 77))
    header = parse(reply, HEADER_SIZE)
    message = bytes(reply[header.transport :])
    assert struct.unpack_from("!BBxxHH", message) == (129, 0, 77, 1)
    sources = Address(SERVER_V6.host, 0), Address(INSIDE.host, 0)
    assert checksum(pseudo(*sources, len(message), ICMPV6) + message) == 0


@given(st.integers(0, 2**32 - 1))
def test_ipv4_hosts_are_written_in_ipv6_and_back(number: int) -> None:
    """64:ff9b::/96 holds every IPv4 address, and nothing else stands for one (RFC 6052)."""
    host = str(ipaddress.IPv4Address(number))
    assert nat64.embedded(nat64.synthesized(host)) == host
    assert ipaddress.ip_address(nat64.synthesized(host)) in ipaddress.ip_network("64:ff9b::/96")


def test_other_hosts_stand_for_themselves() -> None:
    """Also those that look alike."""
    for host in ("2001:db8::1", "64:ff9b:1::c633:6401", "64:ff9c::1", "::1", "198.51.100.1"):
        assert nat64.embedded(host) is None
