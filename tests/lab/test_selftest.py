"""The self-test in virtual time: it finds what was built, for every kind of place, and sees what is wrong."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.lab.behaviour import (
    Allocation,
    Filtering,
    Hairpin,
    Lifetimes,
    Mapping,
    NatBehaviour,
    UnsolicitedSyn,
)
from crowline.lab.bench import Answer
from crowline.lab.expectation import expected
from crowline.lab.measured import Bracket, Measured, TcpReach
from crowline.lab.presets import ADDRESS_DEPENDENT, CARRIER, FULL_CONE, HOME, PRESETS, SYMMETRIC, preset
from crowline.lab.profile import Firewall, Ipv6, Profile
from crowline.lab.selftest import measure, run
from crowline.lab.virtual_bench import VirtualBench

EIM, ADM, APDM = Mapping
EIF, ADF, APDF = Filtering
ALLOCATIONS = (
    Allocation.PRESERVING,
    Allocation.sequential(1),
    Allocation.sequential(-2),
    Allocation.block(512),
    Allocation.RANDOM,
    Allocation.PARITY,
)


def site(*nats: NatBehaviour, **more: Any) -> Profile:
    return Profile("test", nats, **more)


def measured(profile: Profile, seed: int = 1) -> Measured:
    return measure(VirtualBench(profile, seed))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_behaves_as_described(name: str) -> None:
    """What packets show is what the profile says, field by field."""
    report = run(PRESETS[name], VirtualBench(PRESETS[name]))
    assert report.differences == []
    assert report.passed


# What each preset is, written down once more and by hand: mapping, filtering, allocation, hairpin.
BY_HAND = {
    "public": (EIM, EIF, "preserving", None),
    "home": (EIM, APDF, "preserving", Hairpin.NONE),
    "full-cone": (EIM, EIF, "preserving", Hairpin.NONE),
    "address-restricted": (EIM, ADF, "preserving", Hairpin.NONE),
    "address-dependent": (ADM, ADF, "random", Hairpin.NONE),
    "symmetric": (APDM, APDF, "random", Hairpin.NONE),
    "symmetric-sequential": (APDM, APDF, "sequential +1", Hairpin.NONE),
    "symmetric-block": (APDM, APDF, "block of 512", Hairpin.NONE),
    "parity": (EIM, APDF, "parity", Hairpin.NONE),
    "hairpin": (EIM, APDF, "preserving", Hairpin.EXTERNAL_SOURCE),
    "cgn": (EIM, APDF, "random", Hairpin.EXTERNAL_SOURCE),
    "cgn-symmetric": (APDM, APDF, "random", Hairpin.NONE),
    "mobile": (APDM, APDF, "random", Hairpin.NONE),
    "nat64": (EIM, ADF, "random", Hairpin.NONE),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_presets_are_what_their_names_mean(name: str) -> None:
    """Mapping, filtering, allocation and hairpin of the well-known kinds, not taken from the profile."""
    found = measured(PRESETS[name])
    assert (found.mapping, found.filtering, str(found.allocation), found.hairpin) == BY_HAND[name]


def test_the_other_fields_of_presets_are_what_their_names_mean() -> None:
    """Lifetimes, refusals, IPv6 and firewalls, not taken from the profile either."""
    found = {name: measured(profile) for name, profile in PRESETS.items()}
    assert found["home"].udp_idle == Bracket(105.0, 150.0)
    assert found["short-lived"].udp_idle == Bracket(25.0, 35.0)
    assert found["public"].udp_idle == Bracket(150.0, None)
    assert (found["mobile"].udp_idle, found["mobile"].absolute) == (Bracket(35.0, 50.0), Bracket(54.0, 66.0))
    assert {name for name, what in found.items() if what.absolute} == {"mobile"}
    assert {name for name, what in found.items() if what.inbound_refreshes is False} == {
        "address-dependent",
        "cgn",
        "nat64",
    }
    assert found["public"].inbound_refreshes is None
    assert {name for name, what in found.items() if what.unsolicited_syn is not Answer.SILENCE} == {
        "public",
        "rst-sender",
    }
    assert {name for name, what in found.items() if not what.udp} == {
        "udp-blocked",
        "https-only",
        "proxy-only",
    }
    assert found["udp-blocked"].tcp is TcpReach.ANY
    assert found["https-only"].tcp is TcpReach.HTTPS
    assert found["proxy-only"].tcp is TcpReach.NONE
    assert found["ipv6-home"].ipv6 is Ipv6.FIREWALLED
    assert found["nat64"].ipv6 is Ipv6.NAT64
    assert found["symmetric"].tcp_mapping is APDM
    assert found["public"].translated is False


@pytest.mark.parametrize(("mapping", "filtering"), list(product(Mapping, Filtering)))
def test_every_kind_of_translator_is_recognised(mapping: Mapping, filtering: Filtering) -> None:
    """All mappings and filters with all allocations and hairpins come out as they went in."""
    for allocation, hairpin, syn in zip(
        (*ALLOCATIONS, *ALLOCATIONS, *ALLOCATIONS),
        [kind for kind in Hairpin for _ in ALLOCATIONS],
        [kind for _ in ALLOCATIONS for kind in UnsolicitedSyn],
        strict=True,
    ):
        profile = site(NatBehaviour(mapping, filtering, allocation, hairpin, syn))
        report = run(profile, VirtualBench(profile, 3))
        assert report.differences == [], (str(allocation), hairpin, syn)
        assert (report.measured.mapping, report.measured.filtering) == (mapping, filtering)
        assert report.measured.allocation == allocation


BEHAVIOURS = st.builds(
    NatBehaviour,
    st.sampled_from(Mapping),
    st.sampled_from(Filtering),
    st.sampled_from(ALLOCATIONS),
    st.sampled_from(Hairpin),
    st.sampled_from(UnsolicitedSyn),
    st.builds(
        Lifetimes,
        udp_idle=st.sampled_from([20.0, 30.0, 60.0, 120.0, 300.0]),
        absolute=st.sampled_from([None, 60.0, 90.0]),
    ),
    tcp_mapping=st.sampled_from([None, *Mapping]),
    inbound_refreshes=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(nats=st.lists(BEHAVIOURS, max_size=3), ipv6=st.sampled_from([Ipv6.NONE, Ipv6.OPEN, Ipv6.FIREWALLED]))
def test_layers_behave_as_their_sum_is_expected_to(nats: list[NatBehaviour], ipv6: Ipv6) -> None:
    """Up to three translators in a row, each of any kind: what is expected of them together is measured."""
    profile = site(*nats, ipv6=ipv6)
    assert run(profile, VirtualBench(profile, 5)).differences == []


@settings(max_examples=40, deadline=None)
@given(nats=st.lists(BEHAVIOURS, max_size=2), firewall=st.sampled_from(Firewall))
def test_firewalls_hide_what_is_behind_them(nats: list[NatBehaviour], firewall: Firewall) -> None:
    """Any firewall before any translator: only what gets through it is measured."""
    profile = site(*nats, firewall=firewall)
    assert run(profile, VirtualBench(profile, 5)).differences == []


WRONG = {
    "mapping": (site(HOME), site(replace(HOME, mapping=ADM, allocation=Allocation.RANDOM))),
    "filtering": (site(HOME), site(FULL_CONE)),
    "allocation": (site(SYMMETRIC), site(replace(SYMMETRIC, allocation=Allocation.sequential(3)))),
    "hairpin": (site(CARRIER), site(replace(CARRIER, hairpin=Hairpin.INTERNAL_SOURCE))),
    "unsolicited_syn": (site(HOME), site(replace(HOME, unsolicited_syn=UnsolicitedSyn.ICMP))),
    "tcp_mapping": (site(SYMMETRIC), site(replace(SYMMETRIC, tcp_mapping=EIM))),
    "udp_idle": (site(HOME), site(replace(HOME, lifetimes=Lifetimes(udp_idle=60.0)))),
    "inbound_refreshes": (site(HOME), site(replace(HOME, inbound_refreshes=False))),
    "absolute": (site(SYMMETRIC), site(replace(SYMMETRIC, lifetimes=Lifetimes(absolute=130.0)))),
    "translated": (site(), site(FULL_CONE)),
    "ipv6": (site(HOME, ipv6=Ipv6.OPEN), site(HOME, ipv6=Ipv6.FIREWALLED)),
    "tcp": (site(HOME), site(HOME, firewall=Firewall.HTTPS_ONLY)),
    "udp": (site(HOME), site(HOME, firewall=Firewall.UDP_BLOCKED)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_place_that_is_not_as_described_is_found_out(what: str) -> None:
    """For each field: a bench that was built from another profile than the described one does not pass."""
    described, built = WRONG[what]
    report = run(described, VirtualBench(built))
    assert not report.passed
    assert what in {difference.split(":")[0] for difference in report.differences}


def test_a_mistake_in_one_field_is_reported_for_that_field_alone() -> None:
    """The phrase names the field, what is and what should be."""
    report = run(preset("home"), VirtualBench(preset("address-restricted")))
    assert report.differences == ["filtering: address-dependent, not address-and-port-dependent"]


def test_the_same_seed_measures_the_same() -> None:
    """A run depends on its seed, and its result on the profile alone."""
    profile = site(ADDRESS_DEPENDENT, CARRIER)
    assert measured(profile, 7) == measured(profile, 7) == measured(profile, 8) == expected(profile)


def test_measurements_are_plain_values_for_json() -> None:
    """Every field is a text, a truth value or nothing."""
    fields = msgspec.json.decode(msgspec.json.encode(measured(preset("mobile")).to_fields()))
    assert fields["allocation"] == "random"
    assert fields["udp_idle"] == "35 to 50 s"
    assert fields["absolute"] == "54 to 66 s"
    assert fields["udp"] is True
    assert measured(preset("public")).to_fields()["udp_idle"] == "over 150 s"
    assert {type(value) for value in fields.values()} <= {str, bool, type(None)}
