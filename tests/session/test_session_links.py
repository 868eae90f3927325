"""When the streams leave a link, when they come back, and what does not move them."""

from __future__ import annotations

import hashlib
import random

import pytest

from crowline.session.events import LinkChosen
from crowline.session.links import SHORTER_FOR
from crowline.session.ways import FIRST_HOLD, LONGEST_HOLD, MAX_WAYS, STEADY, Ways
from session_pair import Pair

RELAY, DIRECT = 1, 2


class Road(Pair):
    """A relay link and a direct one, and streams that may always be written to."""

    def __init__(self) -> None:
        super().__init__(window=1 << 20)
        self.link(RELAY, rank=1, delay=0.03)
        self.link(DIRECT, rank=2)
        self.stream = self.sessions[0].open_stream()
        self.pump()
        self.run(1)

    @property
    def chosen(self) -> list[int | None]:
        return [session.chosen for session in self.sessions]

    @property
    def changes(self) -> list[LinkChosen]:
        """What side 0 said of its links."""
        return [event for event in self.events[0] if isinstance(event, LinkChosen)]

    def write(self, data: bytes, side: int = 0) -> None:
        self.sessions[side].write(self.stream, data)
        self.pump()

    def got(self, side: int = 1) -> bytes:
        return bytes(self.received.get((side, self.stream), b""))

    def talk(self, seconds: float, side: int = 0) -> None:
        """Write a little, twenty times a second."""
        for _ in range(round(seconds * 20)):
            self.write(b"word", side)
            self.run(0.05)

    def until(self, link: int, limit: float) -> float:
        """Seconds of talk until side 0 uses `link`."""
        start = self.now
        while self.sessions[0].chosen != link:
            assert self.now - start < limit
            self.talk(0.05)
        return self.now - start


@pytest.mark.parametrize("side", [0, 1])
def test_bytes_flow_again_within_two_seconds_of_a_cut(side: int) -> None:
    """Whichever side writes, and whether it was in the middle of that or had rested."""
    for rests in (0.0, 3.3, 17.0):
        road = Road()
        road.talk(2, side)
        road.run(rests)
        road.cut(DIRECT)
        sent = road.got(1 - side) + b"after the cut"
        road.write(b"after the cut", side)
        road.run(2)
        assert road.got(1 - side) == sent


def test_the_event_says_what_was_wrong_with_the_link_before() -> None:
    """In words that can be shown."""
    road = Road()
    road.cut(DIRECT)
    road.talk(2)
    assert (road.changes[-1].link, road.changes[-1].was) == (RELAY, DIRECT)
    assert road.changes[-1].reason == "the path before fell silent"


def test_a_link_that_answers_again_carries_the_streams_after_a_trial() -> None:
    """Not at once, and not before it has answered for the whole time."""
    road = Road()
    road.cut(DIRECT)
    road.talk(2)
    assert road.chosen == [RELAY, RELAY]
    road.mend(DIRECT)
    road._pipes[1, DIRECT].send(b"", road.now)
    assert road.until(DIRECT, limit=FIRST_HOLD + 6) >= FIRST_HOLD


def test_every_fall_doubles_the_trial_and_a_steady_minute_forgets_them() -> None:
    """1, 2, 4 seconds; 1 again after the link carried the streams for a minute."""
    road = Road()
    trials = []
    for rest in (0, 0, 0, STEADY):
        road.talk(rest)
        road.cut(DIRECT)
        road.until(RELAY, limit=2)
        road.talk(0.5)
        road.mend(DIRECT)
        road.sessions[0].links.ping(road.now)
        road.sessions[1].links.ping(road.now)
        trials.append(road.until(DIRECT, limit=20))
    for trial, least in zip(trials, (1, 2, 4, 1), strict=True):
        assert least <= trial < least + 1


def test_a_path_that_flaps_does_not_take_the_streams_along() -> None:
    """Down for a second, up for three, for five minutes: a handful of moves, and every byte arrives."""
    road = Road()
    before = len(road.changes)
    for _ in range(75):
        road.cut(DIRECT)
        road.talk(1)
        road.mend(DIRECT)
        road.talk(3)
    assert 1 <= len(road.changes) - before <= 8
    road.run(5)
    assert road.got() == b"word" * (75 * 80)


def test_a_link_of_which_only_the_other_direction_works_is_left() -> None:
    """It is heard all the time: the other side writes, and its own pings come. What we send is lost."""
    road = Road()
    road.narrow(DIRECT, 0, 0)
    start = road.now
    while not road.got():
        assert road.now < start + 2
        road.write(b"x", 0)
        road.write(b"y", 1)
        road.run(0.05)
    assert road.sessions[0].chosen == RELAY
    assert road.changes[-1].reason == "nothing arrived any more by the path before"
    road.talk(10, side=1)
    assert road.sessions[0].chosen == RELAY
    road.mend(DIRECT)
    road.talk(8)
    assert road.sessions[0].chosen == DIRECT


