"""Each place of the laboratory gets the right verdict, and what would help there comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.diagnosis.diagnosis import diagnose
from crowline.diagnosis.facts import (
    Facts,
    FamilyFacts,
    FirewallFacts,
    MtuFacts,
    Portal,
    PortalFacts,
    PortFacts,
    Privacy,
    RouterFacts,
    ServerFacts,
    Stance,
)
from crowline.diagnosis.fixes import Gain
from crowline.diagnosis.verdict import Verdict
from crowline.lab.presets import PRESETS, SYMMETRIC
from crowline.lab.profile import PortMapping, Profile
from crowline.punch.plan_choice import Way
from diagnosed_places import GATEWAY, REACHED, facts_of

LIKELY, BLOCKED = Verdict.DIRECT_LIKELY, Verdict.UDP_BLOCKED

# The verdict, the key of the first fix, and how much that would change.
DIAGNOSES = {
    "public": (LIKELY, "", None),
    "home": (LIKELY, "router-mapping", Gain.SOME),
    "full-cone": (LIKELY, "", None),
    "address-restricted": (LIKELY, "", None),
    "address-dependent": (LIKELY, "router-mapping", Gain.LARGE),
    "symmetric": (LIKELY, "router-mapping", Gain.LARGE),
    "symmetric-sequential": (LIKELY, "router-mapping", Gain.LARGE),
    "symmetric-block": (LIKELY, "provider-address", Gain.LARGE),
    "parity": (LIKELY, "router-mapping", Gain.SOME),
    "hairpin": (LIKELY, "router-mapping", Gain.SOME),
    "cgn": (LIKELY, "provider-address", Gain.SOME),
    "cgn-symmetric": (LIKELY, "provider-address", Gain.LARGE),
    "mobile": (LIKELY, "router-mapping", Gain.LARGE),
    "short-lived": (LIKELY, "router-mapping", Gain.SOME),
    "rst-sender": (LIKELY, "router-mapping", Gain.SOME),
    "upnp-home": (LIKELY, "", None),
    "ipv6-home": (LIKELY, "router-mapping", Gain.SOME),
    "udp-blocked": (BLOCKED, "network-udp", Gain.LARGE),
    "https-only": (BLOCKED, "network-udp", Gain.LARGE),
    "proxy-only": (BLOCKED, "network-udp", Gain.LARGE),
    "nat64": (LIKELY, "", None),
}


def test_no_place_is_forgotten() -> None:
    """Whoever adds a preset says what the doctor is to say there."""
    assert set(DIAGNOSES) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_each_place_gets_its_verdict_and_its_first_fix(name: str) -> None:
    """Measured by the discovery itself, behind the laboratory's translators."""
    verdict, key, gain = DIAGNOSES[name]
    diagnosis = diagnose(facts_of(name))
    first = diagnosis.fixes[0] if diagnosis.fixes else None
    assert (diagnosis.verdict, first.key if first else "", first.gain if first else None) == (
        verdict,
        key,
        gain,
    )
    assert diagnosis.summary and diagnosis.reasons


@pytest.mark.parametrize("name", PRESETS)
def test_a_server_with_one_address_is_enough_for_the_verdict(name: str) -> None:
    """It sees no filter, and takes a port for each host for one port; what one is told is nearly the same."""
    diagnosis = diagnose(facts_of(name, addresses=1))
    assert diagnosis.verdict is DIAGNOSES[name][0]
    certain = diagnose(facts_of(name))
    assert abs(diagnosis.reach - certain.reach) < 0.2


def test_two_hard_nats_are_said_to_need_a_relay() -> None:
    """Behind random ports the first sentence names those who are reached by a relay alone."""
    diagnosis = diagnose(facts_of("symmetric"))
    assert "By relay: those behind a hard NAT" in diagnosis.summary
    hard = [each for each in diagnosis.prospects if "random ports" in each.kind.words]
    assert [each.way for each in hard] == [Way.RELAY]
    assert "random port" in hard[0].reason


def test_a_home_router_reaches_every_kind_of_peer() -> None:
    """Directly, if with a guess."""
    assert all(each.is_direct for each in diagnose(facts_of("home")).prospects)


