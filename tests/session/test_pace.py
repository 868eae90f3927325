"""How fast stream bytes leave: as fast as both sides want, and no faster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.session.frames import Kind, header
from crowline.session.pace import MAX_RATE, Pace, Pacing
from session_pair import Pair


def run(pace: Pace, seconds: float, *, late: float = 0.0) -> int:
    """Bytes that left in that time, for somebody who always has more and wakes up that much too late."""
    now, sent, end = 0.0, 0, seconds
    while now < end:
        if room := pace.room(now):
            pace.spend(room)
            sent += room
        now = max(now, pace.ready_at()) + late
    return sent


@pytest.mark.parametrize("rate", [2_000, 100_000, 10_000_000, 1_000_000_000])
@pytest.mark.parametrize("late", [0.0, 0.001, 0.02])
def test_a_rate_holds_within_five_percent(rate: int, late: float) -> None:
    """Over ten seconds, also where timers are late."""
    assert run(Pace(rate, 0.0), 10.0, late=late) == pytest.approx(10 * rate, rel=0.05)


def test_a_silence_is_not_made_up_for() -> None:
    """After a minute without anything to send, no more than a moment's worth leaves at once."""
    pace = Pace(1_000_000, 0.0)
    assert pace.room(60.0) <= 100_000


def test_what_was_not_there_is_owed() -> None:
    """Whoever sends more than there was room for waits for longer."""
    pace = Pace(1_000_000, 0.0)
    pace.room(1.0)
    pace.spend(2_100_000)
    assert pace.room(2.9) == 0
    assert pace.room(3.1) > 0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 1 << 20)), max_size=40), st.integers(1, 1 << 40))
def test_no_pattern_of_use_exceeds_the_rate(uses: list[tuple[float, int]], rate: int) -> None:
    """Whatever the pauses and sizes: the time times the rate, and what may be saved up."""
    pace, now, sent = Pace(rate, 0.0), 0.0, 0
    for pause, wanted in uses:
        now += pause
        taken = min(pace.room(now), wanted)
        pace.spend(taken)
        sent += taken
    assert sent <= now * rate + max(0.1 * rate, 2400) + 1


def test_it_wakes_up_when_something_may_leave() -> None:
    """Neither in vain nor later than it must."""
    pace = Pace(50_000, 0.0)
    pace.spend(10_000)
    at = pace.ready_at()
    assert pace.room(at) > 0
    slower = Pace(50_000, 0.0)
    slower.spend(10_000)
    assert slower.room(at - 0.001) == 0


def test_without_a_wish_there_is_no_limit_and_no_timer() -> None:
    """Everything that a link has room for may leave."""
    pacing = Pacing()
    assert pacing.room(1 << 30, 0.0) == 1 << 30
    pacing.spend(1 << 30)
    assert pacing.next_timeout() is None


def test_the_slower_of_two_wishes_holds() -> None:
    """Whoever had it first; the other side can slow this one down, but not beyond its own wish."""
    pacing = Pacing()
    pacing.limit(1_000_000, 0.0)
    pacing.asked(10_000_000, 0.0)
    assert pacing.room(1 << 20, 10.0) == 100_000
    pacing.asked(100_000, 10.0)
    assert pacing.room(1 << 20, 10.0) == 0
    assert pacing.next_timeout() is not None
    assert pacing.room(1 << 20, 20.0) == 10_000
    pacing.asked(MAX_RATE, 20.0)
    assert pacing.room(1 << 20, 30.0) == 100_000


def test_asking_again_for_the_same_neither_adds_nor_takes() -> None:
    """A frame that is repeated with each new link changes nothing."""
    pacing = Pacing()
    pacing.asked(1_000_000, 0.0)
    before = pacing.room(1 << 20, 1.0)
    for _ in range(100):
        pacing.asked(1_000_000, 1.0)
    assert pacing.room(1 << 20, 1.0) == before


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("after", [True, False])
def test_either_side_limits_what_a_session_carries(side: int, after: bool) -> None:
    """Whether a link is there already or comes later, and by one link after the other."""
    pair = Pair(window=1 << 20)
    if not after:
        pair.sessions[side].limit(100_000)
    pair.link(1, rank=1, delay=0.02)
    if after:
        pair.sessions[side].limit(100_000)
    pair.run(0.1)
    stream = pair.sessions[0].open_stream()
    data = bytes(1_500_000)
    pair.sessions[0].write(stream, data)
    pair.sessions[0].finish(stream)
    pair.pump()
    pair.run(5)
    assert len(pair.received[1, stream]) == pytest.approx(500_000, rel=0.05)
    pair.link(2, rank=2, delay=0.01)
    pair.detach(1)
    pair.run(5)
    assert len(pair.received[1, stream]) == pytest.approx(1_000_000, rel=0.05)
    pair.run(6)
    assert pair.received[1, stream] == data


def test_what_is_held_back_wakes_nobody_while_there_is_no_link() -> None:
    """Without one a session has nothing to do at any time."""
    pair = Pair(window=1 << 20)
    pair.link(1, rank=1)
    pair.sessions[0].limit(1000)
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, bytes(100_000))
    pair.run(1)
    pair.detach(1)
    wakes = 0
    while (at := pair.sessions[0].next_timeout()) is not None and at < pair.now + 60:
        pair.sessions[0].handle_timeout(max(at, pair.now))
        assert pair.sessions[0].next_transmit() is None
        wakes += 1
        assert wakes < 10


def test_datagrams_do_not_wait_and_streams_make_up_for_them() -> None:
    """What is late is worth nothing; the sum still holds."""
    pair = Pair(window=1 << 20)
    pair.link(1, rank=1)
    pair.sessions[0].limit(100_000)
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, bytes(1_000_000))
    for _ in range(50):
        pair.sessions[0].send_datagram(bytes(5_000))
        pair.run(0.1)
    assert len(pair.received[1, stream]) == pytest.approx(250_000, rel=0.1)


@pytest.mark.parametrize("rate", [0, 1, MAX_RATE])
def test_a_peer_may_ask_for_any_pace(rate: int) -> None:
    """As often as it likes: it slows down what is sent to itself, and nothing else."""
    pair = Pair(window=1 << 20)
    pair.link(1, rank=1)
    for _ in range(1000):
        pair.sessions[0].receive(header(Kind.PACE, 0, rate), 1, pair.now)
    stream = pair.sessions[1].open_stream()
    pair.sessions[1].write(stream, bytes(100_000))
    pair.run(1)
    assert len(pair.received[0, stream]) == 100_000


def test_nothing_at_all_is_a_very_slow_rate() -> None:
    """A peer may grant as little as it likes; nothing is divided by zero."""
    pacing = Pacing()
    pacing.asked(0, 0.0)
    assert pacing.room(1 << 20, 10.0) == 0
    assert pacing.room(1 << 20, 2000.0) > 0