def test_a_link_that_passes_small_packets_only_is_left_and_small_pings_do_not_bring_it_back() -> None:
    """Bulk goes by the relay as long as full-size packets vanish."""
    road = Road()
    road.narrow(DIRECT, 1000, 0, 1)
    road.write(bytes(30_000))
    road.run(2)
    assert road.got() == bytes(30_000)
    road.talk(20)
    assert road.sessions[0].chosen == RELAY
    road.mend(DIRECT)
    road.talk(8)
    assert road.sessions[0].chosen == DIRECT


def test_words_after_a_long_rest_are_not_taken_for_a_link_that_is_stuck() -> None:
    """The time of waiting begins with the first byte, not with the last thing that happened."""
    road = Road()
    road.write(b"a")
    for _ in range(20):
        road.run(4.9)
        road.write(b"b")
    road.run(1)
    assert road.chosen == [DIRECT, DIRECT]
    assert [change.link for change in road.changes] == [RELAY, DIRECT]


def test_a_makeshift_link_is_left_for_one_on_trial() -> None:
    """What costs the server's budget carries the streams only while nothing else answers."""
    pair = Pair()
    pair.link(0, rank=0, makeshift=True)
    pair.link(DIRECT, rank=2)
    stream = pair.sessions[0].open_stream()
    pair.run(1)
    for _ in range(5):
        pair.cut(DIRECT)
        pair.sessions[0].write(stream, b"x")
        pair.pump()
        pair.run(1)
        assert pair.sessions[0].chosen == 0
        pair.mend(DIRECT)
        pair.sessions[0].links.ping(pair.now)
        pair.sessions[1].links.ping(pair.now)
        pair.run(1)
        assert pair.sessions[0].chosen == DIRECT


def test_a_makeshift_link_is_not_asked_for_full_size_answers() -> None:
    """They would be paid for from the server's budget, and prove nothing."""
    pair = Pair()
    pair.link(0, rank=0, makeshift=True)
    stream = pair.sessions[0].open_stream()
    pair.run(1)
    pair.narrow(0, 0, 1)
    before = pair.bytes_sent
    pair.sessions[0].write(stream, b"x")
    pair.pump()
    pair.run(20)
    assert pair.sessions[0].links.is_ailing(0)
    assert pair.bytes_sent - before < 10_000


# --- links of one rank ----------------------------------------------------------------------------------


def chosen(pair: Pair) -> int | None:
    return pair.sessions[0].chosen


def test_a_better_pair_takes_over_at_once() -> None:
    """As long as its round trip is not longer; nothing is measured yet."""
    pair = Pair()
    pair.link(1, rank=2, merit=5, rtt=0.02)
    pair.link(2, rank=2, merit=6, rtt=0.021)
    assert chosen(pair) == 2
    pair.link(3, rank=2, merit=7, rtt=0.2, delay=0.1)
    pair.run(20)
    assert chosen(pair) == 2


def test_a_shorter_path_takes_over_after_a_time() -> None:
    """Its merit is less; the event names both round trips. It does not go back for the merit."""
    pair = Pair()
    pair.link(1, rank=2, merit=9, delay=0.02)
    pair.link(2, rank=2, merit=1, delay=0.01)
    pair.run(SHORTER_FOR - 0.5)
    assert chosen(pair) == 1
    pair.run(8)
    assert chosen(pair) == 2
    (reason,) = (e.reason for e in pair.events[0] if isinstance(e, LinkChosen) and e.was == 1)
    assert reason == "its round trip is shorter: 20.0 ms against 40.0 ms"
    pair.run(60)
    assert chosen(pair) == 2


def test_nobody_waits_for_a_shorter_path_that_has_fallen_silent() -> None:
    """The time for which it would have had to be shorter passes without a turn for it."""
    pair = Pair()
    pair.link(1, rank=1, delay=0.05, merit=2)
    pair.link(2, rank=1, delay=0.01, merit=1)
    pair.run(1.5)
    pair.cut(2)
    turns = 0
    while pair.now < 2 * SHORTER_FOR and turns < 1000:
        pair.step()
        turns += 1
    assert turns < 1000
    assert pair.sessions[0].chosen == 1


@pytest.mark.parametrize(("delay", "other"), [(0.02, 0.017), (0.001, 0.0003)])
def test_a_path_that_is_shorter_by_no_more_than_noise_does_not(delay: float, other: float) -> None:
    """Less than a fifth, or less than 2 ms."""
    pair = Pair()
    pair.link(1, rank=2, merit=9, delay=delay)
    pair.link(2, rank=2, merit=1, delay=other)
    pair.run(60)
    assert chosen(pair) == 1


