"""Ports that a gateway opens in the virtual internet: asked for by a host, used by a stranger."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.lab.behaviour import UDP
from crowline.lab.network import Host, Packet
from crowline.lab.port_mapping_service import PORT
from crowline.lab.presets import CARRIER, HOME, preset
from crowline.lab.profile import Firewall, PortMapping, Profile
from crowline.lab.virtual import Internet
from crowline.lab.virtual_site import VirtualSite, build_site

ANYWHERE = ipaddress.ip_address("::ffff:0.0.0.0").packed
STRANGER = Address("44.9.0.1", 7)


class World:
    """A site, a stranger in the internet, and what arrives at sockets."""

    def __init__(self, profile: Profile) -> None:
        self.internet = Internet(1)
        self.site: VirtualSite = build_site(self.internet, profile, 1)
        self.stranger = self.internet.host(STRANGER.host)
        self.inside = Address(self.site.addresses[0], 4000)

    def listen(self, host: Host, address: Address) -> list[tuple[bytes, Address]]:
        got: list[tuple[bytes, Address]] = []
        self.internet.listen(host, address, lambda packet: got.append((packet.data, packet.source)))
        return got

    def send(self, host: Host, source: Address, destination: Address, data: bytes) -> None:
        self.internet.launch(host, Packet.udp(source, destination, data))
        self.internet.run(limit=5.0)

    def open_port(self, lifetime: int = 3600) -> Address:
        """What a PCP client does: the outside address of port 4000."""
        assert self.site.gateway is not None
        client = Address(self.inside.host, 50000)
        answers = self.listen(self.site.host, client)
        own = ipaddress.ip_address(f"::ffff:{client.host}").packed
        request = struct.pack("!BBHI", 2, 1, 0, lifetime) + own
        request += struct.pack(
            "!12sB3xHH16s", b"twelve bytes", UDP, 4000, 0, bytes(10) + b"\xff\xff" + bytes(4)
        )
        self.send(self.site.host, client, self.site.gateway, request)
        ((answer, source),) = answers
        assert source == self.site.gateway
        assert answer[3] == 0
        port, host = struct.unpack_from("!H16s", answer, 24 + 18)
        return Address(str(ipaddress.IPv6Address(host).ipv4_mapped), port)


@pytest.mark.parametrize("firewall", [Firewall.NONE, Firewall.UDP_BLOCKED])
def test_a_stranger_gets_in_by_a_mapped_port(firewall: Firewall) -> None:
    """The packet arrives at the host that asked, unless a firewall around the translator stops it."""
    world = World(Profile("test", (HOME,), port_mapping=PortMapping.PCP, firewall=firewall))
    got = world.listen(world.site.host, world.inside)
    world.listen(world.stranger, STRANGER)
    outside = world.open_port()
    assert outside.host == "44.100.1.1"
    world.send(world.stranger, STRANGER, outside, b"hello")
    assert got == ([(b"hello", STRANGER)] if firewall is Firewall.NONE else [])


def test_a_port_mapped_at_home_is_no_use_behind_a_carrier() -> None:
    """The gateway opens a port of an address that nobody outside can reach, and says which one that is."""
    world = World(Profile("test", (HOME, CARRIER), port_mapping=PortMapping.PCP))
    outside = world.open_port()
    assert ipaddress.ip_address(outside.host) in ipaddress.ip_network("100.64.0.0/10")
    world.send(world.stranger, STRANGER, outside, b"hello")
    world.send(world.stranger, STRANGER, Address("44.100.1.1", outside.port), b"hello")
    assert world.internet.counters["delivered"] == 2  # the question and its answer


def test_what_the_host_sends_leaves_by_the_mapped_port() -> None:
    """A server outside sees the host where the gateway said it is."""
    world = World(Profile("test", (HOME,), port_mapping=PortMapping.PCP))
    got = world.listen(world.stranger, STRANGER)
    outside = world.open_port()
    world.send(world.site.host, world.inside, STRANGER, b"hello")
    assert got == [(b"hello", outside)]


def test_the_gateway_is_reached_from_inside_only() -> None:
    """Neither its inside nor its outside address answers a stranger."""
    world = World(Profile("test", (HOME,), port_mapping=PortMapping.PCP))
    got = world.listen(world.stranger, STRANGER)
    assert world.site.gateway is not None
    for address in (world.site.gateway, Address("44.100.1.1", PORT)):
        world.send(world.stranger, STRANGER, address, b"\0\0")
    assert got == []


@pytest.mark.parametrize("name", ["public", "home", "upnp-home", "nat64"])
def test_other_places_have_no_such_gateway(name: str) -> None:
    """Only profiles with NAT-PMP or PCP have one."""
    assert World(preset(name)).site.gateway is None


def test_a_nat_pmp_gateway_stands_at_the_translators_inside_address() -> None:
    """Where a host of the site has its default route."""
    profile = replace(preset("home"), port_mapping=PortMapping.NAT_PMP)
    assert World(profile).site.gateway == Address("192.168.1.1", PORT)
