"""The routers on the way out, as Linux and the programs of other systems tell them."""

from __future__ import annotations

import ipaddress
import struct
import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given

from crowline.api.port_mapping.mapper import usual_host
from crowline.lab.namespaces import Internet
from crowline.net import rtnetlink as rt
from crowline.net.gateway import Gateway, choose_gateways, default_gateways, gateway_of
from crowline.net.interfaces import InterfaceAddress, InterfaceKind, interface_addresses
from crowline.net.route_listing import DefaultRoute, read_bsd_routes, read_windows_routes
from crowline.net.router import RouterDriver
from needs import needs_root

INET, INET6 = 2, 10
LAN = InterfaceAddress("192.168.1.10", 24, "eth0", 2)
RADIO = InterfaceAddress("10.0.0.10", 24, "wlan0", 3)
LAN_IPV6 = InterfaceAddress("2001:db8::10", 64, "eth0", 2)
LAN_LOCAL = InterfaceAddress("fe80::10", 64, "eth0", 2)
TUNNEL = InterfaceAddress("10.8.0.2", 24, "wg0", 4, kind=InterfaceKind.TUNNEL)
WAY, RADIO_WAY = DefaultRoute("192.168.1.1", 2), DefaultRoute("10.0.0.1", 3)
WAY_IPV6 = DefaultRoute("fe80::1", 2)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed


def view(data: bytes) -> memoryview:
    return memoryview(data)


def route(family: int, *attributes: bytes, length: int = 0, kind: int = 1, table: int = 254) -> memoryview:
    return view(struct.pack("=8BI", family, length, 0, 0, table, 3, 0, kind, 0) + b"".join(attributes))


def device(index: int) -> bytes:
    return attribute(4, struct.pack("=I", index))


# --- rtnetlink --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), [(INET, "192.168.1.1"), (INET6, "fe80::1")])
def test_a_default_route_names_its_router(family: int, host: str) -> None:
    """Device and next hop, of either family."""
    found = rt.read_default_routes(route(family, device(2), attribute(5, packed(host))))
    assert found == [rt.RouteStep(2, host, "")]


def test_a_default_route_may_lead_to_several_routers() -> None:
    """One next hop after the other (RTA_MULTIPATH)."""
    hops = b"".join(
        struct.pack("=HBBi", 16, 0, 0, index) + attribute(5, packed(host))
        for index, host in ((2, "192.168.1.1"), (3, "10.0.0.1"))
    )
    found = rt.read_default_routes(route(INET, attribute(9, hops)))
    assert [(step.device, step.gateway) for step in found] == [(2, "192.168.1.1"), (3, "10.0.0.1")]


@pytest.mark.parametrize(
    "payload",
    [
        route(INET, device(2), attribute(5, packed("192.168.1.1")), length=24),
        route(INET, device(2), attribute(5, packed("192.168.1.1")), kind=6),
        route(INET, device(2), attribute(5, packed("192.168.1.1")), table=100),
        route(INET, device(2), attribute(5, packed("192.168.1.1")), attribute(15, struct.pack("=I", 300))),
        route(INET, device(2)),
        route(INET, attribute(5, packed("192.168.1.1"))),
        view(b"short"),
    ],
    ids=["a network's", "a black hole", "another table", "a large table", "no router", "no device", "short"],
)
def test_other_routes_name_none(payload: memoryview) -> None:
    """Only the way of all other packets counts, and only where somebody is there."""
    assert rt.read_default_routes(payload) == []


def test_a_neighbour_has_a_station() -> None:
    """Its address on the network, by which two of its hosts are known to be one."""
    body = struct.pack("=B3xiHBB", INET, 2, 2, 0, 0)
    body += attribute(1, packed("192.168.1.1")) + attribute(2, bytes(range(1, 7)))
    assert rt.read_neighbour(view(body)) == rt.Neighbour(2, "192.168.1.1", bytes(range(1, 7)))
    assert rt.read_neighbour(view(body[:-12])) is None
    assert rt.read_neighbour(view(b"")) is None


@given(st.binary(max_size=200))
def test_damaged_messages_are_no_trouble(data: bytes) -> None:
    """Whatever it is, it is read without an exception."""
    rt.read_default_routes(view(data))
    rt.read_neighbour(view(data))


# --- which of them ----------------------------------------------------------------------------------------


def test_each_interface_has_its_router() -> None:
    """One for each family, the preferred address first."""
    found = choose_gateways([RADIO_WAY, WAY, WAY_IPV6], [LAN, RADIO, LAN_IPV6, LAN_LOCAL])
    assert found == [
        Gateway("192.168.1.1", "192.168.1.10", 2, "eth0"),
        Gateway("10.0.0.1", "10.0.0.10", 3, "wlan0"),
        Gateway("fe80::1", "2001:db8::10", 2, "eth0"),
    ]
    assert [each.is_ipv6 for each in found] == [False, False, True]


