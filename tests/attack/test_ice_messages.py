"""Messages that are not what they seem: forged, reflected, replayed, from elsewhere; what is said of it."""

from __future__ import annotations

import heapq
import random
from itertools import count

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import CandidateFactory
from crowline.ice.events import (
    FailureReason,
    IceEvent,
    IceFailed,
    Oddity,
    PairLost,
    PairNominated,
    PairValid,
    RoleChanged,
)
from ice_pair import IcePair
from puppet import (
    REMOTE,
    STRANGER,
    Puppet,
    all_events,
    error_code,
    events,
    noticed,
    remote,
    request,
    requests,
)

# --- forged and mis-signed ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["unsigned", "wrong key", "another session", "cut signature"])
def test_i1_a_forged_check_is_said_once_however_many_come(how: str) -> None:
    """One event in words for the person, a counter for the rest; no pair, no role, no answer with proof."""
    puppet = Puppet(False)
    puppet.meet(remote(Address("198.51.100.9", 9000)))
    puppet.sent()
    check = {
        "unsigned": lambda: puppet.check(signed=False),
        "wrong key": lambda: puppet.check(key="x" * 24),
        "another session": lambda: puppet.check(username=f"otherfrag:{puppet.ufrag}"),
        "cut signature": lambda: puppet.check()[:-4],
    }[how]
    for number in range(100):
        puppet.receive(check(), STRANGER, 0.1 + number / 1000)
    found = all_events(puppet.agent)
    assert not [event for event in found if isinstance(event, PairValid | RoleChanged | IceFailed)]
    assert all(each.destination == STRANGER and error_code(each) in (400, 401) for each in puppet.sent())
    if how == "cut signature":
        assert found == []
        assert puppet.agent.counters["malformed"] == 100
    else:
        [event] = found
        assert event.oddity is Oddity.FORGED_CHECK  # type: ignore[union-attr]
        assert puppet.agent.counters["check refused"] == 100


def test_i2_an_answer_from_elsewhere_is_said_and_the_true_one_counts() -> None:
    """A box in between that answers from another port, or a liar: the person can read which it was."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    for port in range(2001, 2011):
        puppet.receive(puppet.success(check), Address(REMOTE.host, port), 0.01)
    assert noticed(puppet.agent) == [Oddity.ANSWER_FROM_ELSEWHERE]
    puppet.answer(check, 0.02)
    assert [type(event) for event in events(puppet.agent)] == [PairValid]


def test_i2_an_answer_to_nothing_is_no_news() -> None:
    """Late copies of answers are ordinary: counted, and no event."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    puppet.answer(check, 0.02)
    all_events(puppet.agent)
    puppet.answer(check, 0.03)
    assert all_events(puppet.agent) == []
    assert puppet.agent.counters["answer to nothing"] == 1


