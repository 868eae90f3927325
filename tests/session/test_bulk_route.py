"""Bulk moves to the link that is measured to be faster, and comes back; nothing but bulk moves."""

from __future__ import annotations

from crowline.session.bulk_route import (
    FAST,
    FIRST_REST,
    PAUSE,
    TRIAL,
    WISH_INTERVAL,
    BulkRoute,
    Natural,
    Other,
)
from crowline.session.throughput import WINDOW

UDP, TCP = 1, 2
RTT = 0.08
STEP = 0.05  # seconds between two looks
IDLE = Other(TCP, RTT)


class Sender:
    """Bulk in virtual time: what arrives of it depends on the link that carries."""

    def __init__(self, **rates: float) -> None:
        self.route = BulkRoute()
        self.rates = {UDP: rates["udp"], TCP: rates.get("tcp", 0.0)}
        self.now = 1000.0
        self.rtt = RTT
        self.link = UDP
        self.moves: list[int] = []
        self.wishes = 0
        self.resends = 0
        self.carried = {UDP: 0.0, TCP: 0.0}

    def run(self, seconds: float, other: Other | None = IDLE, *, is_busy: bool = True) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            if is_busy:
                self.route.meter.full()
                size = int(self.rates[self.link] * STEP)
                self.route.meter.arrived(size, self.now)
                self.carried[self.link] += size
            verdict = self.route.decide(Natural(UDP, self.rtt), other, 2 << 20, self.now)
            assert verdict is not None
            self.wishes += self.route.take_wish()
            if verdict.link != self.link:
                self.link = verdict.link
                self.moves.append(verdict.link)
                self.resends += verdict.resends


def test_bulk_stays_where_it_is_faster() -> None:
    """A faster link keeps the bulk after its trial, and what the slow one carried is sent again."""
    sender = Sender(udp=0.2e6, tcp=10e6)
    sender.run(60)
    assert sender.moves == [TCP]
    assert sender.resends == 1
    assert sender.carried[TCP] > 0.95 * 10e6 * 58


def test_a_lost_trial_ends_and_rests() -> None:
    """A link that is no faster gets the streams for one trial, then for none until the rest is over."""
    sender = Sender(udp=5e6, tcp=5e6)
    sender.run(FIRST_REST)
    assert sender.moves == [TCP, UDP]
    assert sender.carried[TCP] <= 5e6 * (TRIAL + 2 * STEP)
    sender.run(10)
    assert sender.moves == [TCP, UDP, TCP, UDP]
    sender.run(FIRST_REST + 10)
    assert len(sender.moves) == 4
    sender.run(FIRST_REST)
    assert len(sender.moves) == 6


def test_a_link_that_has_become_much_slower_than_the_other_was_does_not_wait() -> None:
    """The rest spares trials that would end as the last did; a third of the other rate is another case."""
    sender = Sender(udp=6e6, tcp=5e6)
    sender.run(10)
    assert sender.moves == [TCP, UDP]
    sender.rates[UDP] = 2e6
    sender.run(15)
    assert sender.moves == [TCP, UDP]
    sender.rates[UDP] = 0.5e6
    sender.run(10)
    assert sender.moves == [TCP, UDP, TCP]


def test_a_path_with_a_queue_is_full() -> None:
    """Where packets wait before the narrow place, another link would only take from the same."""
    sender = Sender(udp=5e6, tcp=10e6)
    sender.run(30, Other(TCP, 2 * RTT))
    assert sender.moves == []


def test_an_unmeasured_link_is_not_tried() -> None:
    """Nothing is known of a queue before the other link's round trip is."""
    sender = Sender(udp=0.2e6, tcp=10e6)
    sender.run(10, Other(TCP, None))
    assert sender.moves == []


def test_a_fast_link_is_left_alone() -> None:
    """Above a rate no trial is made and no second link is wished for."""
    sender = Sender(udp=1.5 * FAST, tcp=3 * FAST)
    sender.run(10)
    sender.run(10, None)
    assert sender.moves == [] and sender.wishes == 0


def test_a_second_link_is_wished_for_now_and_then() -> None:
    """Slow bulk without another link asks for one, and again after a while."""
    sender = Sender(udp=0.2e6)
    sender.run(2.5 * WISH_INTERVAL, None)
    assert sender.wishes == 3
    assert sender.moves == []


def test_what_is_not_bulk_neither_moves_nor_wishes() -> None:
    """Bytes that do not wait for their link stay on it."""
    sender = Sender(udp=0.2e6, tcp=10e6)
    sender.run(30, None, is_busy=False)
    sender.run(30, is_busy=False)
    assert sender.moves == [] and sender.wishes == 0


