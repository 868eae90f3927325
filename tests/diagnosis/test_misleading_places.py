"""Places that look like others: VPNs, overlay networks, firewalls beneath open ports, ports of a web site."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.diagnosis.diagnosis import Diagnosis, diagnose
from crowline.diagnosis.facts import FamilyFacts, FirewallFacts, RouterFacts, Stance
from crowline.diagnosis.fixes import Gain
from crowline.diagnosis.verdict import Verdict
from crowline.lab.presets import SYMMETRIC
from crowline.lab.profile import PortMapping, Profile
from crowline.punch.nat_profile import Filtering
from crowline.punch.plan_choice import Way
from diagnosed_places import GATEWAY, INSIDE, facts_of

UFW = FirewallFacts("ufw", Stance.BLOCKS, Stance.LETS)
OVERLAY = "100.101.102.103"  # as machines of an overlay network have, out of the carriers' range


def keys(diagnosis: Diagnosis) -> list[str]:
    return [fix.key for fix in diagnosis.fixes]


def test_an_overlay_network_beside_the_cable_is_no_carrier() -> None:
    """Packets to the internet leave by the preferred address; the other is for machines of that network."""
    home = facts_of("home")
    beside = replace(home, ipv4=replace(home.ipv4, hosts=(INSIDE, OVERLAY)))
    assert not beside.carrier
    assert diagnose(beside) == diagnose(home)


def test_an_address_of_the_carriers_range_is_a_carriers() -> None:
    """Where packets leave from it, and by no VPN."""
    home = facts_of("home")
    mobile = replace(home, ipv4=replace(home.ipv4, hosts=(OVERLAY,)))
    assert mobile.carrier
    assert not replace(mobile, tunnel="tailscale0").carrier


@pytest.mark.parametrize("beyond", ["100.64.0.1", "the address that servers see"])
def test_a_router_with_the_address_that_servers_see_is_the_last_one(beyond: str) -> None:
    """Providers number their own routers, too, out of the carriers' range."""
    facts = facts_of("upnp-home")
    (router,) = facts.routers
    assert router.outside_host is not None
    hop = beyond if beyond[0].isdigit() else router.outside_host
    routed = replace(facts, hops=(GATEWAY, hop))
    assert routed.opens_ports and not (routed.carrier or routed.is_double)
    assert diagnose(routed) == diagnose(facts)
    assert replace(routed, routers=(RouterFacts(GATEWAY),)).carrier


@pytest.mark.parametrize("outside", ["44.9.9.9", "10.0.0.7", "100.64.3.2", None])
def test_the_router_beneath_a_vpn_says_nothing_of_the_way(outside: str | None) -> None:
    """No port that it opens is where others see this machine, and it is not one of two in a row."""
    beneath = RouterFacts(GATEWAY, ("UPnP",), outside)
    facts = replace(facts_of("symmetric"), routers=(beneath,), tunnel="wg0")
    assert not (facts.opens_ports or facts.is_double or facts.carrier)
    diagnosis = diagnose(facts)
    assert keys(diagnosis)[0] == "vpn"
    of_home = {"one-router", "router-mapping", "router-nat-mode", "provider-address", "ipv6"}
    assert not of_home & set(keys(diagnosis))
    assert not any("opens ports" in reason or "row" in reason for reason in diagnosis.reasons)
    assert any("VPN (wg0)" in reason for reason in diagnosis.reasons)


def test_a_router_that_names_no_address_promises_nothing_before_a_carrier() -> None:
    """Ports out of a small block are a carrier's, in which the router at home opens none."""
    facts = replace(facts_of("symmetric-block"), routers=(RouterFacts(GATEWAY, ("PCP",)),))
    assert facts.carrier and not facts.opens_ports
    assert diagnose(facts).fixes[0].key == "provider-address"


def test_a_vpn_with_a_good_nat_is_left_alone() -> None:
    """Without it others would be reached no better."""
    assert "vpn" not in keys(diagnose(replace(facts_of("home"), tunnel="wg0")))


def test_an_open_port_behind_which_a_firewall_stands_is_not_open_to_everybody() -> None:
    """It is as good as one of an ordinary router; to open the firewall, too, is what helps then."""
    place = facts_of(Profile("x", (SYMMETRIC,), port_mapping=PortMapping.UPNP))
    diagnosis = diagnose(replace(place, firewalls=(UFW,)))
    assert Way.SPRAY in {each.way for each in diagnosis.prospects}
    assert Way.SPRAY not in {each.way for each in diagnose(place).prospects}
    assert (diagnosis.fixes[0].key, diagnosis.fixes[0].gain) == ("local-firewall-in", Gain.SOME)
    assert not any("everybody reaches" in reason for reason in diagnosis.reasons)


def test_a_public_address_whose_filter_is_not_known_promises_nothing() -> None:
    """A server of one address cannot see whether a firewall lets in only answers."""
    public = facts_of("public")
    assert public.ipv4.nat is not None
    nat = replace(public.ipv4.nat, filtering=Filtering.UNKNOWN)
    reasons = diagnose(replace(public, ipv4=replace(public.ipv4, nat=nat))).reasons
    assert reasons[0] == "No NAT is in between."
    assert diagnose(public).reasons[0] == "No NAT is in between: others reach this machine directly."


def test_ipv6_that_lets_no_udp_back_gets_its_own_fix() -> None:
    """Some firewall keeps it, since there is no translator."""
    facts = facts_of("ipv6-home")
    assert facts.ipv6.nat is not None
    mute = replace(facts, ipv6=FamilyFacts(facts.ipv6.hosts, True, replace(facts.ipv6.nat, answers=False)))
    diagnosis = diagnose(mute)
    assert diagnosis.verdict is Verdict.DIRECT_LIKELY
    assert "network-udp-ipv6" in keys(diagnosis)
