"""Plans for hard NATs against a hostile other side: whom it can make us send to, how much, and how often."""

from __future__ import annotations

import json
from itertools import product

import pytest

from conducted import EASY, OWN, PEER, POOL, RANDOM, VICTIM, Conducted
from crowline.punch.conductor import (
    MAX_CALLS,
    MAX_VOUCHES,
)
from crowline.punch.conductor_events import (
    PlanBegun,
    PlanOver,
    VouchWanted,
)
from crowline.punch.plan_memory import MAX_BYTES, PlanMemory
from crowline.punch.punch_signals import PunchCall, PunchOver, PunchProfile, PunchReady
from crowline.punch.round import RoundOutcome
from crowline.punch.spray_budget import MAX_HOSTS, MAX_PACKETS, RATE, REST, SprayBudget, SprayQuota
from crowline.rendezvous.signals import MAX_SIGNAL, MalformedSignal, decode, encode


def called(way: str, opens: str, number: int) -> PunchCall:
    return PunchCall(number, way, opens)  # type: ignore[arg-type]


MUTUAL, ONE_SIDED = ("low-ttl", "predict-both"), ("peer-first", "same-port", "predict-one", "spray")
SIDES = ("caller", "callee")
CALLS = [*product(MUTUAL, ["both"]), *product(ONE_SIDED, SIDES)]
MISFITS = [*product(ONE_SIDED, ["both"]), *product(MUTUAL, SIDES)]


@pytest.mark.parametrize(("way", "opens"), CALLS)
def test_nobody_can_have_a_third_party_sprayed(way: str, opens: str) -> None:
    """The hub vouches for nobody whom it has not seen: the victim gets no packet by any way."""
    side = Conducted(leads=False, vouches=False).met(EASY, RANDOM)
    side.conductor.host_proven(PEER, 0.0)
    side.hear(called(way, opens, 1))
    side.ready(host=VICTIM, ports=(53, 80, 443), pool=POOL)
    side.run(30.0)
    assert side.sent == []
    assert VouchWanted(VICTIM) in side.found(VouchWanted)


def test_a_second_host_in_mid_round_is_not_sent_to() -> None:
    """What a side has told in a round stands; the proof of one host is none of another."""
    side = Conducted(leads=False).met(EASY, RANDOM)
    side.vouches = False
    side.hear(called("spray", "caller", 1))
    side.ready(pool=POOL)
    side.ready(host=VICTIM, pool=POOL)
    side.run(30.0)
    assert {probe.destination.host for _, probe in side.sent} == {PEER}


def test_no_leader_gets_more_packets_out_of_us_than_one_spray_has() -> None:
    """Round after round of the dearest way, for as long as the host has no rest: 1,300, 250 a second."""
    side = Conducted(leads=False).met(EASY, RANDOM)
    for number in range(1, 60):
        side.hear(called("spray", "caller", number))
        side.ready(pool=POOL)
        side.run(side.now + 0.3)
    assert len(side.sent) == MAX_PACKETS
    times = [at for at, _ in side.sent]
    for first, later in zip(times, times[RATE:], strict=False):
        assert later - first > 0.9


def test_a_host_that_rests_gets_as_much_again_and_no_more() -> None:
    """In an hour of calls the rate stays far below one spray in twenty seconds' rest."""
    side = Conducted(leads=False).met(EASY, RANDOM)
    for number in range(1, MAX_CALLS + 50):
        side.hear(called("spray", "caller", number))
        side.ready(pool=POOL)
        side.run(side.now + 6.0)
    assert len(side.found(PlanBegun)) == MAX_CALLS
    assert len(side.sent) <= MAX_PACKETS * (1 + side.now / REST)


def test_the_hub_is_not_asked_about_the_whole_internet() -> None:
    """Few questions a meeting, and none about what is no IPv4 address in its one form."""
    side = Conducted(leads=False, vouches=False).met(EASY, RANDOM)
    for number in range(100):
        side.hear(PunchProfile(host=f"192.0.2.{number}"))
        side.hear(called("spray", "caller", number + 1))
        side.ready(host=f"198.51.100.{number + 100}", pool=POOL)
    assert len(side.found(VouchWanted)) <= MAX_VOUCHES
    other = Conducted(leads=False, vouches=False)
    for host in ("", "localhost", "1.2.3", "01.2.3.4", "::1", "2001:db8::1", "1.2.3.4 ", "1.2.3.4%eth0", "²"):
        other.hear(PunchProfile(host=host))
    assert other.found(VouchWanted) == []


def test_no_number_of_proven_hosts_fills_the_memory() -> None:
    """Whoever has many addresses may prove each of them: the first so many count."""
    side = Conducted(leads=False, vouches=False).met(EASY, RANDOM)
    for number in range(MAX_HOSTS + 50):
        side.conductor.host_proven(f"192.0.2.{number}", 0.0)
    proven = [number for number in range(MAX_HOSTS + 50) if side.budget.is_proven(f"192.0.2.{number}")]
    assert proven == list(range(MAX_HOSTS))
    side.hear(called("spray", "caller", 1))
    side.ready(host=f"192.0.2.{MAX_HOSTS}", pool=POOL)
    side.run(30.0)
    assert side.sent == []