def test_a_relay_is_never_preferred_for_its_round_trip() -> None:
    """Direct before relay."""
    pair = Pair()
    pair.link(1, rank=2, delay=0.2)
    pair.link(2, rank=1, delay=0.001)
    pair.run(60)
    assert chosen(pair) == 1


# --- changes of the network -----------------------------------------------------------------------------


def test_after_a_change_of_the_network_a_link_that_fell_is_used_as_soon_as_it_answers() -> None:
    """And every link is pinged at once."""
    road = Road()
    for _ in range(5):
        road.cut(DIRECT)
        road.talk(2)
        road.mend(DIRECT)
    assert road.chosen[0] == RELAY
    for session in road.sessions:
        session.links.start_over(road.now)
    road.run(0.1)
    assert road.chosen == [DIRECT, DIRECT]


def test_a_fading_link_is_left_for_another_of_its_rank_and_for_no_other() -> None:
    """Whatever its merit: its path will not last."""
    road = Road()
    road.sessions[0].links.fade(DIRECT)
    road.run(1)
    assert road.chosen[0] == DIRECT
    road.link(3, rank=2, merit=-9)
    road.run(0.1)
    assert road.chosen[0] == 3


def test_a_new_link_on_a_way_that_fell_is_on_trial_too() -> None:
    """The link is another one; the path is the same."""
    pair = Pair()
    pair.link(RELAY, rank=1)
    pair.link(DIRECT, rank=2, merit=7)
    stream = pair.sessions[0].open_stream()
    pair.run(1)
    pair.cut(DIRECT)
    pair.sessions[0].write(stream, b"x")
    pair.pump()
    pair.run(2)
    pair.detach(DIRECT)
    pair.link(3, rank=2, merit=7)
    pair.run(FIRST_HOLD / 2)
    assert chosen(pair) == RELAY
    pair.run(FIRST_HOLD)
    assert chosen(pair) == 3


def test_falls_are_counted_for_a_bounded_number_of_ways_and_held_against_them_for_a_bounded_time() -> None:
    """A day of flapping costs no memory, and the next trial is never longer than a minute."""
    ways = Ways()
    for number in range(10 * MAX_WAYS):
        for _ in range(12):
            ways.fell((1, number), carried=1.0)
    assert len(ways._falls) == MAX_WAYS
    assert ways.hold((1, 10 * MAX_WAYS - 1)) == LONGEST_HOLD
    assert ways.hold((1, 0)) == 0


# --- everything together --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_random_harm_loses_and_repeats_no_byte_and_stops_nothing_for_two_seconds(
    seed: int,
) -> None:
    """Both directions at once, a running checksum of what arrives; one of the links is whole at any time."""
    rng = random.Random(seed)
    road = Road()
    written, arrived = ([hashlib.sha256(), hashlib.sha256()] for _ in range(2))
    sent, seen, served = [0, 0], [0, 0], [road.now, road.now]
    for _ in range(20):
        harmed = rng.choice([DIRECT, RELAY])
        kind = rng.choice(["cut", "narrow", "one direction"])
        if kind == "cut":
            road.cut(harmed)
        elif kind == "narrow":
            road.narrow(harmed, 1000, 0, 1)
        else:
            road.narrow(harmed, 0, rng.randrange(2))
        for turn in range(rng.randrange(5, 100)):
            for side in (0, 1):
                data = rng.randbytes(rng.randrange(1, 4000))
                written[side].update(data)
                sent[side] += len(data)
                road.write(data, side)
            road.run(0.05)
            for side in (0, 1):
                got = road.received.get((1 - side, road.stream), bytearray())
                if len(got) > seen[side]:
                    arrived[side].update(got[seen[side] :])
                    seen[side], served[side] = len(got), road.now
                assert road.now - served[side] <= 2.0
            if turn == 60:
                road.mend(harmed)
        road.mend(harmed)
        road.run(0.5)
        served = [road.now, road.now]
    road.run(10)
    for side in (0, 1):
        arrived[side].update(road.got(1 - side)[seen[side] :])
        assert len(road.got(1 - side)) == sent[side]
        assert arrived[side].digest() == written[side].digest()


def test_a_link_of_less_rank_than_was_thought_is_left() -> None:
    """As soon as that is known, and no byte is lost or repeated."""
    road = Road()
    road.write(b"before ")
    for session in road.sessions:
        session.rerank(DIRECT, 0, 0, road.now)
        session.rerank(99, 5, 0, road.now)
    road.write(b"after")
    road.run(1)
    assert road.chosen == [RELAY, RELAY]
    assert road.got() == b"before after"
