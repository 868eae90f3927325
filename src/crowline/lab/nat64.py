"""Packets from IPv6 to IPv4 and back (RFC 7915), with IPv4 hosts written as 64:ff9b::/96 (RFC 6052).

TCP, UDP and echoes are translated. ICMP errors, fragments and everything else are not: hosts behind NAT64
hear no complaints from IPv4 here.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache

from crowline.base.addresses import Address
from crowline.lab.packet import (
    CHECKSUM_OFFSET,
    ICMP,
    ICMPV6,
    U16,
    UDP,
    Header,
    Kind,
    checksum,
    ipv4_header,
    ipv6_header,
    update_checksum,
    update_partial_checksum,
)
from crowline.lab.tun import HEADER_SIZE, NEEDS_CHECKSUM

PREFIX = ipaddress.IPv6Network("64:ff9b::/96")

_ECHO_TYPES = {128: 8, 129: 0, 8: 128, 0: 129}
_PROTOCOLS = {ICMPV6: ICMP, ICMP: ICMPV6}
_IP_HEADER = {4: 20, 6: 40}  # bytes, without options and extensions

# linux/virtio_net.h, the header that the device puts before each packet
_DEVICE_HEADER = struct.Struct("=BBHHHH")  # flags, kind of run, headers, segment, checksum's start and offset
_RUN_KINDS = {1: 4, 4: 1}  # a run of TCP segments over IPv4, over IPv6; those of UDP have one number for both
_RUN_FLAGS = 0x80


@lru_cache(maxsize=1024)
def embedded(host: str) -> str | None:
    """The IPv4 host that an IPv6 one stands for; ``None`` where it stands for itself."""
    if not host.startswith("64:"):  # most packets are not for it
        return None
    address = ipaddress.ip_address(host)
    return str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)) if address in PREFIX else None


@lru_cache(maxsize=1024)
def synthesized(host: str) -> str:
    """The IPv6 host that stands for an IPv4 one."""
    return str(PREFIX[int(ipaddress.IPv4Address(host))])


def is_translated(header: Header) -> bool:
    """Whether such a packet crosses between the families at all."""
    return header.kind in (Kind.PORTS, Kind.ECHO)


def translate(packet: bytearray, header: Header, source: Address, destination: Address) -> None:
    """Make `packet`, device header included, one of the other family with these ends, in place."""
    payload = packet[header.transport :]
    hosts = source.packed + destination.packed
    protocol = _PROTOCOLS.get(header.protocol, header.protocol)
    if header.kind is Kind.ECHO:
        _rewrite_echo(payload, header, source, destination, protocol, hosts)
    else:
        before = _ends(header.source, header.destination)
        _rewrite_ports(payload, header, before, (source, destination), bool(packet[0] & NEEDS_CHECKSUM))
    if source.is_ipv6:
        head = ipv6_header(hosts, len(payload), protocol, hop_limit=header.hop_limit)
    else:
        head = ipv4_header(hosts, len(payload), protocol, hop_limit=header.hop_limit)
    packet[:HEADER_SIZE] = _device_header(packet, header, len(head))
    packet[HEADER_SIZE:] = head + payload


def _rewrite_echo(
    payload: bytearray, header: Header, source: Address, destination: Address, protocol: int, hosts: bytes
) -> None:
    payload[0] = _ECHO_TYPES[payload[0]]
    U16.pack_into(payload, 4, source.port or destination.port)
    U16.pack_into(payload, 2, 0)
    pseudo = hosts + struct.pack("!II", len(payload), protocol) if protocol == ICMPV6 else b""
    U16.pack_into(payload, 2, checksum(pseudo + bytes(payload)))


def _rewrite_ports(
    payload: bytearray, header: Header, before: bytes, ends: tuple[Address, Address], partial: bool
) -> None:
    field = CHECKSUM_OFFSET[header.protocol]
    old_ports = bytes(payload[:4])
    struct.pack_into("!HH", payload, 0, ends[0].port, ends[1].port)
    after = _ends(*ends)
    if partial:
        update_partial_checksum(payload, field, before, after)
        return
    if header.protocol == UDP and U16.unpack_from(payload, field)[0] == 0:
        # IPv6 knows no datagram without checksum (RFC 7915 §4.5).
        total = checksum(after + struct.pack("!II", len(payload), UDP) + bytes(payload))
        U16.pack_into(payload, field, total or 0xFFFF)
        return
    update_checksum(payload, field, before + old_ports, after + bytes(payload[:4]))
    if header.protocol == UDP and U16.unpack_from(payload, field)[0] == 0:
        U16.pack_into(payload, field, 0xFFFF)


def _ends(source: Address, destination: Address) -> bytes:
    return source.packed + destination.packed


def _device_header(packet: bytearray, header: Header, ip_header: int) -> bytes:
    """The device's header for a packet whose IP header has another length now."""
    flags, run, headers, segment, start, offset = _DEVICE_HEADER.unpack_from(packet)
    change = ip_header - (header.transport - header.start)
    if flags & NEEDS_CHECKSUM:
        start += change
    if run:
        run = _RUN_KINDS.get(run & ~_RUN_FLAGS, run & ~_RUN_FLAGS) | run & _RUN_FLAGS
        headers += change
    return _DEVICE_HEADER.pack(flags, run, headers, segment, start, offset)