def test_everything_comes_back_when_the_bulk_ends() -> None:
    """After a pause the natural link carries again; the next bulk goes at once where it was faster."""
    sender = Sender(udp=0.2e6, tcp=10e6)
    sender.run(20)
    sender.run(PAUSE + 2 * STEP, is_busy=False)
    assert sender.moves == [TCP, UDP]
    began = sender.now
    while sender.link == UDP:
        sender.run(STEP)
    assert sender.now - began < 0.5
    sender.run(10)
    assert sender.moves == [TCP, UDP, TCP]


def test_a_pause_is_noticed_without_anything_else() -> None:
    """While bulk is away there is a time at which to decide again."""
    sender = Sender(udp=0.2e6, tcp=10e6)
    assert sender.route.next_timeout() is None
    sender.run(20)
    at = sender.route.next_timeout()
    assert at is not None and at <= sender.now + PAUSE
    sender.now = at
    sender.run(STEP, is_busy=False)
    assert sender.link == UDP
    assert sender.route.next_timeout() is None


def test_a_winner_that_gets_slow_is_left() -> None:
    """What gets no more than the natural link had gives the bulk back."""
    sender = Sender(udp=2e6, tcp=10e6)
    sender.run(20)
    sender.rates[TCP] = 0.5e6
    sender.run(5)
    assert sender.moves == [TCP, UDP]


def test_the_end_of_the_other_link_brings_everything_back() -> None:
    """A link that ends in its trial is left, and one that takes its place is tried after a while."""
    sender = Sender(udp=0.2e6, tcp=10e6)
    while sender.link == UDP:
        sender.run(STEP)
    sender.run(STEP, None)
    assert sender.moves == [TCP, UDP]
    sender.run(4)
    assert sender.moves == [TCP, UDP]
    sender.run(4)
    assert sender.moves == [TCP, UDP, TCP]


def test_a_natural_link_in_place_of_another_changes_nothing() -> None:
    """While the link that won is still beside it, bulk stays there, and goes there again at once."""
    sender = Sender(udp=0.2e6, tcp=10e6)
    sender.run(20)
    verdict = sender.route.decide(Natural(7, RTT), IDLE, 0, sender.now)
    assert verdict is not None and verdict.link == TCP


def test_another_natural_link_begins_with_nothing() -> None:
    """What was measured of links that are not beside it says nothing about it."""
    sender = Sender(udp=0.2e6, tcp=10e6)
    sender.run(20)
    verdict = sender.route.decide(Natural(7, 0.01), Other(9, 0.01), 0, sender.now)
    assert verdict is not None and verdict.link == 7
    assert sender.route.decide(None, None, 0, sender.now) is None


def near_sender(**rates: float) -> Sender:
    sender = Sender(**rates)
    sender.rtt = 0.001
    return sender


def test_bulk_between_near_machines_moves_at_once() -> None:
    """No trial is waited for where the processors are what is narrow; without a link one is wished for."""
    sender = near_sender(udp=5 * FAST, tcp=4 * FAST)
    sender.run(0.3, None)
    assert sender.wishes == 1 and sender.moves == []
    sender.run(20, Other(TCP, None))
    assert sender.moves == [TCP] and sender.resends == 0


def test_slow_bulk_between_near_machines_stays() -> None:
    """What the processors do without effort is no reason for another link, nor is a path that is long."""
    sender = near_sender(udp=0.9 * FAST, tcp=0.9 * FAST)
    sender.run(0.9)
    assert sender.moves == []
    far = Sender(udp=5 * FAST, tcp=5 * FAST)
    far.run(5)
    assert far.moves == []


def test_a_link_without_a_measured_round_trip_is_not_near() -> None:
    """Nothing is known of it yet."""
    sender = near_sender(udp=5 * FAST, tcp=5 * FAST)
    sender.rtt = 0.0
    sender.run(5)
    assert sender.moves == []


def test_a_near_link_that_is_much_slower_is_left_for_a_while() -> None:
    """Something on the way may hold one transport back; the next move waits as after a lost trial."""
    sender = near_sender(udp=5 * FAST, tcp=1 * FAST)
    sender.run(FIRST_REST - 10)
    assert sender.moves == [TCP, UDP]
    assert sender.carried[TCP] <= 1.5 * FAST * WINDOW


def test_a_source_between_two_near_links_does_not_flap() -> None:
    """The faster link never makes it wait, which is no sign that the bulk has ended."""
    sender = near_sender(udp=5 * FAST, tcp=9 * FAST)
    sender.run(1, Other(TCP, None))
    sender.run(9, Other(TCP, None), is_busy=False)
    assert sender.moves == [TCP]
    sender.run(5, Other(TCP, None), is_busy=False)
    assert sender.moves == [TCP, UDP]
