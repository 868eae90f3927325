"""Lite agents: before full agents, before each other, and before whoever means them ill."""

from __future__ import annotations

import random
from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import CandidateFactory
from crowline.ice.events import (
    FailureReason,
    IceFailed,
    LossReason,
    PairLost,
    PairNominated,
    PairValid,
    Restarted,
    RoleChanged,
)
from crowline.ice.lite import LiteAgent
from crowline.stun.attributes import IceControlled, IceControlling, Nomination, UseCandidate, XorMappedAddress
from crowline.stun.message import MessageClass
from ice_pair import IcePair
from puppet import (
    BASE,
    HIGH_TIE,
    LOW_TIE,
    OTHER_REMOTE,
    REMOTE,
    STRANGER,
    Puppet,
    error_code,
    events,
    remote,
    request,
    requests,
)

SERVER = Address("203.0.113.1", 3478)
LOW = 1000


class LitePuppet(Puppet):
    """Moves the full side before a lite agent."""

    def make(self, controlling: bool, **options: Any) -> Any:
        return LiteAgent(controlling, entropy=self.random.randbytes, **options)

    def nominate(self, now: float, source: Address = REMOTE) -> None:
        self.receive(self.check(use_candidate=True), source, now)


def met(**options: Any) -> LitePuppet:
    puppet = LitePuppet(False, **options)
    puppet.meet()
    return puppet


# --- two agents -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lite", [0, 1])
@pytest.mark.parametrize("renominate", [False, True])
def test_a_full_agent_and_a_lite_one_agree_on_a_pair(lite: int, renominate: bool) -> None:
    """The full one controls whoever began, and only it ever sends a request."""
    pair = IcePair(lite=(lite == 0, lite == 1), renominate=renominate)
    pair.start()
    pair.run(60.0)
    full = 1 - lite
    assert pair.sides[full].agent.controlling
    assert not pair.sides[lite].agent.controlling
    selected = [side.agent.selected for side in pair.sides]
    assert all(each is not None for each in selected)
    assert (selected[0].base, selected[0].remote.address) == (selected[1].remote.address, selected[1].base)
    assert not any(side.of(PairLost) for side in pair.sides)
    sent_by_lite = [each for _, number, each in pair.carried if number == lite]
    assert sent_by_lite and requests(sent_by_lite) == []


def test_a_lite_agent_answers_the_questions_of_consent() -> None:
    """An hour later both still have the pair."""
    pair = IcePair(lite=(False, True))
    pair.start()
    pair.run(3600.0)
    assert all(len(side.usable) == 1 for side in pair.sides)


def test_both_sides_notice_that_the_way_has_died() -> None:
    """30 s after the last answer, or the last question."""
    pair = IcePair(lite=(False, True))
    pair.drops = lambda _, __, now: now > 20.0
    pair.start()
    pair.run(60.0)
    for side in pair.sides:
        (lost,) = side.of(PairLost)
        assert lost.reason is LossReason.CONSENT_EXPIRED
        (at,) = [time for time, event in side.events if event is lost]
        assert 44.0 < at <= 50.1


def test_a_way_that_comes_back_is_regained() -> None:
    """The full side tries again and nominates again; the lite side follows."""
    pair = IcePair(lite=(False, True), renominate=True, regain=True)
    pair.drops = lambda _, __, now: 20.0 < now < 200.0
    pair.start()
    pair.run(100.0)
    assert not any(side.usable for side in pair.sides)
    pair.run(300.0)
    assert all(side.agent.selected in side.usable.values() for side in pair.sides)


@pytest.mark.parametrize("beginner", [0, 1])
def test_a_restart_keeps_data_going(beginner: int) -> None:
    """New credentials, no moment without a usable pair, roles as before."""
    pair = IcePair(lite=(False, True))
    pair.start()
    pair.run(5.0)
    before = [side.agent.ufrag for side in pair.sides]
    assert pair.sides[beginner].restart()

    def usable() -> None:
        assert all(side.usable for side in pair.sides)

    pair.run(20.0, each_step=usable)
    assert all(side.agent.ufrag != old for side, old in zip(pair.sides, before, strict=True))
    assert all(side.of(Restarted) and side.agent.selected is not None for side in pair.sides)
    assert [side.agent.controlling for side in pair.sides] == [True, False]


