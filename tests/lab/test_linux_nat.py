"""Which translators are left to Linux, and who is what in a row of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.lab.behaviour import Allocation, Filtering, Hairpin, Lifetimes, Mapping, UnsolicitedSyn
from crowline.lab.linux_nat import is_linux, parameters, rules
from crowline.lab.presets import CARRIER, FULL_CONE, HOME, MOBILE, PRESETS, SYMMETRIC
from crowline.lab.profile import Ipv6, Profile
from crowline.lab.sites import choose_translators


@pytest.mark.parametrize(
    "behaviour",
    [
        HOME,
        SYMMETRIC,
        replace(HOME, unsolicited_syn=UnsolicitedSyn.RST),
        replace(SYMMETRIC, unsolicited_syn=UnsolicitedSyn.ICMP),
        replace(HOME, lifetimes=Lifetimes(udp_idle=30.0)),
        replace(HOME, inbound_refreshes=True),
    ],
)
def test_linux_is_the_common_router_and_the_symmetric_one(behaviour: object) -> None:
    """With any refusal and any idle lifetime."""
    assert is_linux(behaviour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "behaviour",
    [
        FULL_CONE,
        CARRIER,
        MOBILE,
        replace(HOME, mapping=Mapping.ADDRESS_DEPENDENT),
        replace(HOME, filtering=Filtering.ADDRESS_DEPENDENT),
        replace(HOME, hairpin=Hairpin.INTERNAL_SOURCE),
        replace(HOME, tcp_mapping=Mapping.ADDRESS_DEPENDENT),
        replace(HOME, ports=(1024, 2048)),
        replace(HOME, table_size=10),
        replace(SYMMETRIC, allocation=Allocation.sequential(1)),
    ],
)
def test_linux_is_nothing_else(behaviour: object) -> None:
    """Whatever differs in mapping, filter, allocation, hairpin, range or table is the wire's."""
    assert not is_linux(behaviour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (PRESETS["public"], ()),
        (PRESETS["home"], ("kernel",)),
        (PRESETS["full-cone"], ("user",)),
        (PRESETS["cgn"], ("kernel", "user")),
        (PRESETS["cgn-symmetric"], ("kernel", "kernel")),
        (Profile("x", (FULL_CONE, HOME)), ("user", "user")),
        (Profile("x", (HOME,), ipv6=Ipv6.NAT64), ("user",)),
    ],
)
def test_a_kernel_is_never_outside_of_the_wire(profile: Profile, expected: tuple[str, ...]) -> None:
    """From the inside on, Linux is as many translators as it can; NAT64 it never is."""
    assert choose_translators(profile, with_kernel=True) == expected
    assert choose_translators(profile, with_kernel=False) == ("user",) * len(profile.nats)


def test_lifetimes_become_parameters_in_whole_seconds() -> None:
    """Both of UDP's, for a flow that was answered and one that was not; never zero."""
    found = parameters(replace(HOME, lifetimes=Lifetimes(udp_idle=30.4, tcp_idle=240.0, icmp_idle=0.1)))
    assert {name.rpartition("conntrack_")[2]: value for name, value in found.items()} == {
        "udp_timeout": "30",
        "udp_timeout_stream": "30",
        "tcp_timeout_established": "240",
        "icmp_timeout": "1",
    }


def test_rules_say_what_they_are_for() -> None:
    """Random ports, refusals, IPv6 and a mapping daemon's chains only where they are asked for."""
    plain = rules(HOME, "203.0.113.1", firewalled=False)
    assert "random" not in plain and "reject" not in plain and "mapped" not in plain
    assert "fully-random" in rules(SYMMETRIC, "203.0.113.1", firewalled=False)
    refusing = replace(HOME, unsolicited_syn=UnsolicitedSyn.RST)
    assert "reject with tcp reset" in rules(refusing, "203.0.113.1", firewalled=False)
    assert "jump mapped_in" in rules(HOME, "203.0.113.1", firewalled=False, maps_ports=True)
    assert 'iifname "wan" ct state' in rules(HOME, "203.0.113.1", firewalled=True)
