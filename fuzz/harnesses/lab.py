"""The laboratory's own parsers: packets, port mapping requests and the proxy's first line."""

from __future__ import annotations

from crowline.lab import packet
from crowline.lab.connect_proxy import parse_target
from crowline.lab.port_mapping_messages import (
    MalformedPortMapping,
    parse_nat_pmp,
    parse_pcp,
    parse_pcp_map,
    version_of,
)
from fuzz.harness import Harness

_UDP4 = bytes.fromhex("45000020000100004011000a0a000001c000020113880d96000c000074657374")
_UDP6 = (
    bytes.fromhex("60000000000c1140" + "20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02")
    + _UDP4[20:]
)
_ICMP4 = bytes.fromhex("4500003c000100004001000a0a000001c00002010301000000000000") + _UDP4


def run_packet(data: bytes) -> None:
    """What is a packet can be asked what it quotes; what is none is refused."""
    header = packet.parse(data)
    assert header.start == 0 and header.transport <= len(data)
    packet.parse_quoted(data, header)


def run_port_mapping(data: bytes) -> None:
    """A request of either protocol, whichever its version says."""
    if version_of(data) == 0:
        parse_nat_pmp(data)
    else:
        parse_pcp(data)
        parse_pcp_map(data)


def run_proxy(data: bytes) -> None:
    """A host and a port, or none."""
    target = parse_target(data)
    assert target is None or 0 <= target[1] <= 65535


HARNESSES = (
    Harness(
        "lab-packet", run_packet, "crowline/lab/packet", (_UDP4, _UDP6, _ICMP4), (packet.MalformedPacket,)
    ),
    Harness(
        name="lab-port-mapping",
        run=run_port_mapping,
        module="crowline/lab/port_mapping_messages",
        seeds=(b"\0\0", b"\0\1\0\0\x13\x88\x13\x88\0\0\x1c\x20", b"\2\1" + bytes(58), b"\2\0" + bytes(22)),
        allowed=(MalformedPortMapping,),  # becomes the protocol's own error
    ),
    Harness(
        name="lab-proxy",
        run=run_proxy,
        module="crowline/lab/connect_proxy",
        seeds=(
            b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
            b"CONNECT [::1]:443 HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1",
        ),
        tokens=(b"9" * 5000, b":", b" ", b"\r\n", "\u0661".encode(), b"65536"),
    ),
)
