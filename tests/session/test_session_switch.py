"""How long nothing arrives when the streams go over from one path to another."""

from __future__ import annotations

import random

import pytest

from crowline.session.events import LinkChosen
from crowline.session.ways import FIRST_HOLD
from session_pair import Pair

RELAY, DIRECT = 1, 2


class Traffic(Pair):
    """Bulk from side 0, and the longest time in which nothing of it arrives, in order, at side 1."""

    def __init__(self) -> None:
        super().__init__(window=4 << 20)
        self.stall = 0.0
        self._last = (0, 0.0)

    def begin(self) -> None:
        self.stream = self.sessions[0].open_stream()
        self.sessions[0].write(self.stream, bytes(1 << 30))
        self.pump()

    def watch(self, seconds: float) -> None:
        end = self.now + seconds
        self._last = (self._count(), self.now)
        self.stall = 0.0
        while (due := self._due()) is not None and due <= end:
            self.step()
            if self._count() > self._last[0]:
                self.stall = max(self.stall, self.now - self._last[1])
                self._last = (self._count(), self.now)
        self.now = end

    def _count(self) -> int:
        return len(self.received.get((1, self.stream), b""))

    @property
    def choices(self) -> list[int | None]:
        return [event.link for event in self.events[0] if isinstance(event, LinkChosen)]


def traffic(direct: float, relay: float) -> Traffic:
    """Both links up, bulk on the direct one, for a while; each way takes so many seconds."""
    both = Traffic()
    both.link(RELAY, rank=1, delay=relay, rtt=2 * relay)
    both.link(DIRECT, rank=2, delay=direct, rtt=2 * direct)
    both.begin()
    both.watch(0.5)
    return both


@pytest.mark.parametrize(("direct", "relay"), [(0.003, 0.005), (0.01, 0.02), (0.015, 0.025)])
def test_a_link_that_dies_beside_one_that_lives_stalls_bulk_for_less_than_200_ms(
    direct: float, relay: float
) -> None:
    """At the 95th percentile of many moments of dying, with round trips of up to 30 and 50 ms."""
    stalls = []
    for moment in range(40):
        both = traffic(direct, relay)
        both.watch(random.Random(moment).random() * 0.3)
        both.cut(DIRECT)
        both.watch(1.0)
        assert both.choices[-1] == RELAY
        stalls.append(both.stall)
    assert sorted(stalls)[38] <= 0.2


def test_a_better_path_takes_over_without_a_pause() -> None:
    """The old one goes on bringing what it carries, and the new one is there when that ends."""
    both = Traffic()
    both.link(RELAY, rank=1, delay=0.03, rtt=0.06)
    both.begin()
    both.watch(2)
    both.link(DIRECT, rank=2, delay=0.01, rtt=0.02)
    both.watch(2)
    assert both.choices[-1] == DIRECT
    assert both.stall <= 0.04


def test_links_that_die_together_are_left_together() -> None:
    """Two direct ones by the same cable: the streams do not try the second before they take the relay."""
    both = traffic(0.01, 0.02)
    both.link(3, rank=2, delay=0.01, rtt=0.02, merit=-9)
    both.watch(0.5)
    both.cut(DIRECT)
    both.cut(3)
    both.watch(1)
    assert both.choices[-2:] == [DIRECT, RELAY]
    assert both.stall <= 0.2


def test_where_nobody_answers_the_link_is_not_left_early() -> None:
    """The other side sleeps for 400 ms, or this one did: all links are silent, and none is to blame."""
    both = traffic(0.01, 0.02)
    before = both.choices
    for link in (RELAY, DIRECT):
        both.cut(link)
    both.watch(0.4)
    for link in (RELAY, DIRECT):
        both.mend(link)
    both.watch(2)
    assert both.choices == before
    assert both.stall <= 0.5


def test_a_hiccup_costs_a_short_trial_however_often_it_comes() -> None:
    """What answers again before it would have counted as silent comes back after a second, each time."""
    both = traffic(0.01, 0.02)
    for _ in range(5):
        both.cut(DIRECT)
        both.watch(0.3)
        assert both.choices[-1] == RELAY
        both.mend(DIRECT)
        both.watch(FIRST_HOLD + 0.7)
        assert both.choices[-1] == DIRECT


def test_a_session_at_rest_does_not_leave_early() -> None:
    """Nobody waits, and a path whose radio sleeps may take its time."""
    pair = Pair()
    pair.link(RELAY, rank=1, delay=0.02, rtt=0.04)
    pair.link(DIRECT, rank=2, delay=0.01, rtt=0.02)
    pair.run(20)
    for _ in range(10):
        pair.cut(DIRECT)
        while pair._pipes[0, DIRECT].unanswered_since is None:
            pair.step()
        pair.run(0.3)
        pair.mend(DIRECT)
        pair.run(2)
    changes = [event.link for event in pair.events[0] if isinstance(event, LinkChosen)]
    assert changes == [RELAY, DIRECT]


def test_a_makeshift_link_is_no_reason_to_leave_early() -> None:
    """It is the server's: bulk goes there only when there is nothing else."""
    both = Traffic()
    both.link(RELAY, rank=0, delay=0.02, rtt=0.04, makeshift=True)
    both.link(DIRECT, rank=2, delay=0.01, rtt=0.02)
    both.begin()
    both.watch(1.5)
    both.cut(DIRECT)
    both.watch(0.3)
    assert both.choices[-1] == DIRECT
    both.watch(1)
    assert both.choices[-1] == RELAY


def test_no_link_is_pinged_for_doubt_while_bulk_is_answered() -> None:
    """The others stay as quiet as before."""
    both = traffic(0.01, 0.02)
    sent = []
    pipe = both._pipes[0, RELAY]
    original = pipe.send
    pipe.send = lambda data, now: (sent.append(now), original(data, now))[1]  # type: ignore[method-assign]
    both.watch(60)
    assert len(sent) <= 30


def test_the_session_says_since_when_nobody_is_heard() -> None:
    """As soon as no link works, until one does."""
    pair = Pair()
    session = pair.sessions[0]
    assert session.unheard_since is None
    pair.link(1, rank=1, rtt=0.02)
    pair.link(2, rank=2, rtt=0.02)
    pair.run(10)
    assert session.unheard_since is None
    pair.cut(1)
    pair.cut(2)
    pair.run(10)
    first = session.unheard_since
    assert first is not None and 10 <= first <= 16
    pair.detach(1)
    pair.detach(2)
    pair.now += 100
    assert session.unheard_since == first
    pair.link(3, rank=1)
    assert session.unheard_since is None
    pair.detach(3)
    assert session.unheard_since == pair.now