def test_words_of_the_future_are_unknown_and_no_error() -> None:
    """A newer version's profile is one of which nothing is known."""
    text = b'{"t":"punch-profile","mapping":"telepathic","filtering":"__class__","ports":"name","host":"x"}'
    profile = decode(text)
    assert isinstance(profile, PunchProfile)
    assert profile.summary.mapping.name == profile.summary.filtering.name == "UNKNOWN"


MALFORMED = {
    "port 0": {"t": "punch-ready", "round": 1, "host": PEER, "ports": [0]},
    "port 65,536": {"t": "punch-ready", "round": 1, "host": PEER, "ports": [65536]},
    "65 ports": {"t": "punch-ready", "round": 1, "host": PEER, "ports": [1] * 65},
    "a text for a port": {"t": "punch-ready", "round": 1, "host": PEER, "ports": ["1"]},
    "a long host": {"t": "punch-ready", "round": 1, "host": "1" * 46},
    "a pool the wrong way round": {
        "t": "punch-ready", "round": 1, "host": PEER, "pool": {"low": 9, "high": 8, "size": 1},
    },
    "an endless pool": {
        "t": "punch-ready", "round": 1, "host": PEER, "pool": {"low": 1, "high": 9, "size": 2**40},
    },
    "a step of 0": {
        "t": "punch-ready", "round": 1, "host": PEER, "pool": {"low": 1, "high": 9, "size": 5, "step": 0},
    },
    "round 0": {"t": "punch-call", "round": 0, "way": "spray", "opens": "caller"},
    "round 10,001": {"t": "punch-call", "round": 10_001, "way": "spray", "opens": "caller"},
    "no way": {"t": "punch-call", "round": 1, "way": "everything", "opens": "caller"},
    "nobody opens": {"t": "punch-call", "round": 1, "way": "spray", "opens": "nobody"},
    "a long reason": {"t": "punch-over", "round": 1, "reason": "x" * 33},
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_signals_are_refused(name: str) -> None:
    """Before anything is done with them."""
    with pytest.raises(MalformedSignal):
        decode(json.dumps(MALFORMED[name]).encode())


def test_the_largest_signals_fit() -> None:
    """What an honest side says at most."""
    ready = PunchReady(200, "255.255.255.255", tuple(range(65_000, 65_064)), POOL)
    for signal in (
        ready,
        PunchProfile.of(RANDOM, OWN),
        called("predict-both", "callee", 200),
        PunchOver(1, "x"),
    ):
        assert decode(encode(signal)) == signal
        assert len(encode(signal)) < MAX_SIGNAL / 4


@pytest.mark.parametrize(("way", "opens"), CALLS)
def test_a_ready_that_lacks_what_the_way_needs_ends_the_round(way: str, opens: str) -> None:
    """No port, no pool: nothing is guessed in its place."""
    side = Conducted(leads=False).met(RANDOM, RANDOM)
    side.hear(called(way, opens, 1))
    side.ready()
    side.run(30.0)
    assert side.sent == []
    assert len(side.found(PlanOver)) == 1


@pytest.mark.parametrize(("way", "opens"), MISFITS)
def test_a_call_that_makes_no_sense_is_none(way: str, opens: str) -> None:
    """A way of one opener without one, and one of two with one."""
    side = Conducted(leads=False).met(RANDOM, RANDOM)
    side.hear(called(way, opens, 1))
    side.run(30.0)
    assert side.found(PlanBegun) == [] and side.asked == []


def test_two_meetings_of_one_machine_share_its_packets() -> None:
    """A second meeting with the same peer gets it no second helping, and its sprays wait for the first."""
    quota = SprayQuota()
    sides = [Conducted(leads=False, budget=SprayBudget(quota), seed=seed) for seed in (1, 2)]
    for side in sides:
        side.met(EASY, RANDOM)
        side.hear(called("spray", "caller", 1))
        side.ready(pool=POOL)
    assert [len(side.sent) for side in sides] == [1, 0]
    assert [event.outcome for event in sides[1].found(PlanOver)] == [RoundOutcome.LIMITED]
    sides[0].run(6.0)
    sides[1].run(6.0)
    sides[1].hear(called("spray", "caller", 2))
    sides[1].ready(pool=POOL)
    sides[1].run(12.0)
    assert sum(len(side.sent) for side in sides) == quota.sent == MAX_PACKETS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"k": {"spray/own": 99}}',
        b'{"k": {"spray/own": "2"}}',
        b'{"k": {"' + b"x" * 33 + b'": 1}}',
        b'{"' + b"k" * 65 + b'": {}}',
        b'{"k": {}}' + b" " * MAX_BYTES,
    ],
)
def test_a_memory_that_somebody_has_changed_is_empty(data: bytes) -> None:
    """Files of a user's folder are written by other programs too."""
    memory = PlanMemory.load(data)
    assert memory.dump() == b"{}"
    memory.worked("k", "spray/own")
    assert memory.scores("k") == {"spray/own": 3}
