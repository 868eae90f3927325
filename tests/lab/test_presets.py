"""The named places of the world: complete, described, and the same after a way through JSON."""

from __future__ import annotations

import re

import msgspec
import pytest

from crowline.base.errors import UsageError
from crowline.lab.behaviour import AllocationKind, Filtering, Hairpin, Mapping, UnsolicitedSyn
from crowline.lab.presets import HOME, PRESETS, preset
from crowline.lab.profile import Firewall, Ipv6, PortMapping, Profile

WORDS = re.compile(r"mapping|filter|RFC \d{4}|As home|public address", re.IGNORECASE)


@pytest.mark.parametrize("profile", list(PRESETS.values()), ids=list(PRESETS))
def test_every_preset_says_what_it_is_in_the_terms_of_the_rfcs(profile: Profile) -> None:
    """A summary of a sentence at least, with mapping and filtering or the preset that it is like."""
    assert len(profile.summary) > 40
    assert profile.summary.endswith(".")
    assert WORDS.search(profile.summary)


@pytest.mark.parametrize("profile", list(PRESETS.values()), ids=list(PRESETS))
def test_profiles_survive_json(profile: Profile) -> None:
    """Another process builds the very same place from the text."""
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile


def test_together_the_presets_have_every_kind() -> None:
    """Every mapping, filter, allocation, firewall and layer count is there under some name."""
    nats = [nat for profile in PRESETS.values() for nat in profile.nats]
    assert {nat.mapping for nat in nats} == set(Mapping)
    assert {nat.filtering for nat in nats} == set(Filtering)
    assert {nat.allocation.kind for nat in nats} == set(AllocationKind)
    assert {profile.firewall for profile in PRESETS.values()} == set(Firewall)
    assert {len(profile.nats) for profile in PRESETS.values()} == {0, 1, 2}
    assert {profile.ipv6 for profile in PRESETS.values()} >= {Ipv6.NONE, Ipv6.FIREWALLED, Ipv6.NAT64}
    assert {nat.unsolicited_syn for nat in nats} >= {UnsolicitedSyn.DROP, UnsolicitedSyn.RST}
    assert {nat.hairpin for nat in nats} >= {Hairpin.NONE, Hairpin.EXTERNAL_SOURCE}
    assert any(nat.lifetimes.absolute for nat in nats)
    assert any(profile.port_mapping is not PortMapping.NONE for profile in PRESETS.values())


def test_an_unknown_preset_is_refused_with_those_that_exist() -> None:
    """The sentence helps whoever mistyped a name."""
    with pytest.raises(UsageError, match=r"hoome is no preset.*public, home, full-cone"):
        preset("hoome")


def test_profiles_that_contradict_themselves_are_refused() -> None:
    """A port mapping needs a translator, and NAT64 is the only one of its place."""
    with pytest.raises(UsageError):
        Profile("test", port_mapping=PortMapping.PCP)
    with pytest.raises(UsageError):
        Profile("test", (HOME, HOME), ipv6=Ipv6.NAT64)