def test_i2_a_forged_answer_is_said_and_proves_nothing() -> None:
    """Right place and right transaction, but without the other side's password: no success and no failure."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    puppet.receive(puppet.success(check, key="x" * 24), now=0.01)
    puppet.receive(puppet.error(check, 487, signed=False), now=0.01)
    puppet.receive(puppet.error(check, 400, signed=False), now=0.01)
    assert noticed(puppet.agent) == [Oddity.FORGED_ANSWER]
    assert puppet.agent.counters["answer not verified"] == 3
    assert puppet.agent.controlling
    puppet.answer(check, 0.02)
    assert len(puppet.agent.valid_pairs()) == 1


# --- reflected ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("controlling", [True, False])
def test_i1_a_mirror_in_the_place_of_the_other_side_is_no_peer(controlling: bool) -> None:
    """Everything that is sent comes back from where it went: no pair, no loop, and an end with a reason.

    Each check that comes back is refused, unsigned, and the refusal that comes back meets silence.
    """
    puppet = Puppet(controlling)
    puppet.meet()
    puppet.end_candidates()
    checks = total = 0
    now = 0.0
    while True:
        waiting = puppet.sent()
        for each in waiting:
            total += 1
            checks += len(requests([each]))
            puppet.receive(each.data, each.destination, now)
        if waiting:
            continue
        at = puppet.agent.next_timeout()
        if at is None:
            break
        now = at
        puppet.agent.handle_timeout(now)
        assert total < 100
    assert (checks, total) == (7, 14)
    found = all_events(puppet.agent)
    oddities = [event.oddity for event in found[:-1]]  # type: ignore[union-attr]
    assert oddities == [Oddity.FORGED_CHECK, Oddity.FORGED_ANSWER]
    assert found[-1] == IceFailed(FailureReason.NO_ANSWER)
    assert puppet.agent.controlling is controlling


def test_i1_answers_that_are_reflected_into_the_same_session_prove_nothing() -> None:
    """The agent's own signed answers and checks, thrown back at it by the other side's own address."""
    pair = IcePair()
    first, _ = pair.sides
    pair.start()
    pair.run(1.0)
    seen = [transmit for _, number, transmit in pair.carried if number == 0]
    before = first.agent.valid_pairs(), first.agent.selected, first.agent.controlling
    count_before = len(pair.carried)
    for transmit in seen:
        assert transmit.local is not None
        first.agent.receive(transmit.data, transmit.destination, pair.now, transmit.local)
    first.poll()
    assert (first.agent.valid_pairs(), first.agent.selected, first.agent.controlling) == before
    sent = [transmit for _, _, transmit in pair.carried[count_before:]]
    assert requests(sent) == []
    assert all(not request(transmit).is_signed for transmit in sent)


# --- replayed -------------------------------------------------------------------------------------------


class Echoing(IcePair):
    """A network that delivers everything three times more: soon, later, and after a minute."""

    def carry(self, sender: object, transmit: Transmit) -> None:
        super().carry(sender, transmit)  # type: ignore[arg-type]
        receiver, source = sender.other, transmit.local  # type: ignore[attr-defined]
        if transmit.destination not in receiver.bases:
            return
        for delay in (0.05, 4.0, 61.0):
            self.later(
                delay,
                lambda: receiver.agent.receive(transmit.data, source, self.now, transmit.destination),
            )


@pytest.mark.parametrize("renominate", [False, True])
def test_i10_a_session_whose_every_packet_is_replayed_goes_on_as_if_it_were_not(renominate: bool) -> None:
    """Checks, answers, nominations and consent of two minutes, each four times: one pair, never lost."""
    pair = Echoing(renominate=renominate)
    pair.start()
    pair.run(120.0)
    for side in pair.sides:
        assert len(side.of(PairValid)) == len(side.of(PairNominated)) == 1
        assert side.of(PairLost) == side.of(RoleChanged) == side.of(IceFailed) == []
        assert [each.remote.address for each in side.agent.valid_pairs()] == side.other.bases


def test_i10_replays_do_not_keep_a_dead_session_alive() -> None:
    """When the other side has gone, its old packets give no consent: sending ends within 30 s."""
    pair = IcePair()
    pair.start()
    pair.run(10.0)
    captured = [transmit for _, number, transmit in pair.carried if number == 1]
    gone = pair.now
    pair.drops = lambda *_: True
    first = pair.sides[0]

    def replay() -> None:
        for transmit in captured:
            assert transmit.local is not None
            first.agent.receive(transmit.data, transmit.local, pair.now, transmit.destination)

    for second in range(1, 60):
        pair.later(float(second), replay)
    pair.run(60.0)
    [(at, lost)] = [(at, event) for at, event in first.events if isinstance(event, PairLost)]
    assert at - gone <= 31.0
    assert lost.reason.value == "the other side has not answered for 30 s"


# --- role conflicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("controlling", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_i9_equal_tie_breakers_and_equal_roles_end_in_two_roles_and_one_pair(
    controlling: bool, seed: int
) -> None:
    """RFC 8445 §7.3.1.1: equal counts as larger, so that both refuse; new tie-breakers settle it."""
    pair = IcePair(seed=seed)
    for side in pair.sides:
        role = side.agent._session.role
        role.controlling, role.tie_breaker = controlling, 7
    pair.start()
    pair.run(20.0)
    first, second = pair.sides
    assert first.agent.controlling is not second.agent.controlling
    changes = [len(side.of(RoleChanged)) for side in pair.sides]
    assert 1 <= sum(changes) <= 6
    for side in pair.sides:
        assert side.of(IceFailed) == side.of(PairLost) == []
        selected = side.agent.selected
        assert selected is not None and selected.remote.address == side.other.bases[0]


def test_i9_a_peer_that_insists_on_our_role_is_given_up_with_a_reason() -> None:
    """It answers 487 to whatever is claimed: a few rounds, then the pair fails, and an event says why."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.end_candidates()
    now = 0.0
    while (at := puppet.agent.next_timeout()) is not None and now < 60.0:
        for check in requests(puppet.sent()):
            puppet.receive(puppet.error(check, 487), now=now)
        now = max(now, at)
        puppet.agent.handle_timeout(now)
    found = all_events(puppet.agent)
    assert Oddity.ENDLESS_CONFLICT in [getattr(event, "oddity", None) for event in found]
    assert sum(isinstance(event, RoleChanged) for event in found) <= 10
    assert found[-1] == IceFailed(FailureReason.NO_ANSWER)


