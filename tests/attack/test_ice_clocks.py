"""Clocks that stand still or leap: sleep in the middle of everything, on systems of both kinds.

While a machine sleeps, Linux's monotonic clock stands still and others go on. What happens to an agent may
not depend on that, but for consent, which the other side has given until a certain moment.
"""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.ice.checker import SLEEP
from crowline.ice.events import (
    FailureReason,
    IceFailed,
    LossReason,
    Oddity,
    PairLost,
    PairNominated,
)
from ice_pair import IcePair
from puppet import REMOTE, Puppet, all_events, noticed, requests

NIGHT = 8 * 3600.0


@pytest.mark.parametrize("at", [0.0, 0.2, 1.6, 7.6, 31.6])
def test_a_leap_sends_no_burst(at: float) -> None:
    """Retransmissions that were slept through are not made up for: one at a time, seven in all."""
    puppet = Puppet(True)
    puppet.meet()
    before = [time for time, _ in puppet.sent_by(at)]
    puppet.agent.handle_timeout(at + NIGHT)
    assert puppet.sent() == []
    after = puppet.sent_by(at + 2 * NIGHT)
    assert len(before) + len(after) <= 7
    assert len({time for time, _ in after}) == len(after)


@pytest.mark.parametrize("at", [0.2, 7.6, 31.6])
def test_a_night_in_the_middle_of_a_check_does_not_count(at: float) -> None:
    """The check goes on where it was, an answer still succeeds, and an event says what happened."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.end_candidates()
    check = [transmit for _, transmit in puppet.sent_by(at)][-1]
    all_events(puppet.agent)
    woken = at + NIGHT
    puppet.agent.handle_timeout(woken)
    assert noticed(puppet.agent) == [Oddity.SLEPT]
    puppet.agent.handle_timeout(woken + 0.5)
    puppet.answer(check, woken + 0.6)
    assert len(puppet.agent.valid_pairs()) == 1


def test_without_an_answer_the_check_still_ends_after_its_own_time() -> None:
    """39.5 s awake, whatever was slept in between, and then the reason is that nobody answered."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.end_candidates()
    puppet.sent_by(10.0)
    puppet.agent.handle_timeout(NIGHT)
    sent = puppet.sent_by(2 * NIGHT)
    assert len(sent) == 2
    found = all_events(puppet.agent)
    assert found[-1] == IceFailed(FailureReason.NO_ANSWER)
    assert puppet.agent.next_timeout() is None


def test_an_answer_that_is_read_before_the_timer_fires_counts() -> None:
    """On waking the socket may be looked at first."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    puppet.answer(check, NIGHT)
    assert len(puppet.agent.valid_pairs()) == 1


def test_a_busy_loop_is_no_sleep() -> None:
    """A timer that is a little late changes nothing: the check keeps its own times."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.one()
    puppet.agent.handle_timeout(0.5 + SLEEP)
    assert noticed(puppet.agent) == []
    assert len(requests(puppet.sent())) == 1
    assert puppet.agent.next_timeout() == 7.5


def test_consent_that_was_slept_away_ends_at_once() -> None:
    """RFC 7675 §5.1: after 30 s nothing may be sent, and nothing is: the pair is lost before any packet."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    [pair] = puppet.agent.valid_pairs()
    puppet.agent.use(pair, 0.05)
    all_events(puppet.agent)
    puppet.agent.handle_timeout(NIGHT)
    assert puppet.sent() == []
    [lost] = all_events(puppet.agent)
    assert isinstance(lost, PairLost) and lost.reason is LossReason.CONSENT_EXPIRED
    assert puppet.agent.valid_pairs() == []


def test_consent_is_asked_for_after_a_short_sleep() -> None:
    """Twenty seconds are less than consent lasts: one question on waking, and the answer keeps the pair."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    [pair] = puppet.agent.valid_pairs()
    puppet.agent.use(pair, 0.05)
    puppet.agent.handle_timeout(20.0)
    puppet.answer(puppet.one(), 20.1)
    puppet.agent.handle_timeout(35.0)
    assert puppet.agent.valid_pairs() == [pair]


