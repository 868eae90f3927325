"""Firewalls between a site and the world, and what makes a way the fast one."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from crowline.base.addresses import Address
from crowline.lab.access import PROXY_PORT, Access
from crowline.lab.behaviour import ICMP, TCP, UDP
from crowline.lab.impairment import Impairment
from crowline.lab.packet import Header, Kind
from crowline.lab.profile import Firewall

INSIDE = Address("203.0.113.1", 5000)
PROXY = "203.0.113.2"
WEB, OTHER, PROXIED = (
    Address("198.51.100.1", 443),
    Address("198.51.100.1", 8443),
    Address(PROXY, PROXY_PORT),
)


def header(protocol: int, source: Address, destination: Address) -> Header:
    return Header(4, protocol, Kind.PORTS, 0, 20, source, destination, 64)


@pytest.mark.parametrize(
    ("firewall", "passing"),
    [
        (Firewall.NONE, {(p, to) for p in (ICMP, TCP, UDP) for to in (WEB, OTHER, PROXIED)}),
        (Firewall.UDP_BLOCKED, {(p, to) for p in (ICMP, TCP) for to in (WEB, OTHER, PROXIED)}),
        (Firewall.HTTPS_ONLY, {(TCP, WEB)}),
        (Firewall.PROXY_ONLY, {(TCP, PROXIED)}),
    ],
)
def test_a_firewall_lets_out_what_it_is_for(firewall: Firewall, passing: set[tuple[int, Address]]) -> None:
    """By protocol and remote address, and the answers come in by the same rule."""
    access = Access(firewall=firewall, proxy=PROXY)
    for protocol in (ICMP, TCP, UDP):
        for remote in (WEB, OTHER, PROXIED):
            expected = (protocol, remote) in passing
            assert access.lets_out(header(protocol, INSIDE, remote)) == expected
            assert access.lets_in(header(protocol, remote, INSIDE)) == expected


def test_nobody_is_the_proxy_by_its_port_alone() -> None:
    """The proxy's port of another host is as closed as any."""
    access = Access(firewall=Firewall.PROXY_ONLY, proxy=PROXY)
    assert not access.lets_out(header(TCP, INSIDE, Address("198.51.100.1", PROXY_PORT)))


def test_a_way_that_only_takes_time_has_no_lines() -> None:
    """Delay alone stays on the fast path; anything else goes through a line for each direction."""
    access = Access()
    access.impair(Impairment(delay=0.01), random.Random(1), Counter())
    assert (access.delay, access.up, access.down) == (0.01, None, None)
    access.impair(Impairment(delay=0.02, loss=0.5), random.Random(1), Counter())
    assert access.delay == 0.02
    assert access.up is not None and access.down is not None and access.up is not access.down
    access.impair(Impairment(), random.Random(1), Counter())
    assert (access.delay, access.up, access.down) == (0.0, None, None)
