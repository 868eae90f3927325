"""The drivers that look at the path to a server, on loopback; what routers do is tested in the kernel."""

from __future__ import annotations

import socket

from crowline.base.addresses import Address
from crowline.net.hops import first_hops
from crowline.net.path_mtu import NOTHING, measure_path
from crowline.net.server_ports import answering_ports
from crowline.net.udp import CAN_SET_DONT_FRAGMENT
from crowline.stun.path_mtu import PathMeasured
from serving import serving


async def test_loopback_carries_everything() -> None:
    """All sizes arrive at our own server."""
    async with serving() as server:
        found = await measure_path(server.stun)
    assert found == (PathMeasured(1500, None) if CAN_SET_DONT_FRAGMENT else NOTHING)


async def test_nobody_tells_nothing() -> None:
    """A port that refuses is as mute as one that drops."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        assert await measure_path(Address("127.0.0.1", taken.getsockname()[1])) == NOTHING


async def test_a_server_on_this_machine_is_no_hop_away() -> None:
    """It answers the first datagram."""
    async with serving() as server:
        assert await first_hops(server.stun) == ()


async def test_routers_are_asked_by_ipv4_alone() -> None:
    """Of IPv6 nothing is asked here."""
    assert await first_hops(Address("2001:db8::1", 3478)) == ()


async def test_the_ports_that_answer_are_told_from_those_that_do_not() -> None:
    """One has our server behind it, the other a socket that says nothing."""
    async with serving() as server:
        first = server.stun
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
            mute.bind((first.host, 0))
            silent = mute.getsockname()[1]
            assert await answering_ports(first.host, [first.port, silent]) == (first.port,)