def test_a_clock_that_stands_still_sends_nothing_twice() -> None:
    """However often the driver calls at one moment: no further packet, no event, and no time in the past."""
    pair = IcePair(bases=(2, 2))
    pair.start()
    for _ in range(40):
        pair.run(0.7)
        for side in pair.sides:
            agent = side.agent
            for _ in range(3):
                agent.handle_timeout(pair.now)
            side.poll()
            for _ in range(50):
                agent.handle_timeout(pair.now)
            assert agent.next_transmit() is None
            assert agent.next_event() is None
            at = agent.next_timeout()
            assert at is None or at > pair.now


def test_a_restart_in_the_middle_of_a_nomination_leaves_no_timer_in_the_past() -> None:
    """The time to nominate another pair belongs to the session that ended; a driver would spin on it."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    puppet.one()
    assert puppet.agent.restart(0.05)
    for now in (1.0, 3.0, 10.0, 30.0, 60.0):
        puppet.agent.handle_timeout(now)
        at = puppet.agent.next_timeout()
        assert at is None or at > now


def test_a_clock_that_went_back_breaks_nothing() -> None:
    """No monotonic clock does that; an agent that is told so waits, and goes on when time is back."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.sent_by(3.0)[-1][1]
    puppet.agent.handle_timeout(1.0)
    puppet.receive(puppet.check(), REMOTE, 0.5)
    puppet.sent()
    puppet.answer(check, 0.6)
    puppet.agent.handle_timeout(3.1)
    assert len(puppet.agent.valid_pairs()) == 1


class Sleeper:
    """Puts one side of a pair to sleep from `begins` to `ends`; `counts`: its clock goes on meanwhile."""

    def __init__(self, pair: IcePair, number: int, *, begins: float, ends: float, counts: bool) -> None:
        self.pair = pair
        self.begins, self.ends = begins, ends
        self.lag = 0.0 if counts else ends - begins
        agent = pair.sides[number].agent
        self.verbs = agent.handle_timeout, agent.next_timeout, agent.receive
        agent.handle_timeout = self.handle_timeout  # type: ignore[method-assign]
        agent.next_timeout = self.next_timeout  # type: ignore[method-assign]
        agent.receive = self.receive  # type: ignore[method-assign]

    def handle_timeout(self, now: float) -> None:
        # What rounding takes away would make a timer wait for ever.
        self.verbs[0](now if now < self.begins else now - self.lag + 1e-9)

    def next_timeout(self) -> float | None:
        at = self.verbs[1]()
        if at is None or (at <= self.begins and self.pair.now < self.begins):
            return at
        return max(self.ends, at + self.lag)

    def receive(self, data: bytes, source: Address, now: float, local: Address | None = None) -> None:
        if now < self.begins:
            self.verbs[2](data, source, now, local)
        elif now >= self.ends:
            self.verbs[2](data, source, now - self.lag, local)


@pytest.mark.parametrize("asleep", [0, 1])
@pytest.mark.parametrize("counts", [True, False], ids=["its clock goes on", "its clock stands still"])
@pytest.mark.parametrize("begins", [0.035, 0.045, 0.055])
def test_a_side_that_sleeps_in_the_middle_of_checking_finds_the_other_one(
    asleep: int, counts: bool, begins: float
) -> None:
    """Ten seconds without it, whatever its clock made of them: one pair on both sides, and nothing lost."""
    pair = IcePair()
    Sleeper(pair, asleep, begins=begins, ends=begins + 10.0, counts=counts)
    pair.start()
    pair.run(40.0)
    for side in pair.sides:
        assert len(side.of(PairNominated)) == 1
        assert side.of(PairLost) == side.of(IceFailed) == []
