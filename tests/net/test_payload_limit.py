"""How large a datagram this machine would let out uncut, as its routes say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crowline.base.addresses import Address
from crowline.net.payload_limit import largest_payload

LOOPBACK = Address("127.0.0.1", 4000)
INTERFACE = Path("/sys/class/net/lo/mtu")


@pytest.mark.skipif(not INTERFACE.exists(), reason="this system does not tell the MTU of its loopback")
def test_the_interface_that_a_route_leads_through_is_the_limit() -> None:
    """Less the headers of IPv4 and UDP; an IPv4 packet has no more than 65,535 bytes."""
    assert largest_payload(LOOPBACK, LOOPBACK) == min(int(INTERFACE.read_text()), 65535) - 28


def test_an_address_that_is_not_this_machines_is_no_obstacle() -> None:
    """A relayed base is the server's; the way to the other side is taken for that to the server."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the limit is the same everywhere there")
    relayed = Address("192.0.2.200", 5000)
    assert largest_payload(relayed, LOOPBACK) == largest_payload(LOOPBACK, LOOPBACK)


def test_where_no_route_leads_the_limit_is_that_of_ethernet() -> None:
    """Class E: no system has a way there."""
    assert largest_payload(LOOPBACK, Address("255.255.255.255", 9)) == 1472
