"""A virtual host that has its gateway open ports, with the product's machines, and strangers that come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.lab.network import Packet
from crowline.lab.presets import CARRIER, HOME, PRESETS, SYMMETRIC
from crowline.lab.profile import PortMapping, Profile
from crowline.lab.router_temper import PLAIN, STRANGER, WORKING, ZOO, Temper
from crowline.lab.virtual import Internet
from crowline.lab.virtual_port_mapping import MappedPort, VirtualPortMapping
from crowline.lab.virtual_site import build_site
from crowline.lab.virtual_tcp import TcpHost
from crowline.portmap.router_events import Opened, Refused

VISITOR = Address("44.9.0.1", 7)
KINDS = pytest.mark.parametrize(
    "kind", [PortMapping.UPNP, PortMapping.NAT_PMP, PortMapping.PCP], ids=lambda kind: kind.value
)
UNREADABLE = ("silent", "redirecting", "giant", "deep", "entities", "half", "login-page", "elsewhere")


class World:
    """A site with a gateway of some temper, a host with one UDP socket, and a visitor in the internet."""

    def __init__(self, profile: Profile, temper: Temper | str = PLAIN) -> None:
        self.packets: list[Packet] = []
        self.internet = Internet(1, observe=lambda _, packet: self.packets.append(replace(packet)))
        kind = ZOO[temper] if isinstance(temper, str) else temper
        self.site = build_site(self.internet, profile, 1, temper=kind)
        self.base = Address(self.site.addresses[0], 4000)
        self.got: list[tuple[bytes, Address]] = []
        self.internet.listen(
            self.site.host, self.base, lambda packet: self.got.append((packet.data, packet.source))
        )
        self.visitor = self.internet.host(VISITOR.host)
        self.internet.listen(self.visitor, VISITOR, lambda packet: None)
        self.mapped: list[Address] = []
        self.lost: list[MappedPort] = []
        self.ports = VirtualPortMapping(
            self.internet,
            self.site,
            TcpHost(self.internet, self.site.host),
            on_mapped=lambda opened: self.mapped.extend([opened.outside] if opened.outside else []),
            on_lost=self.lost.append,
        )

    def open(self, seconds: float = 60.0) -> None:
        self.ports.open(Transport.UDP, self.base)
        self.internet.run(limit=seconds)

    def enters(self, outside: Address) -> bool:
        """Whether a visitor's datagram to that address arrives."""
        self.got.clear()
        self.internet.launch(self.visitor, Packet.udp(VISITOR, outside, b"hello"))
        self.internet.run(limit=1.0)
        return self.got == [(b"hello", VISITOR)]


def home(kind: PortMapping) -> Profile:
    return replace(PRESETS["home"], port_mapping=kind)


@KINDS
@pytest.mark.parametrize("nat", [HOME, SYMMETRIC], ids=["home", "symmetric"])
def test_a_visitor_gets_in_until_the_end(kind: PortMapping, nat: object) -> None:
    """By each protocol, through any translator; after the host has closed it, nobody does."""
    world = World(replace(home(kind), nats=(nat,)))
    world.open()
    (outside,) = world.mapped
    assert outside == Address("44.100.1.1", 4000)
    assert world.enters(outside)
    world.internet.run(limit=3 * 7200.0)
    assert world.enters(outside)
    world.ports.close()
    world.internet.run(limit=5.0)
    assert not world.enters(outside)
    client = world.ports.client
    assert client is not None
    assert client.is_idle


@KINDS
def test_a_restarted_gateway_is_asked_again(kind: PortMapping) -> None:
    """At the latest when the lease is renewed, and the host keeps its outside address."""
    world = World(home(kind))
    world.open()
    assert world.site.router is not None
    world.site.router.restart()
    assert not world.enters(world.mapped[0])
    world.internet.run(limit=7200.0)
    assert world.enters(world.mapped[-1])
    assert set(world.mapped) == {Address("44.100.1.1", 4000)}


