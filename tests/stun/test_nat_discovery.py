"""Discovery of NAT behaviour against every place of the laboratory, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from crowline.base.addresses import Address
from crowline.lab import behaviour
from crowline.lab.presets import FULL_CONE, HOME, PRESETS, SYMMETRIC
from crowline.lab.profile import Firewall, Profile
from crowline.stun.nat_discovery import MAX_PACKETS
from crowline.stun.nat_findings import Facet, Filtering, Hairpinning, Mapping, Reason
from nat_discoveries import OTHER, SERVER, discover

REACHED = [profile for profile in PRESETS.values() if profile.firewall is Firewall.NONE]
CUT_OFF = [profile for profile in PRESETS.values() if profile.firewall is not Firewall.NONE]
LONGEST = 2.0  # seconds

FILTERINGS = list(behaviour.Filtering)
MAPPINGS = list(behaviour.Mapping)
ALLOCATIONS = (
    behaviour.Allocation.PRESERVING,
    behaviour.Allocation.RANDOM,
    behaviour.Allocation.sequential(),
)


def expected(profile: Profile) -> tuple[str, str]:
    """Mapping and filtering by the description: of layers in a row the strictest counts."""
    if not profile.nats:
        return Mapping.NONE.value, Filtering.ENDPOINT_INDEPENDENT.value
    mapping = max((nat.mapping for nat in profile.nats), key=MAPPINGS.index)
    filtering = max((nat.filtering for nat in profile.nats), key=FILTERINGS.index)
    return mapping.value, filtering.value


def expected_hairpin(profile: Profile) -> Hairpinning:
    """The outermost layer turns packets round; silence means something only where mappings do not vary."""
    if not profile.nats or expected(profile)[0] != Mapping.ENDPOINT_INDEPENDENT.value:
        return Hairpinning.UNKNOWN
    return Hairpinning(profile.nats[-1].hairpin.value)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("profile", REACHED, ids=lambda profile: profile.name)
def test_every_place_is_recognised_within_two_seconds(profile: Profile, seed: int) -> None:
    """What is said equals the description, is said in time and costs no more packets than allowed."""
    run = discover(profile, seed=seed)
    found = run.findings
    assert (found.mapping.value, found.filtering.value) == expected(profile)
    assert found.hairpinning is expected_hairpin(profile)
    assert run.seconds <= LONGEST
    assert len(run.sent) <= MAX_PACKETS
    assert found.round_trip == pytest.approx(0.04)
    assert len(found.samples) == 10
    assert {Facet.MAPPING, Facet.FILTERING}.isdisjoint(found.unknown)


@pytest.mark.parametrize("profile", CUT_OFF, ids=lambda profile: profile.name)
def test_where_udp_is_blocked_everything_is_unknown(profile: Profile) -> None:
    """Silence ends in time and is the reason for all."""
    run = discover(profile)
    assert run.findings.samples == ()
    assert run.findings.unknown == dict.fromkeys(
        (Facet.MAPPING, Facet.FILTERING, Facet.HAIRPINNING), Reason.NO_ANSWER
    )
    assert run.seconds <= LONGEST
    assert len(run.sent) <= MAX_PACKETS


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=str)
@pytest.mark.parametrize("filtering", FILTERINGS, ids=lambda each: each.value)
@pytest.mark.parametrize("mapping", MAPPINGS, ids=lambda each: each.value)
def test_every_combination_of_mapping_and_filtering_is_told_apart(
    mapping: behaviour.Mapping, filtering: behaviour.Filtering, allocation: behaviour.Allocation
) -> None:
    """All nine of RFC 4787, whatever the ports."""
    nat = behaviour.NatBehaviour(mapping, filtering, allocation)
    found = discover(Profile("any", (nat,))).findings
    assert (found.mapping.value, found.filtering.value) == (mapping.value, filtering.value)


@pytest.mark.parametrize("kind", list(behaviour.Hairpin), ids=lambda kind: kind.value)
@pytest.mark.parametrize("filtering", FILTERINGS, ids=lambda each: each.value)
def test_hairpinning_shows_its_kind_whatever_the_filter(
    kind: behaviour.Hairpin, filtering: behaviour.Filtering
) -> None:
    """Both sockets send, so that a filter is open on one of them."""
    nat = replace(HOME, hairpin=kind, filtering=filtering)
    found = discover(Profile("any", (nat,))).findings
    assert found.hairpinning.value == kind.value


def test_a_symmetric_box_that_hairpins_is_seen_where_its_filter_lets_it() -> None:
    """The port is another one than the server saw, the host the same."""
    nat = replace(
        SYMMETRIC,
        hairpin=behaviour.Hairpin.EXTERNAL_SOURCE,
        filtering=behaviour.Filtering.ENDPOINT_INDEPENDENT,
    )
    assert discover(Profile("any", (nat,))).findings.hairpinning is Hairpinning.EXTERNAL_SOURCE


def test_silence_behind_a_varying_mapping_says_nothing_about_hairpinning() -> None:
    """Unknown, with the reason."""
    found = discover(PRESETS["symmetric"]).findings
    assert found.unknown == {Facet.HAIRPINNING: Reason.HIDDEN_BY_MAPPING}


def test_ipv6_without_translation_shows_its_firewall() -> None:
    """No translation, and the filter of a stateful firewall."""
    found = discover(PRESETS["ipv6-home"], ipv6=True).findings
    assert found.mapping is Mapping.NONE
    assert found.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT
    assert found.unknown == {Facet.HAIRPINNING: Reason.NO_TRANSLATION}


@pytest.mark.parametrize("profile", REACHED, ids=lambda profile: profile.name)
def test_one_server_address_is_said_to_be_the_reason(profile: Profile) -> None:
    """Mapping and filtering are unknown, but for the mapping of who has none; ports are seen all the same."""
    run = discover(profile, alternates=False)
    found = run.findings
    assert found.unknown[Facet.FILTERING] is Reason.ONE_ADDRESS
    if profile.nats:
        assert (found.mapping, found.unknown[Facet.MAPPING]) == (Mapping.UNKNOWN, Reason.ONE_ADDRESS)
    else:
        assert found.mapping is Mapping.NONE
    assert found.other is None
    assert len(found.samples) == 10
    assert {transmit.destination.host for transmit in run.sent}.isdisjoint({OTHER.host})
    assert run.seconds <= LONGEST


def test_the_filtering_tests_come_from_a_socket_that_sent_nothing_elsewhere() -> None:
    """One socket alone talks to the second address, and it is not the one whose filter is tested."""
    run = discover(PRESETS["symmetric"])
    to_other = {each.local for each in run.sent if each.destination.host == OTHER.host}
    changing = {each.local for each in run.sent if b"\x00\x03\x00\x04" in bytes(each.data)}
    assert len(to_other) == len(changing) == 1
    assert to_other.isdisjoint(changing)
    assert {each.destination for each in run.sent if each.local in changing} == {SERVER}


def test_nothing_else_is_sent_while_ports_are_sampled() -> None:
    """The first packets are the samples, in the order of the sockets: a sequence shows its step."""
    run = discover(PRESETS["symmetric-sequential"])
    assert [each.local for each in run.sent[:10]] == [sample.local for sample in run.findings.samples]
    ports = [sample.mapped.port for sample in run.findings.samples]
    assert {(after - before) % 64512 for before, after in pairwise(ports)} == {1}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("profile", REACHED, ids=lambda profile: profile.name)
def test_the_end_is_foreseen_in_a_third_of_the_time(profile: Profile, seed: int) -> None:
    """Mapping and ports are known by then; what silence is for has the right value, and a doubt."""
    run = discover(profile, seed=seed, foresees=True)
    final = run.findings
    if run.foreseen is None:
        assert run.seconds < 0.3
        return
    time, early = run.foreseen
    assert time < 0.33
    assert run.seconds > 0.6
    assert (early.mapping, early.samples) == (final.mapping, final.samples)
    assert (early.filtering, early.hairpinning) == (final.filtering, final.hairpinning)
    doubts = {facet for facet, reason in early.unknown.items() if reason is Reason.STILL_ASKED}
    if final.filtering in (Filtering.ADDRESS_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT):
        assert Facet.FILTERING in doubts
    assert Reason.STILL_ASKED not in final.unknown.values()


@pytest.mark.parametrize("delay", [0.06, 0.1, 0.15, 0.3, 0.5])
@pytest.mark.parametrize("name", ["full-cone", "home"])
def test_on_a_long_way_silence_is_not_foreseen_before_an_answer_could_be_there(
    name: str, delay: float
) -> None:
    """The answers that show the mapping are the yardstick: the others left at the same time."""
    run = discover(PRESETS[name], delay=delay, foresees=True)
    if run.foreseen is not None:
        time, early = run.foreseen
        assert (early.mapping, early.filtering) == (run.findings.mapping, run.findings.filtering)
        # One round trip for the samples, two for silence.
        assert time >= 3 * 2 * delay
        assert time < run.seconds - 0.1


def test_a_further_server_that_is_silent_delays_no_foresight() -> None:
    """The server itself has shown the mapping by its second address."""
    silent = Address("44.3.0.1", 3478)
    run = discover(PRESETS["home"], others=(silent,), mute=(silent,), foresees=True)
    assert run.foreseen is not None
    assert run.foreseen[0] < 0.33


def test_nothing_is_foreseen_where_nobody_answers_or_nobody_asks() -> None:
    """The end is all there is."""
    assert discover(PRESETS["udp-blocked"], foresees=True).foreseen is None
    assert discover(PRESETS["home"]).foreseen is None


@pytest.mark.parametrize(
    ("delay", "seconds"), [(0.005, 0.9), (0.02, 0.9), (0.1, 1.85), (0.3, 2.3)], ids=lambda each: str(each)
)
def test_silence_is_believed_sooner_where_the_way_is_short(delay: float, seconds: float) -> None:
    """And not too soon where it is long: a full cone is still seen to be one."""
    port_restricted = discover(PRESETS["home"], delay=delay)
    assert port_restricted.seconds <= seconds
    assert port_restricted.findings.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT
    assert discover(PRESETS["full-cone"], delay=delay).findings.filtering is Filtering.ENDPOINT_INDEPENDENT


def test_where_samples_were_lost_silence_is_listened_to_for_longer() -> None:
    """The tests are as patient as they were meant to be."""
    times = []
    for seed in range(20):
        run = discover(PRESETS["home"], seed=seed, loss=0.1)
        times.append(run.seconds)
    assert max(times) > 1.5
    assert min(times) < 1.0


def test_loss_does_not_change_what_is_said() -> None:
    """With three packets in a hundred lost, requests that are repeated tell loss from a filter."""
    wrong = 0
    for seed in range(30):
        found = discover(Profile("full", (FULL_CONE,)), seed=seed, loss=0.03).findings
        wrong += found.filtering is not Filtering.ENDPOINT_INDEPENDENT
        wrong += found.mapping is not Mapping.ENDPOINT_INDEPENDENT
    assert wrong == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_fewer_sockets_teach_less(count: int) -> None:
    """Each facet needs its own socket, and what is missing is said."""
    found = discover(PRESETS["home"], bases=count).findings
    missing = {facet for facet, reason in found.unknown.items() if reason is Reason.TOO_FEW_SOCKETS}
    assert (Facet.MAPPING in missing, Facet.FILTERING in missing, Facet.HAIRPINNING in missing) == (
        count < 1, count < 2, count < 4,
    )  # fmt: skip