def test_two_lite_agents_choose_the_same_pair_without_a_check() -> None:
    """RFC 8445 §8.2: whoever began controls, and no packet is needed."""
    pair = IcePair(lite=(True, True), bases=(3, 2))
    pair.start()
    pair.run(60.0)
    assert pair.carried == []
    one, two = (side.agent.selected for side in pair.sides)
    assert one is not None and two is not None
    assert (one.base, one.remote.address) == (two.remote.address, two.base)
    assert [side.agent.controlling for side in pair.sides] == [True, False]
    assert all(len(side.of(PairNominated)) == 1 for side in pair.sides)


# --- one lite agent -------------------------------------------------------------------------------------


def test_a_check_is_answered_and_nothing_more() -> None:
    """No triggered check; a check that does not nominate makes no pair."""
    puppet = met()
    puppet.receive(puppet.check())
    answer = puppet.one()
    message = request(answer).message
    assert message.message_class is MessageClass.SUCCESS
    assert message.get(XorMappedAddress) == XorMappedAddress(REMOTE)
    assert (answer.destination, answer.local) == (REMOTE, BASE)
    assert events(puppet.agent) == []
    assert puppet.agent.next_timeout() is None


def test_a_nomination_makes_the_pair() -> None:
    """Valid and selected at once, with the address that the check came from."""
    puppet = met()
    puppet.nominate(1.0, OTHER_REMOTE)
    assert [type(event) for event in events(puppet.agent)] == [PairValid, PairNominated]
    pair = puppet.agent.selected
    assert (pair.base, pair.remote.address) == (BASE, OTHER_REMOTE)
    assert puppet.agent.is_valid(BASE, OTHER_REMOTE)


def test_a_nomination_before_the_description_counts_once_that_is_here() -> None:
    """Answered at once, acted on when its sender turns out to be the other side."""
    puppet = LitePuppet(False)
    puppet.nominate(0.0)
    assert len(puppet.sent()) == 1
    assert puppet.agent.selected is None
    puppet.meet(now=1.0)
    assert puppet.agent.selected is not None


def test_of_an_aggressive_side_the_best_nomination_stays() -> None:
    """Without renomination the priority decides, not the order (RFC 8445 §8.1.1)."""
    for first, second in ((REMOTE, OTHER_REMOTE), (OTHER_REMOTE, REMOTE)):
        puppet = LitePuppet(False)
        puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
        puppet.nominate(0.0, first)
        puppet.nominate(0.1, second)
        assert puppet.agent.selected.remote.address == REMOTE


def test_with_renomination_the_latest_stays() -> None:
    """A worse pair too: the controlling side has its reasons."""
    puppet = LitePuppet(False, renominate=True)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    puppet.nominate(0.0, REMOTE)
    puppet.nominate(0.1, OTHER_REMOTE)
    assert puppet.agent.selected.remote.address == OTHER_REMOTE


@pytest.mark.parametrize("tie", [LOW_TIE, HIGH_TIE])
def test_whoever_wants_to_be_controlled_is_refused(tie: int) -> None:
    """A lite agent never controls a full one, whatever the tie-breakers (RFC 8445 §6.1.1, §7.3.1.1)."""
    puppet = met()
    puppet.receive(puppet.check(claim=IceControlled(tie)))
    assert error_code(puppet.one()) == 487
    assert not puppet.agent.controlling
    assert events(puppet.agent) == []


def test_a_side_that_asks_for_consent_and_falls_silent_is_lost() -> None:
    """30 s after the last question; a side that never asks is not waited for (RFC 7675 §1)."""
    for asks in (True, False):
        puppet = met()
        puppet.nominate(0.0)
        pair = puppet.agent.selected
        puppet.agent.use(pair, 0.0)
        if asks:
            puppet.receive(puppet.check(), now=5.0)
        puppet.sent_by(1000.0)
        lost = [event for event in events(puppet.agent) if isinstance(event, PairLost)]
        assert lost == ([PairLost(pair, LossReason.CONSENT_EXPIRED)] if asks else [])