def test_tunnels_and_networks_without_a_way_out_have_none() -> None:
    """What is at a tunnel's other end is no router of this place."""
    assert choose_gateways([DefaultRoute("10.8.0.1", 4), WAY], [TUNNEL, RADIO]) == []


def test_an_interface_may_be_told_by_name_or_address() -> None:
    """As macOS and Windows do."""
    by_name = DefaultRoute("192.168.1.1", interface="eth0")
    by_address = DefaultRoute("192.168.1.1", interface="192.168.1.10")
    expected = [Gateway("192.168.1.1", "192.168.1.10", 2, "eth0")]
    assert choose_gateways([by_name], [LAN, RADIO]) == expected
    assert choose_gateways([by_address], [LAN, RADIO]) == expected


def test_a_foreign_address_and_loopback_have_no_router() -> None:
    """Only addresses of this machine that lead somewhere have."""
    assert gateway_of("198.51.100.1") is None
    assert gateway_of("127.0.0.1") is None


# --- what tests may do ------------------------------------------------------------------------------------


def test_tests_see_no_router_of_this_machine() -> None:
    """Whatever network it is in, and by whichever of its addresses."""
    assert default_gateways() == []
    assert all(gateway_of(each.host) is None for each in interface_addresses())
    assert usual_host("192.168.1.10") == "192.168.1.10"


async def test_tests_cannot_ask_one_by_mistake() -> None:
    """A driver for anything but loopback fails before it has a socket."""
    with pytest.raises(AssertionError, match="real router"):
        RouterDriver(Gateway("192.0.2.1", "127.0.0.1", 1, "lo"), lambda _: None)


def test_programs_that_tests_start_see_none_either() -> None:
    """Whatever they import first."""
    for first in ("crowline.net.gateway", "crowline.api.port_mapping.ports", "crowline.net.router"):
        script = (
            f"import {first}, crowline.net.router\n"
            "from crowline.net.gateway import default_gateways\n"
            "print(default_gateways())"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.kernel
def test_tests_in_namespaces_of_their_own_see_its_router() -> None:
    """There, and in what is started from there, the guard is no obstacle."""
    needs_root()
    with Internet() as net:
        host = net.site("home").hosts[0]
        own = host.addresses[0]
        found = net.inside(host, lambda: gateway_of(own))
        assert found is not None and found.host == own.rpartition(".")[0] + ".1"
        assert net.inside(host, default_gateways)[0] == found


# --- other systems ----------------------------------------------------------------------------------------

MACOS = """Routing tables

Internet:
Destination        Gateway            Flags               Netif Expire
default            192.168.1.1        UGScg                 en0
default            link#22            UCSIg             bridge100      !
127                127.0.0.1          UCS                   lo0
192.168.1          link#11            UCS                   en0      !

Internet6:
Destination                             Gateway                            Flags               Netif Expire
default                                 fe80::1%en0                        UGcg                  en0
default                                 fe80::%utun0                       UGcIg               utun0
::1                                     ::1                                UHL                   lo0
"""

WINDOWS = """===========================================================================
Schnittstellenliste
 12...00 15 5d 01 02 03 ......Ethernet
===========================================================================
IPv4-Routentabelle
Aktive Routen:
     Netzwerkziel    Netzwerkmaske          Gateway    Schnittstelle Metrik
          0.0.0.0          0.0.0.0      192.168.1.1     192.168.1.10     25
        127.0.0.0        255.0.0.0   Auf Verbindung         127.0.0.1    331
IPv6-Routentabelle
 If Metrik Netzwerkziel             Gateway
 12    281 ::/0                     fe80::1
  1    331 ::1/128                  Auf Verbindung
"""


def test_the_listing_of_macos_is_read() -> None:
    """Both families; links that have no router are left out."""
    found = read_bsd_routes(MACOS)
    assert DefaultRoute("192.168.1.1", interface="en0") in found
    assert DefaultRoute("fe80::1", interface="en0") in found
    assert all("link" not in each.gateway for each in found)


def test_the_listing_of_windows_is_read_in_any_language() -> None:
    """IPv4 names the interface by its address, IPv6 by its number."""
    assert read_windows_routes(WINDOWS) == [
        DefaultRoute("192.168.1.1", interface="192.168.1.10"),
        DefaultRoute("fe80::1", index=12),
    ]


@given(st.text(max_size=300))
def test_other_listings_are_no_trouble(text: str) -> None:
    """A system that lists something else has no routers."""
    read_bsd_routes(text)
    read_windows_routes(text)
