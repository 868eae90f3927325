"""Sessions over TLS links in virtual time: nothing is lost, silence is noticed, and a cut is no end."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field

import pytest

from crowline.link import tls
from crowline.link.events import LinkData, LinkUp
from crowline.link.tls import BROKEN_OFF, IDLE_TIMEOUT, TlsLink
from crowline.session.events import LinkChosen, SessionEvent, StreamReadable
from crowline.session.session import Session
from tls_pair import accept, connect

DELAY = 0.02
DIRECT, SPARE = 2, 1
"""Two links by their session numbers, which are their ranks too."""


@dataclass
class Meeting:
    """Two sessions on TLS links, whose lines hold what `queued` allows. `cut` ones swallow it silently."""

    now: float = 0.0
    cut: set[int] = field(default_factory=set)
    sessions: tuple[Session, Session] = field(
        default_factory=lambda: (Session(initiator=True), Session(initiator=False))
    )
    links: dict[tuple[int, int], TlsLink] = field(default_factory=dict)
    events: list[list[SessionEvent]] = field(default_factory=lambda: [[], []])
    received: bytearray = field(default_factory=bytearray)
    reasons: dict[int, list[str]] = field(default_factory=dict)
    _line: list[tuple[float, int, int, int, bytes]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def open(self, number: int) -> None:
        self.links[0, number], self.links[1, number] = connect(now=self.now), accept(now=self.now)
        self.run(0.2)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self._pump()
        while (due := self._due()) <= end:
            self.now = max(self.now, due)
            while self._line and self._line[0][0] <= self.now:
                _, _, side, number, data = heapq.heappop(self._line)
                self.links[1 - side, number].queued -= len(data)
                self.links[side, number].receive(data, self.links[side, number].destination, self.now)
            for machine in (*self.sessions, *self.links.values()):
                if (at := machine.next_timeout()) is not None and at <= self.now:
                    machine.handle_timeout(self.now)
            self._pump()
        self.now = end

    def disconnect(self, number: int) -> None:
        """TCP ends; what is on its way is lost."""
        self._line = [entry for entry in self._line if entry[3] != number]
        heapq.heapify(self._line)
        for side in (0, 1):
            self.links[side, number].disconnected()
        self._pump()

    def choices(self, side: int) -> list[int | None]:
        return [event.link for event in self.events[side] if isinstance(event, LinkChosen)]

    def _due(self) -> float:
        machines = (*self.sessions, *self.links.values())
        times = [at for machine in machines if (at := machine.next_timeout()) is not None]
        return min([*times, *(entry[0] for entry in self._line[:1])], default=math.inf)

    def _pump(self) -> None:
        busy = True
        while busy:
            pumped = [self._pump_link(side, number) for side, number in list(self.links)]
            busy = any(pumped + [self._pump_session(side) for side in (0, 1)])

    def _pump_link(self, side: int, number: int) -> bool:
        link, busy = self.links[side, number], False
        while (transmit := link.next_transmit()) is not None:
            busy = True
            link.queued += len(transmit.data)
            if number not in self.cut:
                entry = (self.now + DELAY, next(self._order), 1 - side, number, bytes(transmit.data))
                heapq.heappush(self._line, entry)
        while (event := link.next_event()) is not None:
            busy = True
            if isinstance(event, LinkUp):
                self.sessions[side].attach(number, link, number, self.now)
            elif isinstance(event, LinkData):
                self.sessions[side].receive(event.data, number, self.now)
            else:
                self.reasons.setdefault(number, []).append(event.reason)
                self.sessions[side].detach(number, self.now)
        return busy

    def _pump_session(self, side: int) -> bool:
        session, busy = self.sessions[side], False
        while (transmit := session.next_transmit()) is not None:
            busy = True
            for part in transmit.data:
                self.links[side, transmit.link].send(part, self.now)
        while (event := session.next_event()) is not None:
            busy = True
            self.events[side].append(event)
            if isinstance(event, StreamReadable):
                while len(data := session.read(event.stream, 1 << 20)):
                    self.received += data
        return busy


def sending(size: int) -> tuple[Meeting, bytes, int]:
    """Two links up, and a stream with its first bytes on the better one."""
    meeting = Meeting()
    meeting.open(SPARE)
    meeting.open(DIRECT)
    contents = random.Random(size).randbytes(size)
    stream = meeting.sessions[0].open_stream()
    meeting.sessions[0].write(stream, contents)
    return meeting, contents, stream


def test_a_stream_arrives_whole() -> None:
    """Megabytes, in order, and its end after them."""
    meeting, contents, stream = sending(5_000_000)
    meeting.sessions[0].finish(stream)
    meeting.run(2)
    assert meeting.received == contents
    assert meeting.sessions[1].is_ended(stream) and meeting.sessions[0].is_delivered(stream)


def test_a_link_at_rest_does_not_look_silent() -> None:
    """A minute after the last byte both sides are where they were: what needs no reply was answered."""
    meeting, contents, stream = sending(100_000)
    meeting.sessions[0].finish(stream)
    meeting.run(60)
    assert meeting.received == contents
    assert meeting.choices(0) == meeting.choices(1) == [SPARE, DIRECT]


def test_a_link_that_falls_silent_is_left_within_two_seconds_and_ends_after_thirty() -> None:
    """The stream goes on by the other link, with every byte once."""
    meeting, contents, stream = sending(3_000_000)
    meeting.run(0.03)
    meeting.cut.add(DIRECT)
    meeting.sessions[0].finish(stream)
    meeting.run(2)
    assert meeting.choices(0)[-1] == SPARE
    assert meeting.received == contents
    assert DIRECT not in meeting.reasons
    meeting.run(IDLE_TIMEOUT)
    assert meeting.reasons == {DIRECT: ["the other side fell silent"] * 2}


def test_a_link_that_breaks_off_is_no_end_of_a_stream() -> None:
    """Half of it has arrived: the rest comes by the other link, and only then the end."""
    meeting, contents, stream = sending(3_000_000)
    meeting.run(0.03)
    meeting.disconnect(DIRECT)
    assert meeting.reasons == {DIRECT: [BROKEN_OFF] * 2}
    assert len(meeting.received) < len(contents)
    assert not meeting.sessions[1].is_ended(stream)
    meeting.run(1)
    assert meeting.received == contents
    assert not meeting.sessions[1].is_ended(stream)
    meeting.sessions[0].finish(stream)
    meeting.run(1)
    assert meeting.sessions[1].is_ended(stream)


def test_a_stream_outlives_links_whose_keys_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of RFC 8446 §5.5 comes in the middle of it, on one link after the other."""
    meeting, contents, _ = sending(3_000_000)
    monkeypatch.setattr(tls, "RECORD_LIMIT", 60)
    meeting.run(2)
    assert set(meeting.reasons) == {DIRECT, SPARE}
    assert 0 < len(meeting.received) < len(contents)
    monkeypatch.undo()
    meeting.open(DIRECT + 1)
    meeting.run(2)
    assert meeting.received == contents
