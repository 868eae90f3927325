"""How much of a stream may be on the way or unread: little at first, more for readers that keep up."""

from __future__ import annotations

import pytest

from crowline.session import windows as budget
from crowline.session.buffers import ReceiveBuffer
from crowline.session.frames import CREDIT, Kind, header
from crowline.session.session import Session
from crowline.session.streams import MAX_STREAMS
from crowline.session.windows import BASE, LARGEST, Reading, Windows
from session_pair import Pair

MIB = 1 << 20


def bulk(rate: float, delay: float, seconds: float, *, slow_reader: bool = False) -> tuple[Pair, int]:
    """A stream that is written to as fast as it goes over a link of `rate` bytes a second."""
    pair = Pair(window=LARGEST)
    pair.link(1, rank=1, delay=delay, room=round(rate * delay))
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, bytes(round(rate * seconds) + LARGEST))
    pair.reading = not slow_reader
    pair.pump()
    return pair, stream


def window_of(pair: Pair, stream: int) -> int:
    known = pair.sessions[1]._streams._table.get(stream)
    assert known is not None
    return known.receiving.window


@pytest.mark.parametrize(("rate", "delay"), [(12.5e6, 0.04), (125e6, 0.01), (1e6, 0.1)])
def test_a_reader_that_keeps_up_gets_a_window_that_fills_its_path(rate: float, delay: float) -> None:
    """After a second or two it holds nothing up, and it is no more than ten times what the path holds."""
    pair, stream = bulk(rate, delay, 4)
    pair.run(2)
    before = len(pair.received[1, stream])
    pair.run(1)
    assert len(pair.received[1, stream]) - before >= 0.9 * rate
    assert window_of(pair, stream) <= max(10 * rate * 2 * delay, 2 * BASE)


def test_a_reader_that_is_slow_keeps_the_window_that_it_began_with() -> None:
    """It reads everything at once now and then, far less often than a round trip; nothing more waits."""
    pair, stream = bulk(12.5e6, 0.01, 1, slow_reader=True)
    for _ in range(100):
        pair.run(0.5)
        while len(pair.sessions[1].read(stream, MIB, pair.now)):
            pass
        pair.pump()
    assert window_of(pair, stream) == BASE


@pytest.mark.parametrize(("path", "idle"), [(7, 0.01), (8, 0.2)])
def test_a_path_is_as_short_as_any_of_its_links_has_found_it(path: int, idle: float) -> None:
    """A link that is made while another is busy has only been measured behind queues."""
    pair = Pair()
    pair.link(1, rank=1, merit=1, rtt=0.01, path=7)
    pair.link(2, rank=2, merit=2, rtt=0.2, delay=0.1, path=path)
    assert pair.sessions[1].links.idle_rtt() == idle


def test_a_read_seldom_has_news_for_the_other_side() -> None:
    """Only with a quarter of the window: its driver need not look for transmits after every one."""
    pair = Pair(window=BASE)
    pair.link(1, rank=1)
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, bytes(BASE))
    pair.reading = False
    pair.run(1)
    reader = pair.sessions[1]
    assert not reader.has_news
    assert len(reader.read(stream, BASE // 8)) and not reader.has_news
    assert len(reader.read(stream, BASE // 8)) and reader.has_news
    pair.pump()
    assert not reader.has_news


def test_the_round_trip_is_asked_for_twice_for_each_look_at_a_window() -> None:
    """It is the least of many; reads come by the thousand."""
    windows, receiving, reading, asked = Windows(), ReceiveBuffer(1 << 20), Reading(0.0), 0

    def idle_rtt() -> float:
        nonlocal asked
        asked += 1
        return 0.0

    for number in range(4096):
        receiving.consumed += 4096
        windows.consumed(receiving, reading, number / 100, idle_rtt)
    assert receiving.window == 1 << 20, "the reader was slow"
    assert 2 <= asked <= 2 * 4096 * 4096 / (receiving.window / 2)


@pytest.mark.parametrize(
    ("rtt", "rate", "window"), [(0.0045, 600e6, 8), (0.003, 600e6, 4), (0.02, 600e6, 16), (0.1, 100e6, 16)]
)
def test_a_window_is_no_larger_than_a_path_needs(rtt: float, rate: float, window: int) -> None:
    """Some of a short round trip is the programs' own, which is no reason for more than is ample."""
    windows = Windows()
    receiving, reading, now = ReceiveBuffer(windows.base), Reading(0.0), 0.0
    while now < 10:
        size = min(1 << 18, receiving.window // 4)
        now += max(size / rate, size / receiving.window * rtt)
        receiving.consumed += size
        windows.consumed(receiving, reading, now, lambda: rtt)
    assert receiving.window == window * MIB


def test_all_windows_together_stay_within_the_budget() -> None:
    """Each that asks gets half of what is there; what one gives back, the next may have."""
    windows = Windows()
    buffers = []
    for _ in range(2 * MAX_STREAMS):
        receiving, reading = ReceiveBuffer(windows.base), Reading(0.0)
        for _ in range(20):
            receiving.consumed += 4 * receiving.window
            windows.consumed(receiving, reading, 0.0, lambda: 0.1)
        buffers.append(receiving)
    assert [each.window for each in buffers[:4]] == [LARGEST, LARGEST // 2, LARGEST // 4, LARGEST // 8]
    grown = sum(each.window - BASE for each in buffers)
    assert 0.99 * budget.SPARE < grown <= budget.SPARE
    windows.give_back(buffers[0])
    reading = Reading(0.0)
    buffers[-1].consumed += 4 * buffers[-1].window
    windows.consumed(buffers[-1], reading, 0.0, lambda: 0.1)
    assert buffers[-1].window > BASE


def test_streams_that_nobody_reads_do_not_hold_up_the_others() -> None:
    """Each has a part of the budget that is its own."""
    pair = Pair(window=LARGEST)
    pair.link(1, rank=1)
    pair.reading = False
    stalled = [pair.sessions[0].open_stream() for _ in range(MAX_STREAMS - 1)]
    for stream in stalled:
        pair.sessions[0].write(stream, bytes(MIB))
    pair.pump()
    pair.run(60)
    pair.reading = True
    free = pair.sessions[0].open_stream()
    pair.sessions[0].write(free, bytes(3 * MIB))
    pair.pump()
    pair.run(60)
    assert len(pair.received[1, free]) == 3 * MIB


def test_a_window_that_was_told_is_told_again_after_a_change_of_link() -> None:
    """Growth that the old link swallowed is not lost."""
    session = Session(initiator=False)
    pair = Pair()
    pair.sessions[1] = session
    pair.link(1, rank=1, delay=0.05, rtt=0.1)
    session.receive(header(Kind.DATA, 0, 0, 40_000) + bytes(40_000), 1, 0.0)
    session.read(0, MIB, 0.0)
    while session.next_transmit() is not None:
        pass
    session.attach(2, pair._pipes[1, 1], 2, 0.1)
    told = [bytes(b"".join(t.data)) for t in iter(session.next_transmit, None) if t.link == 2]
    known = session._streams._table.get(0)
    assert known is not None and known.receiving.window == 2 * BASE
    assert header(Kind.WINDOW, 0, 40_000, 8) + CREDIT.pack(40_000 + 2 * BASE) in told