@KINDS
def test_what_a_carrier_translates_again_is_no_address_to_offer(kind: PortMapping) -> None:
    """The port is opened, and its private outside address is kept to itself."""
    world = World(replace(home(kind), nats=(HOME, CARRIER)))
    world.open()
    assert world.mapped == []
    assert any(isinstance(event, Opened) for event in world.ports.events)


def test_a_site_without_such_a_gateway_asks_nobody() -> None:
    """Nothing is sent, and nothing is told."""
    world = World(PRESETS["home"])
    world.open()
    assert world.packets == []
    assert world.ports.events == []


@pytest.mark.parametrize("name", WORKING)
def test_the_zoo_opens_what_it_can(name: str) -> None:
    """Whatever is odd about a gateway that opens ports, the host gets one, for hours."""
    world = World(home(PortMapping.UPNP), name)
    world.open()
    assert world.enters(world.mapped[-1])
    world.internet.run(limit=4 * 3600.0)
    assert world.enters(world.mapped[-1])


@pytest.mark.parametrize("name", [*UNREADABLE, "ventriloquist", "locked"])
def test_the_zoo_refuses_without_harm(name: str) -> None:
    """No port and no packet to anybody but the gateway; the host hears why."""
    world = World(home(PortMapping.UPNP), name)
    world.open(600.0)
    assert world.mapped == []
    refused = [event for event in world.ports.events if isinstance(event, Refused)]
    assert refused
    assert all(event.words for event in refused)
    assert world.site.router is not None
    gateway = world.site.router.host
    from_host = [packet for packet in world.packets if packet.source.host == world.base.host]
    assert {packet.destination.host for packet in from_host} == {gateway}
    assert all(STRANGER not in str(packet.destination) for packet in world.packets)


@KINDS
@pytest.mark.parametrize("name", ["behind-another", "homeless", "liar"])
def test_an_outside_address_that_nobody_can_reach_is_not_offered(kind: PortMapping, name: str) -> None:
    """Private, absent, or out of a range for documents: no candidate is made of it."""
    world = World(home(kind), name)
    world.open()
    assert world.mapped == []


@KINDS
def test_a_forgetful_gateway_is_found_out_at_the_renewal(kind: PortMapping) -> None:
    """A port that is gone comes back when its lease is renewed, without a new outside address."""
    world = World(home(kind), replace(ZOO["forgetful"], longest_lease=600))
    world.open(30.0)
    assert world.enters(world.mapped[0])
    world.internet.run(limit=90.0)
    assert not world.enters(world.mapped[0])
    open_again = []
    for _ in range(60):
        world.internet.run(limit=10.0)
        open_again.append(world.enters(world.mapped[0]))
    assert any(open_again)
    assert world.lost == []


@pytest.mark.parametrize("kind", [PortMapping.NAT_PMP, PortMapping.PCP], ids=lambda kind: kind.value)
@pytest.mark.parametrize("name", ["silent", "ventriloquist", "locked"])
def test_nat_pmp_and_pcp_refuse_without_harm(kind: PortMapping, name: str) -> None:
    """Nothing is opened by a gateway that is silent, that refuses, or in whose place another one answers."""
    world = World(home(kind), name)
    world.open(600.0)
    assert world.mapped == []
    assert any(isinstance(event, Refused) and event.words for event in world.ports.events)


@pytest.mark.parametrize("kind", [PortMapping.NAT_PMP, PortMapping.PCP], ids=lambda kind: kind.value)
@pytest.mark.parametrize("name", ["other-port", "short-lease", "stutterer"])
def test_what_nat_pmp_and_pcp_grant_is_taken(kind: PortMapping, name: str) -> None:
    """Another port, a shorter time, an answer three times: the host lives with all of it, for hours."""
    world = World(home(kind), name)
    world.open()
    assert world.enters(world.mapped[-1])
    if name == "other-port":
        assert world.mapped[-1].port != world.base.port
    world.internet.run(limit=4 * 3600.0)
    assert world.enters(world.mapped[-1])