def test_a_check_soon_after_the_nomination_is_no_question_of_consent() -> None:
    """It is the rest of the search: whoever sends one need not go on asking."""
    puppet = met()
    puppet.nominate(0.0)
    puppet.receive(puppet.check(), now=0.5)
    puppet.sent_by(1000.0)
    assert puppet.agent.selected is not None
    assert puppet.agent.next_timeout() is None


def test_a_lost_pair_needs_new_credentials_unless_both_agreed_otherwise() -> None:
    """RFC 7675 §5.1; with `regain` a new nomination is enough."""
    for regain in (True, False):
        puppet = met(regain=regain)
        puppet.nominate(0.0)
        puppet.receive(puppet.check(), now=5.0)
        puppet.sent_by(40.0)
        assert puppet.agent.selected is None
        puppet.nominate(50.0)
        assert (puppet.agent.selected is not None) is regain


def test_misuse_is_told_to_the_caller() -> None:
    """Candidates that a lite agent does not have (RFC 8445 §5.2)."""
    agent = LitePuppet(False).agent
    factory = CandidateFactory()
    with pytest.raises(UsageError):
        agent.add_local_candidate(factory.server_reflexive(SERVER, BASE, SERVER), 0.0)
    with pytest.raises(UsageError):
        agent.add_local_candidate(factory.host(Address(BASE.host, BASE.port + 1)), 0.0)
    agent.add_local_candidate(factory.host(Address("2001:db8::1", 1)), 0.0)
    assert len(agent.local_candidates()) == 2


@pytest.mark.parametrize("priorities", [((5, 3), (3, 5)), ((5, 5), (5, 5))])
def test_two_lite_sides_choose_alike_where_pairs_are_nearly_equal(priorities: Any) -> None:
    """The roles decide between mirrored priorities, the addresses between equal ones; not the order."""
    agents = [LiteAgent(controlling, entropy=random.Random(1).randbytes) for controlling in (True, False)]
    addresses = [[Address("2001:db8::1", 1), Address("192.0.2.1", 1)]]
    addresses += [[Address("2001:db8::2", 2), Address("192.0.2.2", 2)]]
    candidates = [
        [remote(address, priority) for address, priority in zip(own, values, strict=True)]
        for own, values in zip(addresses, priorities, strict=True)
    ]
    for agent, own, theirs in zip(agents, candidates, candidates[::-1], strict=True):
        # One of them gathers in the other order.
        for candidate in own if agent is agents[0] else own[::-1]:
            agent.add_local_candidate(candidate, 0.0)
        agent.set_remote("puppet", "a password of the puppet", 0.0, lite=True)
        for candidate in theirs:
            agent.add_remote_candidate(candidate, 0.0)
        agent.end_of_local_candidates(0.0)
        agent.end_of_remote_candidates(0.0)
    one, two = (agent.selected for agent in agents)
    assert one is not None and two is not None
    assert (one.base, one.remote.address) == (two.remote.address, two.base)


def test_two_lite_sides_of_different_families_have_no_way() -> None:
    """Said once, when both sides' candidates are complete."""
    puppet = LitePuppet(True)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0, lite=True)
    puppet.agent.add_remote_candidate(remote(Address("2001:db8::2", 5)), 0.0)
    assert events(puppet.agent) == []
    puppet.end_candidates()
    assert events(puppet.agent) == [IceFailed(FailureReason.NO_CANDIDATES)]


def test_of_two_lite_sides_one_may_take_a_candidate_back() -> None:
    """The next best pair is taken in its place."""
    puppet = LitePuppet(True)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0, lite=True)
    puppet.agent.add_remote_candidate(remote(REMOTE), 0.0)
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE, LOW), 0.0)
    puppet.end_candidates()
    assert puppet.agent.selected.remote.address == REMOTE
    puppet.agent.remove_remote_candidate(REMOTE, 1.0)
    assert puppet.agent.selected.remote.address == OTHER_REMOTE


