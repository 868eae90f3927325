"""Whole meetings in virtual time where the gateway of one side opens ports, truthfully or not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from crowline.lab.network import Packet
from crowline.lab.presets import CARRIER, HOME, PRESETS, SYMMETRIC
from crowline.lab.profile import Firewall, Ipv6, PortMapping, Profile
from crowline.lab.router_temper import PLAIN, ZOO, Temper
from crowline.lab.virtual import Internet
from crowline.lab.virtual_attempt import virtual_attempt
from crowline.lab.virtual_peer import VirtualPeer
from crowline.lab.virtual_server import VirtualServer
from crowline.lab.virtual_site import build_site
from crowline.rendezvous.code import Code

KINDS = pytest.mark.parametrize(
    "kind", [PortMapping.UPNP, PortMapping.NAT_PMP, PortMapping.PCP], ids=lambda kind: kind.value
)
RANDOM = PRESETS["symmetric"]
FALSE_HOST = "44.77.0.1"
HIGHEST_FALSE = 30  # packets to an address of somebody else that a router named: checks of one candidate
# Those that neither UDP nor TCP to any port may leave, and those of another family than the open port.
OUT_OF_REACH = {
    name
    for name, profile in PRESETS.items()
    if profile.firewall in (Firewall.HTTPS_ONLY, Firewall.PROXY_ONLY) or profile.ipv6 is Ipv6.NAT64
}


class Meeting:
    """Two peers; `sent` counts the packets to each host, by whichever side."""

    def __init__(self, a: Profile, b: Profile, tempers: tuple[Temper, Temper], seed: int = 1) -> None:
        self.sent: Counter[str] = Counter()
        self.internet = Internet(seed, observe=self._observe)
        self.server = VirtualServer(self.internet)
        self.sites = [
            build_site(self.internet, profile, number, temper=temper)
            for number, (profile, temper) in enumerate(zip((a, b), tempers, strict=True), start=1)
        ]
        self.peers: list[VirtualPeer] = []
        self._add()

    def run(self, seconds: float = 20.0) -> None:
        self.internet.run(self._is_direct, limit=seconds)

    def kinds(self) -> list[str]:
        """What each side's streams go by."""
        return ["hub" if peer.link is None else peer.link.category for peer in self.peers]

    def _add(self, code: Code | None = None) -> None:
        site = self.sites[len(self.peers)]
        hub = self.server.address_for(site.addresses)
        peer = VirtualPeer(
            self.internet,
            site,
            hub,
            code=code,
            on_code=lambda code: self.internet.call_at(self.internet.now, lambda: self._add(code)),
            on_progress=lambda: None,
        )
        self.peers.append(peer)

    def _is_direct(self) -> bool:
        return len(self.peers) == 2 and self.kinds() == ["direct", "direct"]

    def _observe(self, _: float, packet: Packet) -> None:
        self.sent[packet.destination.host] += 1


@KINDS
@pytest.mark.parametrize("nat", [HOME, SYMMETRIC], ids=["home", "random"])
def test_any_place_meets_an_open_port_directly(kind: PortMapping, nat: object) -> None:
    """Whichever side has the gateway, and whatever the other one is behind, as far as packets leave there."""
    mapped = replace(PRESETS["home"], name="mapped", nats=(nat,), port_mapping=kind)
    for name, other in PRESETS.items():
        if name not in OUT_OF_REACH:
            for sides in ((mapped, other), (other, mapped)):
                assert virtual_attempt(*sides, 1).kind == "direct", (name, sides[0].name)


@KINDS
def test_a_port_that_was_open_long_before_needs_no_time(kind: PortMapping) -> None:
    """A side that waits has its port open when the other one comes: one round trip is enough."""
    outcome = virtual_attempt(replace(RANDOM, port_mapping=kind), RANDOM, 1, wait=30.0)
    assert outcome.direct_ms is not None
    assert outcome.direct_ms < 300


@KINDS
def test_a_port_behind_another_nat_changes_nothing(kind: PortMapping) -> None:
    """It cannot be reached, and what would be without it still is."""
    profile = replace(PRESETS["cgn"], port_mapping=kind)
    assert virtual_attempt(profile, PRESETS["home"], 1).kind == "direct"
    behind_random = Profile("double", (HOME, SYMMETRIC), port_mapping=kind)
    assert virtual_attempt(behind_random, RANDOM, 1).kind == "relay"


@KINDS
def test_a_gateway_that_names_anothers_address_costs_that_one_little(kind: PortMapping) -> None:
    """The port is reached where servers see the host; the address that was named gets a few checks."""
    liar = replace(ZOO["liar"], outside=FALSE_HOST)
    meeting = Meeting(replace(RANDOM, port_mapping=kind), RANDOM, (liar, PLAIN))
    meeting.run()
    assert meeting.kinds() == ["direct", "direct"]
    assert 0 < meeting.sent[FALSE_HOST] < HIGHEST_FALSE


@KINDS
@pytest.mark.parametrize("name", ["yes-man", "locked", "silent", "forgetful"])
def test_a_gateway_that_does_not_help_does_not_harm(kind: PortMapping, name: str) -> None:
    """Two homes meet directly all the same, and two random NATs by the relay."""
    home = replace(PRESETS["home"], port_mapping=kind)
    meeting = Meeting(home, PRESETS["home"], (ZOO[name], PLAIN))
    meeting.run()
    assert meeting.kinds() == ["direct", "direct"]
    if name != "forgetful":
        meeting = Meeting(replace(RANDOM, port_mapping=kind), RANDOM, (ZOO[name], PLAIN))
        meeting.run(10.0)
        assert meeting.kinds() == ["relay", "relay"]


def test_a_restart_of_the_gateway_is_survived() -> None:
    """The port is closed and nothing else leads across: streams go on by the relay."""
    meeting = Meeting(replace(RANDOM, port_mapping=PortMapping.PCP), RANDOM, (PLAIN, PLAIN))
    meeting.run()
    assert meeting.kinds() == ["direct", "direct"]
    router = meeting.sites[0].router
    assert router is not None
    router.restart()
    meeting.internet.run(limit=10.0)
    assert meeting.kinds() == ["relay", "relay"]


def test_carriers_translators_are_not_asked() -> None:
    """Only the innermost one is a gateway of the host; no packet goes to any other for that."""
    profile = replace(PRESETS["cgn"], nats=(HOME, CARRIER), port_mapping=PortMapping.PCP)
    meeting = Meeting(profile, PRESETS["public"], (PLAIN, PLAIN))
    meeting.run()
    router = meeting.sites[0].router
    assert router is not None
    assert meeting.sent[router.host] > 0
    assert meeting.sent["100.64.1.1"] == 0
