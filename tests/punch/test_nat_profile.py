"""The profile of a translator: names, port patterns and signs, from discoveries and from samples by hand."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.lab.behaviour import Allocation
from crowline.lab.behaviour import Mapping as LabMapping
from crowline.lab.presets import FULL_CONE, PRESETS, SYMMETRIC
from crowline.lab.profile import Profile
from crowline.punch.nat_profile import (
    AllocationPattern,
    Carrier,
    Facet,
    Filtering,
    Hairpinning,
    Lifetimes,
    Mapping,
    NatProfile,
    PortPattern,
    Reason,
)
from crowline.punch.plan_choice import MappingKind, NatSummary
from crowline.punch.port_pattern import read_ports
from crowline.punch.tcp_profile import TcpProfile
from crowline.stun.nat_findings import Findings, Sample, TcpFindings
from nat_discoveries import discover

SERVER = Address("44.1.0.1", 3478)
SPACING = 0.012

NAMES = {
    "public": ("open internet", AllocationPattern.UNKNOWN),
    "home": ("port restricted cone", AllocationPattern.PRESERVING),
    "full-cone": ("full cone", AllocationPattern.PRESERVING),
    "address-restricted": ("restricted cone", AllocationPattern.PRESERVING),
    "address-dependent": ("symmetric", AllocationPattern.RANDOM),
    "symmetric": ("symmetric", AllocationPattern.RANDOM),
    "symmetric-sequential": ("symmetric", AllocationPattern.SEQUENTIAL),
    "symmetric-block": ("symmetric", AllocationPattern.BLOCK),
    "parity": ("port restricted cone", AllocationPattern.PARITY),
    "hairpin": ("port restricted cone", AllocationPattern.PRESERVING),
    "cgn": ("port restricted cone", AllocationPattern.RANDOM),
    "cgn-symmetric": ("symmetric", AllocationPattern.RANDOM),
    "mobile": ("symmetric", AllocationPattern.RANDOM),
    "short-lived": ("port restricted cone", AllocationPattern.PRESERVING),
    "rst-sender": ("port restricted cone", AllocationPattern.PRESERVING),
    "upnp-home": ("port restricted cone", AllocationPattern.PRESERVING),
    "ipv6-home": ("port restricted cone", AllocationPattern.PRESERVING),
    "udp-blocked": ("UDP blocked", AllocationPattern.UNKNOWN),
    "https-only": ("UDP blocked", AllocationPattern.UNKNOWN),
    "proxy-only": ("UDP blocked", AllocationPattern.UNKNOWN),
    "nat64": ("restricted cone", AllocationPattern.RANDOM),
}


def samples(ports: list[int], local: list[int] | None = None) -> tuple[Sample, ...]:
    inside = local or random.Random(1).sample(range(20000, 60000), len(ports))
    return tuple(
        Sample(Address("10.0.0.2", own), Address("44.100.7.1", port), index * SPACING)
        for index, (own, port) in enumerate(zip(inside, ports, strict=True))
    )


def findings(**changes: object) -> Findings:
    found = Findings(
        SERVER,
        mapping=Mapping.ENDPOINT_INDEPENDENT,
        filtering=Filtering.ENDPOINT_INDEPENDENT,
        hairpinning=Hairpinning.NO,
        samples=samples([5000, 17, 40000, 900, 61000]),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRESETS)
def test_every_place_gets_its_old_name_and_its_port_pattern(name: str) -> None:
    """By RFC 3489 and by how ports are given, as the description has it."""
    profile = NatProfile.of(discover(PRESETS[name]).findings)
    assert (profile.classic_name, profile.ports.kind) == NAMES[name]
    assert profile.words().startswith(profile.classic_name)
    assert (Carrier.PORT_BLOCK in profile.carrier) == (name == "symmetric-block")


@pytest.mark.parametrize("step", [1, 2, -1, 7])
@pytest.mark.parametrize("seed", range(5))
def test_the_step_of_a_sequence_is_measured(step: int, seed: int) -> None:
    """Up and down, and without traffic of others there is none."""
    nat = replace(SYMMETRIC, allocation=Allocation.sequential(step))
    ports = NatProfile.of(discover(Profile("any", (nat,)), seed=seed).findings).ports
    assert (ports.kind, ports.delta) == (AllocationPattern.SEQUENTIAL, step)
    assert ports.cross_traffic == pytest.approx(0.0)
    assert str(ports) == f"sequential {step:+d}"


@pytest.mark.parametrize("rate", [0.0, 10.0, 50.0])
@pytest.mark.parametrize("delta", [1, 2, -1])
def test_the_traffic_of_others_is_measured(rate: float, delta: int) -> None:
    """The step is right in nearly every run, and the rate on average over many."""
    chance = random.Random(7)
    rates, right = [], 0
    for _ in range(300):
        port, ports, time = 30000, [], 0.0
        upcoming = chance.expovariate(rate) if rate else 1e9
        for index in range(10):
            time = index * SPACING
            while upcoming <= time:
                port += delta
                upcoming += chance.expovariate(rate)
            port += delta
            ports.append(port)
        pattern = read_ports(samples(ports))
        assert pattern.kind is AllocationPattern.SEQUENTIAL
        if pattern.delta == delta:
            right += 1
            assert pattern.cross_traffic is not None
            rates.append(pattern.cross_traffic)
    assert right >= 295
    assert sum(rates) / len(rates) == pytest.approx(rate, rel=0.15, abs=0.01)


def test_a_sequence_that_begins_anew_stays_one() -> None:
    """One step from the end of the range to its beginning."""
    pattern = read_ports(samples([65533, 65534, 65535, 1024, 1025, 1026]))
    assert (pattern.kind, pattern.delta, pattern.cross_traffic) == (AllocationPattern.SEQUENTIAL, 1, 0.0)


def test_samples_that_left_at_one_time_tell_no_rate() -> None:
    """The step is known, the traffic is not."""
    at_once = tuple(replace(sample, sent_at=3.0) for sample in samples([10, 11, 12, 13]))
    pattern = read_ports(at_once)
    assert (pattern.delta, pattern.cross_traffic) == (1, None)


@pytest.mark.parametrize("size", [256, 512, 2048])
def test_the_size_of_a_block_is_estimated(size: int) -> None:
    """Right on average; a single estimate is within a factor of three."""
    chance = random.Random(3)
    sizes = []
    for _ in range(200):
        pattern = read_ports(samples([20000 + chance.randrange(size) for _ in range(10)]))
        assert pattern.kind is AllocationPattern.BLOCK
        assert pattern.pool is not None
        assert size / 3 <= pattern.pool <= size * 3
        sizes.append(pattern.pool)
    assert sum(sizes) / len(sizes) == pytest.approx(size, rel=0.1)


def test_random_ports_are_told_from_all_patterns() -> None:
    """Ten of them look like parity once in about a thousand times, and like nothing else."""
    chance = random.Random(5)
    kinds = [
        read_ports(samples([chance.randrange(1024, 65536) for _ in range(10)])).kind for _ in range(2000)
    ]
    assert set(kinds) <= {AllocationPattern.RANDOM, AllocationPattern.PARITY}
    assert kinds.count(AllocationPattern.PARITY) <= 10


@pytest.mark.parametrize("count", [6, 10])
def test_few_ports_of_a_small_block_are_no_sequence(count: int) -> None:
    """They rise or fall by chance but for one step: six ports do so in every sixth block."""
    chance = random.Random(11)
    kinds = [
        read_ports(samples([20000 + chance.randrange(512) for _ in range(count)])).kind for _ in range(2000)
    ]
    assert kinds.count(AllocationPattern.SEQUENTIAL) <= 20


def test_a_port_that_was_taken_does_not_hide_preservation() -> None:
    """Most are kept: the box keeps ports where it can."""
    pattern = read_ports(samples([5000, 5007, 5011, 44444], [5000, 5007, 5011, 5013]))
    assert (pattern.kind, pattern.preserved) == (AllocationPattern.PRESERVING, 0.75)


def test_three_samples_say_nothing() -> None:
    """Unknown, and the profile says why."""
    few = samples([1, 2, 3])
    assert read_ports(few) == PortPattern(AllocationPattern.UNKNOWN)
    profile = NatProfile.of(findings(samples=few))
    assert profile.unknown == {Facet.ALLOCATION: Reason.TOO_FEW_SAMPLES}
    assert "ports unknown (too few sockets were answered)" in profile.words()


def test_what_one_server_address_cannot_tell_is_said() -> None:
    """The name is unknown, the reason is in the words, and the ports are there all the same."""
    profile = NatProfile.of(discover(Profile("any", (FULL_CONE,)), alternates=False).findings)
    assert profile.classic_name == "unknown"
    assert profile.words() == (
        "unknown: mapping unknown (the server has only one address); "
        "filtering unknown (the server has only one address); "
        "hairpinning unknown (only where mappings do not depend on the destination does silence say "
        "anything); ports preserving."
    )


@pytest.mark.parametrize(
    ("mapping", "filtering", "name"),
    [
        (Mapping.NONE, Filtering.ENDPOINT_INDEPENDENT, "open internet"),
        (Mapping.NONE, Filtering.ADDRESS_AND_PORT_DEPENDENT, "symmetric UDP firewall"),
        (Mapping.NONE, Filtering.UNKNOWN, "no translation, filter unknown"),
        (Mapping.ENDPOINT_INDEPENDENT, Filtering.UNKNOWN, "cone, filter unknown"),
        (Mapping.ADDRESS_DEPENDENT, Filtering.ENDPOINT_INDEPENDENT, "symmetric"),
        (Mapping.UNKNOWN, Filtering.ENDPOINT_INDEPENDENT, "unknown"),
    ],
)
def test_old_names(mapping: Mapping, filtering: Filtering, name: str) -> None:
    """The combinations that no preset has."""
    assert NatProfile.of(findings(mapping=mapping, filtering=filtering)).classic_name == name


def test_samples_alone_show_a_carrier() -> None:
    """A shared address inside, several addresses outside."""
    own = [
        replace(sample, local=Address("100.70.0.2", sample.local.port)) for sample in samples([9, 700, 5, 3])
    ]
    own[1] = replace(own[1], mapped=Address("44.100.7.2", 700))
    profile = NatProfile.of(findings(samples=tuple(own)))
    assert {Carrier.SHARED_INSIDE, Carrier.SEVERAL_ADDRESSES} <= set(profile.carrier)
    assert profile.outside_hosts == ("44.100.7.1", "44.100.7.2")


def test_lifetimes_come_later() -> None:
    """They take minutes to measure, and are added then."""
    profile = NatProfile.of(findings()).with_lifetimes(Lifetimes(alive=25.0, dead=40.0))
    assert profile.lifetimes == Lifetimes(25.0, 40.0)


@pytest.mark.parametrize("name", PRESETS)
def test_plans_are_told_what_was_measured(name: str) -> None:
    """The summary of every place: what its description says, in the words of plans."""
    summary = NatProfile.of(discover(PRESETS[name]).findings).summary()
    if NAMES[name][0] == "UDP blocked":
        assert summary == NatSummary(has_udp=False)
        return
    nats = PRESETS[name].nats
    order = [MappingKind.INDEPENDENT, MappingKind.PER_HOST, MappingKind.PER_PORT]
    mapping = max(
        (order[list(LabMapping).index(nat.mapping)] for nat in nats), key=order.index, default=order[0]
    )
    assert summary.has_udp
    assert summary.mapping is mapping
    assert summary.is_hard == (NAMES[name][0] == "symmetric")
    assert summary.looks_at_hosts_only == (
        NAMES[name][0] in ("open internet", "full cone", "restricted cone") or name == "address-dependent"
    )
    assert summary.tcp_mapping is MappingKind.UNKNOWN


def tcp_findings(mapping: Mapping, ports: list[int], local: list[int] | None = None) -> TcpFindings:
    return TcpFindings(SERVER, mapping, samples=samples(ports, local))


def test_tcp_is_told_apart_from_udp() -> None:
    """A translator that varies for UDP, and keeps one port for TCP: that is where TCP leads across."""
    hard = NatProfile.of(findings(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT))
    kept = list(range(5000, 5060, 10))
    profile = hard.with_tcp(TcpProfile.of(tcp_findings(Mapping.ENDPOINT_INDEPENDENT, kept, kept)))
    assert profile.tcp is not None
    assert (profile.summary().mapping, profile.summary().tcp_mapping) == (
        MappingKind.PER_PORT,
        MappingKind.INDEPENDENT,
    )
    assert (
        "TCP: mapping endpoint-independent; filtering unknown; hairpinning unknown; ports" in profile.words()
    )


def test_tcp_without_a_translator_has_no_pattern_of_ports() -> None:
    """There is nobody who gives them out."""
    profile = TcpProfile.of(tcp_findings(Mapping.NONE, [5, 9], [5, 9]))
    assert profile.unknown[Facet.ALLOCATION] is Reason.NO_TRANSLATION
    assert "ports" not in profile.words()


def test_silent_tcp_is_said() -> None:
    """In a sentence, and with nothing known."""
    profile = TcpProfile.of(TcpFindings(SERVER, unknown={Facet.MAPPING: Reason.NO_ANSWER}))
    assert not profile.answers
    assert profile.words() == "TCP: the server did not answer."


def test_what_is_likely_is_not_said_as_if_it_were_certain() -> None:
    """A server with one address and two ports tells nearly all there is, and the reason for doubt is said."""
    profile = NatProfile.of(discover(Profile("any", (FULL_CONE,)), alternates=False, ports=2).findings)
    assert profile.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert "mapping probably endpoint-independent (the server has only one address)" in profile.words()
    assert profile.summary().mapping is MappingKind.INDEPENDENT


@pytest.mark.parametrize("name", ["public", "symmetric-sequential", "udp-blocked"])
def test_programs_get_plain_values(name: str) -> None:
    """What JSON can write, with the reasons in words."""
    profile = NatProfile.of(discover(PRESETS[name]).findings).with_tcp(
        TcpProfile.of(tcp_findings(Mapping.ENDPOINT_INDEPENDENT, [1, 2, 3, 4, 5]))
    )
    told = json.loads(json.dumps(profile.as_dict()))
    assert told["classic"] == profile.classic_name
    assert told["udp"]["mapping"] == profile.mapping.value
    assert told["udp"]["unknown"] == {facet.value: why.value for facet, why in profile.unknown.items()}
    assert told["tcp"]["ports"]["delta"] == 1
    assert told["lifetimes"] is None


def test_lifetimes_are_said_as_far_as_they_are_known() -> None:
    """Between two times, beyond one, or not at all."""
    measured = Lifetimes(alive=25.0, dead=35.0, busy_alive=300.0)
    assert measured.words() == "idle mappings live 25 s, and not 35 s; busy ones live 300 s and longer."
    assert json.loads(json.dumps(measured.as_dict()))["idle_dead"] == 35.0
    profile = NatProfile.of(findings()).with_lifetimes(Lifetimes(reason=Reason.ONE_ADDRESS))
    assert profile.as_dict()["lifetimes"]["idle_unknown"] == "the server has only one address"
    assert "idle mappings live for an unknown time (the server has only one address)" in profile.words()