@pytest.mark.parametrize("service", [PortMapping.UPNP, PortMapping.NAT_PMP, PortMapping.PCP])
def test_an_open_port_makes_up_for_a_hard_nat(service: PortMapping) -> None:
    """Everybody reaches it then, and the reason names the protocol."""
    diagnosis = diagnose(facts_of(Profile("x", (SYMMETRIC,), port_mapping=service)))
    assert diagnosis.reach == 1.0
    assert any("opens ports" in reason for reason in diagnosis.reasons)


def test_a_port_of_the_inner_router_does_not_count_behind_a_second_one() -> None:
    """Its outside address is private: one of the two must stop translating."""
    facts = facts_of("symmetric")
    inner = RouterFacts(GATEWAY, ("UPnP",), "10.0.0.7")
    diagnosis = diagnose(replace(facts, routers=(inner,)))
    assert diagnosis.reach < 1.0
    assert diagnosis.fixes[0].key == "one-router"
    assert "Two NATs stand in a row." in diagnosis.reasons


def test_a_port_of_the_home_router_does_not_count_behind_a_carrier() -> None:
    """Its outside address is one that carriers share: only the provider can help."""
    facts = facts_of("symmetric")
    diagnosis = diagnose(replace(facts, routers=(RouterFacts(GATEWAY, ("PCP",), "100.64.3.2"),)))
    assert diagnosis.fixes[0].key == "provider-address"
    assert "router-mapping" not in [fix.key for fix in diagnosis.fixes]
    assert any("CGN" in reason for reason in diagnosis.reasons)


def test_a_router_that_names_another_address_than_servers_see_is_not_the_last() -> None:
    """However public what it names looks."""
    facts = replace(facts_of("home"), routers=(RouterFacts(GATEWAY, ("UPnP",), "44.9.9.9"),))
    assert facts.is_double and not facts.opens_ports


def test_offline_comes_before_everything() -> None:
    """There is one thing to do."""
    diagnosis = diagnose(Facts(ServerFacts("ws://x", problem="The server at ws://x cannot be reached.")))
    assert (diagnosis.verdict, diagnosis.summary) == (Verdict.NO_SERVER, "This machine is offline.")
    assert diagnosis.fixes[0].key == "connect"


def test_a_captive_portal_is_to_be_signed_in_to_first() -> None:
    """Its address is told, where it told it."""
    portal = PortalFacts(Portal.FOUND, "http://portal.example/login")
    ipv4 = FamilyFacts(("192.168.1.10",), has_route=True)
    diagnosis = diagnose(Facts(ServerFacts("ws://x"), ipv4, portal=portal))
    assert diagnosis.verdict is Verdict.NO_SERVER
    assert diagnosis.fixes[0].key == "sign-in"
    assert "http://portal.example/login" in diagnosis.fixes[0].title
    assert "sign in" in diagnosis.summary


def test_a_server_that_does_not_answer_is_said_with_its_own_hint() -> None:
    """The sentence of the failure is the reason, its hint the fix."""
    server = ServerFacts("ws://x", problem="The server at ws://x cannot be reached.", hint="Is it running?")
    diagnosis = diagnose(Facts(server, FamilyFacts(("192.168.1.10",), has_route=True)))
    assert diagnosis.summary == "No server can be reached. The server at ws://x cannot be reached."
    assert diagnosis.fixes[0].title == "Is it running?"
    assert diagnosis.reach == 0.0


def test_the_firewall_of_this_machine_is_blamed_before_the_network() -> None:
    """It comes with the command that opens it."""
    blocking = FirewallFacts("ufw", Stance.BLOCKS, Stance.BLOCKS)
    diagnosis = diagnose(replace(facts_of("udp-blocked"), firewalls=(blocking,)))
    assert diagnosis.verdict is Verdict.UDP_BLOCKED
    assert diagnosis.fixes[0].key == "local-firewall-out"
    assert diagnosis.fixes[0].commands == ("sudo ufw allow out proto udp to any",)
    assert "network-udp" not in [fix.key for fix in diagnosis.fixes]


def test_a_vpn_that_swallows_udp_is_named() -> None:
    """Before the network, which may be innocent."""
    diagnosis = diagnose(replace(facts_of("udp-blocked"), tunnel="wg0"))
    assert [fix.key for fix in diagnosis.fixes[:2]] == ["vpn-udp", "network-udp"]