# --- two agents behind one address ----------------------------------------------------------------------


class Crowd:
    """Four agents of two meetings: one of each behind the same address, by different ports, two by two.

    Each is told the candidates of both agents over there, so that half of all checks reach the wrong one.
    """

    def __init__(self) -> None:
        dice = random.Random(4)
        here, there = "192.0.2.50", "198.51.100.50"
        self.places = [Address(here, 1001), Address(there, 2001), Address(here, 1002), Address(there, 2002)]
        self.agents = [IceAgent(n % 2 == 0, entropy=dice.randbytes, ta=0.005) for n in range(4)]
        self.events: list[list[IceEvent]] = [[] for _ in self.agents]
        self._queue: list[tuple[float, int, Address, Address, bytes]] = []
        self._order = count()
        self.now = 0.0
        for number, agent in enumerate(self.agents):
            agent.add_local_candidate(CandidateFactory().host(self.places[number]), 0.0)
        for number, agent in enumerate(self.agents):
            mate = self.agents[number ^ 1]
            agent.set_remote(mate.ufrag, mate.pwd, 0.0)
            for order, other in enumerate((number ^ 3, number ^ 1)):
                agent.add_remote_candidate(remote(self.places[other], 2130706431 - order, str(order)), 0.0)

    def run(self, end: float) -> None:
        while self.now < end:
            for number, agent in enumerate(self.agents):
                while (transmit := agent.next_transmit()) is not None:
                    entry = (self.places[number], transmit.destination, bytes(transmit.data))
                    heapq.heappush(self._queue, (self.now + 0.01, next(self._order), *entry))
                while (event := agent.next_event()) is not None:
                    self.events[number].append(event)
                    if isinstance(event, PairValid):
                        agent.use(event.pair, self.now)
            times = [at for agent in self.agents if (at := agent.next_timeout()) is not None]
            times += [entry[0] for entry in self._queue[:1]]
            self.now = max(self.now, min(times, default=end))
            while self._queue and self._queue[0][0] <= self.now:
                _, _, source, destination, data = heapq.heappop(self._queue)
                receiver = self.agents[self.places.index(destination)]
                receiver.receive(data, source, self.now, destination)
            for agent in self.agents:
                at = agent.next_timeout()
                if at is not None and at <= self.now:
                    agent.handle_timeout(self.now)


def test_two_agents_behind_one_address_are_told_apart_by_their_checks() -> None:
    """Each finds its own mate although the other one's port was named first."""
    crowd = Crowd()
    crowd.run(40.0)
    for number, agent in enumerate(crowd.agents):
        mate = crowd.places[number ^ 1]
        assert [pair.remote.address for pair in agent.valid_pairs()] == [mate]
        assert agent.selected is not None and agent.selected.remote.address == mate
        said = {event.oddity for event in crowd.events[number] if hasattr(event, "oddity")}
        assert said == {Oddity.FORGED_CHECK, Oddity.FORGED_ANSWER}
        assert not [event for event in crowd.events[number] if isinstance(event, PairLost | RoleChanged)]
