"""The self-test in the kernel: what packets show there is what profiles say, and what virtual time shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from crowline.lab.behaviour import Hairpin, Lifetimes, UnsolicitedSyn
from crowline.lab.kernel_bench import KernelBench
from crowline.lab.namespaces import Internet
from crowline.lab.presets import CARRIER, FULL_CONE, HOME, PRESETS, SYMMETRIC
from crowline.lab.profile import Firewall, Ipv6, PortMapping, Profile
from crowline.lab.selftest import measure, run
from crowline.lab.sites import choose_translators
from crowline.lab.virtual_bench import VirtualBench

Factory = Callable[..., Internet]

# What nftables is in the presets, and the wire must be too where nft is missing.
OF_LINUX = [
    name
    for name, profile in PRESETS.items()
    if "kernel" in choose_translators(profile, with_kernel=True)
    and profile.port_mapping is PortMapping.NONE
    and profile.firewall is Firewall.NONE
]

OTHERS = {
    "refuses by ICMP, in nftables": Profile("x", (replace(HOME, unsolicited_syn=UnsolicitedSyn.ICMP),)),
    "refuses by ICMP, on the wire": Profile("x", (replace(FULL_CONE, unsolicited_syn=UnsolicitedSyn.ICMP),)),
    "refuses by RST, on the wire": Profile("x", (replace(FULL_CONE, unsolicited_syn=UnsolicitedSyn.RST),)),
    "turns with inside sources": Profile("x", (replace(HOME, hairpin=Hairpin.INTERNAL_SOURCE),)),
    "IPv6 through two kernels": Profile("x", (HOME, SYMMETRIC), ipv6=Ipv6.FIREWALLED),
    "IPv6 through kernel and wire": Profile("x", (HOME, CARRIER), ipv6=Ipv6.OPEN),
    "three layers": Profile("x", (HOME, SYMMETRIC, FULL_CONE), ipv6=Ipv6.FIREWALLED),
    "a firewall without translator": Profile("x", (), ipv6=Ipv6.FIREWALLED),
    "a public host without UDP": Profile("x", (), firewall=Firewall.UDP_BLOCKED),
    "a busy mapping that ends": Profile("x", (replace(HOME, lifetimes=Lifetimes(absolute=60.0)),)),
}


def assert_both_worlds_agree(profile: Profile, net: Internet) -> None:
    with KernelBench(profile, net) as bench:
        report = run(profile, bench)
    assert report.differences == []
    assert report.measured == measure(VirtualBench(profile))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_as_described(internet: Factory, name: str) -> None:
    """Mapping, filtering, allocation, hairpin, refusals, reach and lifetimes, by nftables where it can."""
    assert_both_worlds_agree(PRESETS[name], internet("kernel"))


@pytest.mark.parametrize("name", OF_LINUX)
def test_the_wire_is_what_linux_is(internet: Factory, name: str) -> None:
    """Where nftables is missing the wire translates, and no probe can tell."""
    assert_both_worlds_agree(PRESETS[name], internet("user"))


@pytest.mark.parametrize("what", OTHERS)
def test_other_places_are_as_described(internet: Factory, what: str) -> None:
    """What no preset has: layers with IPv6, other refusals, other hairpins."""
    assert_both_worlds_agree(OTHERS[what], internet("kernel"))


def test_the_self_test_notices_a_wrong_place(internet: Factory) -> None:
    """A place that was built as another one than it is described as does not pass."""
    with KernelBench(PRESETS["short-lived"], internet()) as bench:
        report = run(PRESETS["symmetric"], bench)
    wrong = {difference.partition(":")[0] for difference in report.differences}
    assert wrong == {"mapping", "allocation", "tcp_mapping", "udp_idle"}