def test_a_firewall_on_a_public_machine_is_opened_by_a_command() -> None:
    """Behind a NAT nobody is told to open it: there it changes nothing."""
    firewall = FirewallFacts("firewalld", Stance.BLOCKS, Stance.LETS)
    on_public = diagnose(replace(facts_of("public"), firewalls=(firewall,)))
    assert on_public.fixes[0].key == "local-firewall-in"
    assert on_public.fixes[0].commands[0].startswith("sudo firewall-cmd")
    behind_home = diagnose(replace(facts_of("home"), firewalls=(firewall,)))
    assert "local-firewall-in" not in [fix.key for fix in behind_home.fixes]


def test_udp_to_few_ports_alone_is_as_good_as_none() -> None:
    """Other people's ports are any: TCP is left where it gets out, and a relay where it does not."""
    narrow = replace(facts_of("home"), ports=PortFacts((3478,), (3479,), leaves=False))
    diagnosis = diagnose(narrow)
    assert diagnosis.verdict is LIKELY
    assert {each.way for each in diagnosis.prospects if each.is_direct} == {Way.TCP}
    assert diagnosis.fixes[0].key == "network-udp-ports"
    closed = diagnose(replace(narrow, tcp=False))
    assert closed.verdict is Verdict.RELAY_NEEDED
    assert [fix.key for fix in closed.fixes[:2]] == ["network-udp-ports", "network-tcp"]


@pytest.mark.parametrize("leaves", [True, None])
def test_a_port_that_may_be_closed_at_the_server_changes_no_verdict(leaves: bool | None) -> None:
    """It is the server's to open it where packets are known to get out; else it is a doubt."""
    usual = diagnose(facts_of("home"))
    diagnosis = diagnose(replace(facts_of("home"), ports=PortFacts((3478,), (3479,), leaves)))
    assert (diagnosis.verdict, diagnosis.reach) == (usual.verdict, usual.reach)
    assert ("server-ports" in [fix.key for fix in diagnosis.fixes]) is (leaves is True)
    assert any("port 3479" in reason for reason in diagnosis.reasons)


@pytest.mark.parametrize(("passed", "lost", "verdict"), [(1228, 1280, LIKELY), (1000, 1228, LIKELY)])
def test_a_path_for_small_packets_alone_is_found_out(passed: int, lost: int, verdict: Verdict) -> None:
    """Below 1,228 bytes no link goes by UDP, and the MTU comes first."""
    diagnosis = diagnose(replace(facts_of("home"), mtu=MtuFacts(passed, lost)))
    keys = [fix.key for fix in diagnosis.fixes]
    assert "mtu" in keys and diagnosis.verdict is verdict
    assert (keys[0] == "mtu") is (passed < 1228)
    assert any(f"{passed} bytes" in reason for reason in diagnosis.reasons)


def test_an_ordinary_mtu_is_no_matter() -> None:
    """PPPoE has 1,492."""
    diagnosis = diagnose(replace(facts_of("home"), mtu=MtuFacts(1492, 1500)))
    assert "mtu" not in [fix.key for fix in diagnosis.fixes]


def test_an_address_with_the_hardware_in_it_is_told_last() -> None:
    """It changes nothing for connections."""
    diagnosis = diagnose(replace(facts_of("ipv6-home"), privacy=Privacy.HARDWARE))
    assert diagnosis.fixes[-1].key == "ipv6-privacy"


def test_without_anything_measured_nothing_but_a_relay_is_promised() -> None:
    """A server without STUN."""
    ipv4 = FamilyFacts(("192.168.1.10",), has_route=True)
    diagnosis = diagnose(Facts(replace(REACHED, has_stun=False), ipv4))
    assert (diagnosis.verdict, diagnosis.reach, diagnosis.prospects) == (Verdict.RELAY_NEEDED, 0.0, ())
    assert any("STUN" in reason for reason in diagnosis.reasons)


def test_exit_codes_are_those_of_the_manual() -> None:
    """0, 20, 21, 22."""
    assert [verdict.exit_code for verdict in Verdict] == [0, 20, 21, 22]


def test_no_advice_is_given_twice() -> None:
    """At any place, alone or with everything wrong at once."""
    for name in PRESETS:
        facts = replace(
            facts_of(name),
            tunnel="tun0",
            firewalls=(FirewallFacts("ufw", Stance.BLOCKS, Stance.BLOCKS),),
            mtu=MtuFacts(1000, 1228),
            privacy=Privacy.HARDWARE,
        )
        keys = [fix.key for fix in diagnose(facts).fixes]
        assert len(keys) == len(set(keys)), name
