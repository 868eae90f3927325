"""The verdict of two, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.diagnosis.diagnosis import diagnose
from crowline.diagnosis.facts import Facts, FamilyFacts, FirewallFacts, RouterFacts, ServerFacts, Stance
from crowline.diagnosis.pair_messages import SideFacts, SideResult
from crowline.diagnosis.pair_report import Measure, PairReport
from crowline.diagnosis.pair_side import side_of
from crowline.diagnosis.pair_trial import PairTrial, Result
from crowline.ice.candidate import CandidateType
from crowline.punch.nat_profile import (
    AllocationPattern,
    Filtering,
    Hairpinning,
    Mapping,
    NatProfile,
    PortPattern,
)
from crowline.punch.obstacle import obstacle
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice

HARD = SideFacts.of(NatSummary(MappingKind.PER_PORT, FilterKind.PER_PORT, PortChoice.RANDOM), nat="symmetric")
DIRECT = Measure("direct", "udp", "44.1.1.1:1", "44.1.2.1:2", "why", 0.0241, 0.02, 11e6, 5e6)
RELAYED = replace(DIRECT, kind="relay", up=None, down=None)
TRIAL = PairTrial(
    Address("192.168.1.2", 1),
    Address("44.1.1.1", 1),
    CandidateType.SERVER_REFLEXIVE,
    Address("44.1.2.1", 2),
    CandidateType.SERVER_REFLEXIVE,
    Transport.UDP,
    Result.SILENT,
)


def report(best: Measure | None, own: SideFacts = HARD) -> PairReport:
    trials = (replace(TRIAL, result=Result.WORKS), TRIAL, replace(TRIAL, result=Result.UNTRIED))
    words = "" if best is not None and best.is_direct else obstacle(own.summary, HARD.summary)
    return PairReport(own, HARD, trials, best, RELAYED, words, 30.04, 120.06, SideResult(5, 2))


@pytest.mark.parametrize(
    ("best", "verdict", "code"),
    [
        (DIRECT, "direct", 0),
        (replace(DIRECT, kind="lan"), "direct", 0),
        (RELAYED, "relay", 20),
        (replace(DIRECT, kind="hub"), "server", 20),
        (None, "server", 20),
    ],
)
def test_the_verdict_is_that_of_the_best_path(best: Measure | None, verdict: str, code: int) -> None:
    """And so is the exit code."""
    made = report(best)
    assert (made.verdict, made.exit_code, made.to_fields()["exit"]) == (verdict, code, code)


def test_no_udp_has_an_exit_code_of_its_own() -> None:
    """Where it hinders: a direct path over TCP is as good."""
    blocked = SideFacts.of(NatSummary(has_udp=False))
    assert report(RELAYED, blocked).exit_code == 21
    assert report(DIRECT, blocked).exit_code == 0


def test_two_random_nats_are_the_reason_for_the_relay() -> None:
    """The person reads it in one sentence."""
    assert report(RELAYED).sentence == (
        "You two connect through a relay only: both NATs draw a new random port for each destination."
    )
    assert report(None).sentence.startswith("You two connect through the server's own connection only: ")
    assert report(DIRECT).sentence == "You two connect directly."


def test_programs_get_everything() -> None:
    """Plain values, with the schema's name; what was not tried counts as nothing."""
    fields = json.loads(json.dumps(report(DIRECT).to_fields()))
    assert fields["schema"] == "doctor/1"
    assert fields["best"] == {
        "kind": "direct",
        "transport": "udp",
        "local": "44.1.1.1:1",
        "remote": "44.1.2.1:2",
        "rtt_ms": 24.1,
        "loss": 0.02,
        "up": 11e6,
        "down": 5e6,
        "reason": "why",
    }
    assert [each["result"] for each in fields["pairs"]] == ["works", "silent", "untried"]
    assert (fields["peer_tried"], fields["peer_worked"]) == (5, 2)
    assert fields["you"]["mapping"] == "per_port" and fields["peer"]["nat"] == "symmetric"
    assert (fields["setup_ms"], fields["direct_ms"]) == (30.0, 120.1)
    assert report(DIRECT).result == SideResult(2, 1)


def profile(mapping: Mapping, answers: bool = True) -> NatProfile:
    return NatProfile(
        answers=answers,
        mapping=mapping,
        filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT,
        hairpinning=Hairpinning.UNKNOWN,
        ports=PortPattern(AllocationPattern.RANDOM),
        outside_hosts=("44.1.1.1",),
    )


def facts(nat: NatProfile | None) -> Facts:
    return Facts(
        server=ServerFacts(url="ws://44.1.0.1:8080", is_reached=True, has_stun=True),
        ipv4=FamilyFacts(hosts=("192.168.7.7",), has_route=True, nat=nat),
        routers=(RouterFacts("192.168.7.1", ("upnp",), "44.1.1.1"),),
        firewalls=(FirewallFacts("ufw", inbound=Stance.BLOCKS),),
    )


def test_a_side_tells_kinds_and_no_addresses() -> None:
    """Neither its own nor its router's: the other side learns candidates, and nothing else."""
    found = facts(profile(Mapping.ADDRESS_AND_PORT_DEPENDENT))
    side = side_of(found, diagnose(found))
    assert side.nat == "symmetric, ports random"
    assert side.routers == ("upnp",) and "ufw" in side.firewall
    assert not any(host in str(side) for host in ("192.168.7", "44.1.1.1"))


@pytest.mark.parametrize(
    ("nat", "words"),
    [
        (None, "not measured"),
        (profile(Mapping.UNKNOWN, answers=False), "no UDP comes back"),
        (profile(Mapping.NONE), "symmetric UDP firewall"),
    ],
)
def test_a_nat_is_one_line(nat: NatProfile | None, words: str) -> None:
    """Whatever was learnt of it."""
    found = facts(nat)
    assert side_of(found, diagnose(found)).nat == words
