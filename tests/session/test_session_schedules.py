"""Whatever happens in whatever order: every byte arrives once, nothing is left over, and no timer spins."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.session.events import SessionBroken
from crowline.session.windows import SPARE
from session_pair import Pair

# Sizes of what is written to a stream, rooms and delays of links, and seconds between two events.
SIZES = (0, 1, 1000, 60_000, 400_000)
ROOMS = (2000, 1 << 14, 1 << 16, 1 << 19)
DELAYS = (0.001, 0.01, 0.05, 0.2)
PAUSES = (0.0, 0.001, 0.03, 0.2, 1.0, 3.0)
# Turns of a session within one moment: more are a timer that is due again and again.
MOST_TURNS = 5000

EVENTS = (
    "link",
    "link",
    "cut",
    "mend",
    "end",
    "end here first",
    "fade",
    "write",
    "write",
    "write",
    "reset",
    "rest",
)


@dataclass
class Schedule(Pair):
    """Two sessions, their links that are up, and what was written to each stream by each side."""

    up: list[int] = field(default_factory=list)
    written: dict[tuple[int, int], bytes] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)
    resting: set[tuple[int, int]] = field(default_factory=set)
    links: int = 0

    def happen(self, event: str, draw: random.Random) -> None:
        number = draw.choice(self.up) if self.up else None
        side = draw.randrange(2)
        if event == "link" and len(self.up) < 5:
            self.begin(draw)
        elif event == "write" and self.sessions[side].may_open_stream():
            self.write(side, draw)
        elif event == "reset" and self.written:
            self.reset(side, draw.choice(list(self.written))[1])
        elif number is not None:
            self.harm(event, number, side)
        self.pass_time(draw.choice(PAUSES))

    def begin(self, draw: random.Random) -> None:
        self.links += 1
        self.up.append(self.links)
        delay, room = draw.choice(DELAYS), draw.choice(ROOMS)
        self.link(
            self.links,
            draw.choice((1, 2, 3, 3)),
            delay,
            room,
            merit=draw.choice((0, 1, 5)),
            rtt=draw.choice((None, 2 * delay)),
            makeshift=draw.random() < 0.1,
            is_for_bulk=draw.random() < 0.4,
        )

    def write(self, side: int, draw: random.Random) -> None:
        stream = self.sessions[side].open_stream()
        data = draw.randbytes(draw.choice(SIZES))
        self.written[1 - side, stream] = data
        self.sessions[side].write(stream, data)
        self.sessions[side].finish(stream)
        if draw.random() < 0.2:
            self.resting.add((1 - side, stream))
        self.pump()

    def reset(self, side: int, stream: int) -> None:
        if self.sessions[side]._streams._table.get(stream) is not None:
            self.given_up.add(stream)
        self.sessions[side].reset(stream)
        self.pump()

    def harm(self, event: str, number: int, side: int) -> None:
        if event == "cut":
            self.cut(number)
        elif event == "mend":
            self.mend(number)
        elif event == "fade":
            for session in self.sessions:
                session.links.fade(number)
        elif event.startswith("end"):
            self.up.remove(number)
            self.cut(number)
            if event == "end here first":
                self.sessions[side].detach(number, self.now)
                self.pump()
                self.pass_time(0.3)
            self.detach(number)

    def pass_time(self, seconds: float) -> None:
        end, moment, turns = self.now + seconds, self.now, 0
        while (due := self._due()) is not None and due <= end:
            self.step()
            turns = turns + 1 if self.now == moment else 0
            moment = self.now
            assert turns < MOST_TURNS, "a timer is due again and again"
        self.now = end

    def end(self) -> None:
        """All links work, all readers read, and there is time."""
        for number in self.up:
            self.mend(number)
        self.link(self.links + 1, 3, 0.005, 1 << 19)
        rested, self.resting = self.resting, set()
        for side, stream in rested:
            self._read(side, stream)
        for _ in range(20):
            self.pump()
            self.pass_time(10)

    def _read(self, side: int, stream: int) -> None:
        if (side, stream) not in self.resting:
            super()._read(side, stream)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), min_size=3, max_size=30), st.integers(0, 1 << 32))
def test_no_schedule_loses_or_repeats_a_byte_or_leaves_anything(events: list[str], seed: int) -> None:
    """Links that come, die on one side or both, fade and are tried for bulk; resets, and readers at rest."""
    draw = random.Random(seed)
    pair = Schedule(window=draw.choice((1 << 14, 1 << 16, 16 << 20)))
    for event in events:
        pair.happen(event, draw)
    pair.end()
    for (side, stream), data in pair.written.items():
        received = bytes(pair.received.get((side, stream), b""))
        assert data.startswith(received)
        assert stream in pair.given_up or received == data
    for session, told in zip(pair.sessions, pair.events, strict=True):
        assert not any(isinstance(event, SessionBroken) for event in told)
        streams = session._streams
        assert not streams._table.resets
        assert streams.in_flight == 0
        alive = sum(known.receiving.window - streams._windows.base for _, known in streams._table)
        assert streams._windows.spare + alive == SPARE