# --- who means it ill -----------------------------------------------------------------------------------


def test_a_nomination_that_somebody_sends_again_from_elsewhere_nominates_nothing() -> None:
    """A lite agent cannot check an address; it remembers what it has heard."""
    puppet = met(renominate=True)
    heard = puppet.check(use_candidate=True)
    puppet.receive(heard, REMOTE, 0.0)
    puppet.receive(heard, STRANGER, 0.1)
    assert puppet.agent.selected.remote.address == REMOTE
    assert not puppet.agent.is_valid(BASE, STRANGER)
    assert puppet.agent.counters["nomination from elsewhere"] == 1


def test_a_forged_nomination_nominates_nothing() -> None:
    """Without the password there is an unsigned error, a few times, and nothing else."""
    puppet = met()
    for _ in range(100):
        puppet.receive(puppet.check(use_candidate=True, key="x" * 24), STRANGER)
    sent = puppet.sent()
    assert 0 < len(sent) <= 20
    assert {error_code(each) for each in sent} == {401}
    assert events(puppet.agent) == []


def test_nominations_without_end_are_bounded() -> None:
    """A side that nominates every address gets as many pairs as an agent keeps, and as many answers."""
    puppet = LitePuppet(False, renominate=True)
    puppet.meet()
    for number in range(1000):
        puppet.nominate(0.0, Address("198.51.100.9", 1 + number))
    assert len(puppet.agent.valid_pairs()) <= 17
    assert len(puppet.sent()) == 1000


def test_answers_and_noise_change_nothing() -> None:
    """It has asked nothing, so that every answer is wrong; what is no STUN is dropped."""
    full = Puppet(True)
    full.meet()
    puppet = met()
    puppet.receive(puppet.success(full.one()))
    puppet.receive(b"\x00\x01\x00\x00")
    assert puppet.sent() == []
    assert puppet.agent.counters["answer to nothing"] == 1
    assert puppet.agent.counters["malformed"] == 1


# --- a full agent before a lite one ---------------------------------------------------------------------


def test_towards_a_lite_side_a_full_agent_controls() -> None:
    """RFC 8445 §6.1.1: also one that was to be controlled, and whatever the other side claims."""
    puppet = Puppet(False)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0, lite=True)
    puppet.agent.add_remote_candidate(remote(REMOTE), 0.0)
    assert puppet.agent.controlling
    assert events(puppet.agent) == [RoleChanged(True)]
    check = puppet.one()
    assert request(check).message.get(IceControlling) is not None
    puppet.receive(puppet.error(check, 487))
    puppet.receive(puppet.check(claim=IceControlling(HIGH_TIE)))
    assert puppet.agent.controlling
    assert error_code(puppet.one()) == 487
    _, again = puppet.sent_by(0.005)[-1]
    puppet.answer(again, 0.01)
    assert request(puppet.one()).message.get(UseCandidate) is not None


def test_roles_are_open_again_when_the_other_side_is_no_longer_lite() -> None:
    """A restart may bring a full agent; then tie-breakers decide."""
    puppet = Puppet(False)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0, lite=True)
    puppet.agent.set_remote("another", "another password of the puppet", 1.0)
    puppet.ufrag = "another"
    assert puppet.agent.controlling
    puppet.receive(puppet.check(claim=IceControlling(HIGH_TIE)), now=1.0)
    assert not puppet.agent.controlling


def test_a_full_agent_and_a_lite_one_have_the_same_surface() -> None:
    """A driver needs no case for either."""
    public = {name for name in dir(IceAgent) if not name.startswith("_")}
    assert public == {name for name in dir(LiteAgent) if not name.startswith("_")}


def test_a_nomination_that_was_overtaken_changes_nothing() -> None:
    """An old check of lower rank comes late, and another one after it: what was agreed last stays."""
    puppet = met(renominate=True)
    for rank, source in ((1 << 63, REMOTE), (5, REMOTE), (6, OTHER_REMOTE)):
        puppet.receive(puppet.check(Nomination(rank), use_candidate=True), source, 0.1)
        assert puppet.agent.selected.remote.address == REMOTE
