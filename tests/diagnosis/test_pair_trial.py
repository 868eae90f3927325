"""Why a pair of addresses works or does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.diagnosis.pair_trial import PairTrial, Result, ranked
from crowline.ice.candidate import CandidateType
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice

EASY = NatSummary(MappingKind.INDEPENDENT, FilterKind.PER_PORT, PortChoice.PRESERVING)
HARD = NatSummary(MappingKind.PER_PORT, FilterKind.PER_PORT, PortChoice.RANDOM)
HOST, SRFLX, PRFLX, RELAY = (
    CandidateType.HOST,
    CandidateType.SERVER_REFLEXIVE,
    CandidateType.PEER_REFLEXIVE,
    CandidateType.RELAYED,
)

SILENT = PairTrial(
    base=Address("192.168.1.2", 4000),
    local=Address("192.168.1.2", 4000),
    local_type=HOST,
    remote=Address("44.100.2.1", 5000),
    remote_type=SRFLX,
    transport=Transport.UDP,
    result=Result.SILENT,
)


def reason(trial: PairTrial, own: NatSummary | None = EASY, peer: NatSummary | None = EASY) -> str:
    return trial.explained(own, peer).reason


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ((HOST, HOST), "nothing translates"),
        ((SRFLX, HOST), "both NATs let"),
        ((PRFLX, SRFLX), "a port that no server had seen"),
        ((RELAY, PRFLX), "a relay passes it on"),
    ],
)
def test_what_works_says_how(types: tuple[CandidateType, CandidateType], words: str) -> None:
    """By what both ends are."""
    trial = replace(SILENT, result=Result.WORKS, local_type=types[0], remote_type=types[1])
    assert words in reason(trial)
    assert "a TCP connection" in reason(replace(trial, transport=Transport.TCP)) or RELAY in types
    assert trial.name == f"{types[0].value}⇄{types[1].value}"


def test_silence_is_blamed_on_what_is_known() -> None:
    """The nearest cause first."""
    inside = replace(SILENT, remote=Address("10.1.2.3", 5000), remote_type=HOST)
    assert "not this one" in reason(inside)
    public = replace(inside, base=Address("44.100.1.1", 1), local=Address("44.100.1.1", 1))
    assert "only in the other side's own network" in reason(public)
    assert "no UDP gets out of the other side's network" in reason(SILENT, peer=replace(EASY, has_udp=False))
    assert "the other side's NAT is at another port" in reason(SILENT, peer=HARD)
    assert "this side's NAT is at another port" in reason(SILENT, own=HARD)
    assert "a firewall or a NAT on the way" in reason(SILENT)
    assert "a firewall or a NAT on the way" in reason(SILENT, None, None)
    six = replace(SILENT, base=Address("2a01::1", 1), remote=Address("2a02::1", 1), remote_type=HOST)
    assert "no IPv6 packets" in reason(six)
    assert "nobody could connect" in reason(replace(SILENT, transport=Transport.TCP))
    assert "the relay passed nothing on" in reason(replace(SILENT, local_type=RELAY))
    assert "where no relay sends" in reason(replace(inside, local_type=RELAY))


def test_udp_that_does_not_get_out_is_the_reason_of_udp_alone() -> None:
    """Nothing is said of TCP, which may have met; what a relay does begins behind the blocked way to it."""
    blocked = replace(EASY, has_udp=False)
    here, there = "no UDP gets out of this network", "no UDP gets out of the other side's network"
    assert reason(SILENT, own=blocked) == here
    assert reason(replace(SILENT, remote_type=RELAY), own=blocked) == here
    assert reason(SILENT, peer=blocked) == there
    assert reason(SILENT, blocked, blocked) == here
    assert reason(replace(SILENT, local_type=RELAY), own=blocked) == "the relay passed nothing on"
    assert reason(replace(SILENT, local_type=RELAY), peer=blocked) == there
    assert reason(replace(SILENT, remote_type=RELAY), peer=blocked) == "the relay passed nothing on"


@pytest.mark.parametrize("result", list(Result))
def test_every_result_has_a_reason(result: Result) -> None:
    """Whatever became of it."""
    assert reason(replace(SILENT, result=result, problem=SendProblem.FORBIDDEN))


def test_what_works_comes_first() -> None:
    """Then what worked once; among equals, what is preferred."""
    trials = [replace(SILENT, result=result, priority=each) for each in (1, 2) for result in reversed(Result)]
    best = ranked(trials)
    assert [trial.result for trial in best[:4]] == [Result.WORKS] * 2 + [Result.LOST] * 2
    assert [trial.priority for trial in best[:4]] == [2, 1, 2, 1]
