"""Two sessions joined by links made of function calls, in virtual time."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

from crowline.base.machine import Buffer
from crowline.session.events import SessionEvent, StreamReadable
from crowline.session.links import Hints
from crowline.session.session import Session


class Pipe:
    """One end of a link: bytes leave in order and arrive after `delay`, or once what stopped them is over."""

    def __init__(self, pair: Pair, side: int, link: int, delay: float, room: int) -> None:
        self.pair, self.side, self.link, self.delay, self.capacity = pair, side, link, delay, room
        self.in_flight = 0
        self.cut = False
        # Bytes that one packet may have; behind a larger one everything waits.
        self.limit: int | None = None
        self.held: list[bytes] = []
        self.unanswered_since: float | None = None

    def room(self) -> int:
        return self.capacity - self.in_flight

    def send(self, data: Buffer, now: float) -> None:
        if self.unanswered_since is None:
            self.unanswered_since = now
        self.in_flight += len(data)
        if self.cut or self.held or (self.limit is not None and len(data) > self.limit):
            self.held.append(bytes(data))
            if self.limit:
                # The packets that ask after the large one are small, and are answered.
                self.unanswered_since = None
        else:
            self.pair.deliver(self, bytes(data), now + self.delay)

    def mend(self, now: float) -> None:
        self.cut, self.limit = False, None
        held, self.held = self.held, []
        for data in held:
            self.pair.deliver(self, data, now + self.delay)


@dataclass
class Pair:
    """Both sides; side 0 opens the even streams."""

    window: int = 1 << 16
    now: float = 0.0
    sessions: list[Session] = field(init=False)
    events: list[deque[SessionEvent]] = field(default_factory=lambda: [deque(), deque()])
    received: dict[tuple[int, int], bytearray] = field(default_factory=dict)
    reading: bool = True

    def __post_init__(self) -> None:
        self.sessions = [
            Session(initiator=True, window=self.window),
            Session(initiator=False, window=self.window),
        ]
        self._pipes: dict[tuple[int, int], Pipe] = {}
        self._queue: list[tuple[float, int, Pipe, bytes]] = []
        self.bytes_sent = 0
        self._order = itertools.count()

    def link(
        self,
        number: int,
        rank: int,
        delay: float = 0.01,
        room: int = 1 << 15,
        *,
        merit: int = 0,
        rtt: float | None = None,
        makeshift: bool = False,
        is_for_bulk: bool = False,
        path: int = 0,
    ) -> None:
        hints = Hints(merit, rtt, makeshift, is_for_bulk=is_for_bulk, path=path)
        for side in (0, 1):
            self._pipes[side, number] = Pipe(self, side, number, delay, room)
        for side in (0, 1):
            self.sessions[side].attach(number, self._pipes[side, number], rank, self.now, hints)
        self.pump()

    def cut(self, number: int) -> None:
        """Nothing arrives any more, not even what is on its way; nobody is told."""
        for side in (0, 1):
            self._pipes[side, number].cut = True
        for _, _, pipe, data in sorted(entry for entry in self._queue if entry[2].link == number):
            pipe.held.append(data)
        self._queue = [entry for entry in self._queue if entry[2].link != number]
        heapq.heapify(self._queue)

    def mend(self, number: int) -> None:
        """What has waited and what is sent from now on arrives."""
        for side in (0, 1):
            self._pipes[side, number].mend(self.now)

    def narrow(self, number: int, limit: int, *sides: int) -> None:
        """From those sides packets above `limit` bytes do not arrive (0: none), and what follows waits."""
        for side in sides:
            self._pipes[side, number].limit = limit

    def detach(self, number: int) -> None:
        self.cut(number)
        for session in self.sessions:
            session.detach(number, self.now)
        self.pump()

    def deliver(self, pipe: Pipe, data: bytes, when: float) -> None:
        self.bytes_sent += len(data)
        heapq.heappush(self._queue, (when, next(self._order), pipe, data))

    def pump(self) -> None:
        busy = True
        while busy:
            busy = False
            for side, session in enumerate(self.sessions):
                while (transmit := session.next_transmit()) is not None:
                    busy = True
                    for part in transmit.data:
                        self._pipes[side, transmit.link].send(part, self.now)
                while (event := session.next_event()) is not None:
                    busy = True
                    self.events[side].append(event)
                    if isinstance(event, StreamReadable) and self.reading:
                        self._read(side, event.stream)

    def step(self) -> bool:
        """Jump to the next delivery or deadline; False when there is none."""
        due = self._due()
        if due is None:
            return False
        self.now = max(self.now, due)
        while self._queue and self._queue[0][0] <= self.now:
            _, _, pipe, data = heapq.heappop(self._queue)
            pipe.in_flight -= len(data)
            self._pipes[1 - pipe.side, pipe.link].unanswered_since = None
            # What arrived is acknowledged below the session, as QUIC does.
            pipe.unanswered_since = None
            self.sessions[1 - pipe.side].receive(data, pipe.link, self.now)
        for session in self.sessions:
            if (t := session.next_timeout()) is not None and t <= self.now:
                session.handle_timeout(self.now)
        self.pump()
        return True

    def run(self, seconds: float) -> None:
        """Let `seconds` pass, with everything that is due in them."""
        end = self.now + seconds
        while (due := self._due()) is not None and due <= end:
            self.step()
        self.now = end

    def _due(self) -> float | None:
        times = [t for s in self.sessions if (t := s.next_timeout()) is not None]
        if self._queue:
            times.append(self._queue[0][0])
        return min(times, default=None)

    def _read(self, side: int, stream: int) -> None:
        while len(data := self.sessions[side].read(stream, 1 << 20)):
            self.received.setdefault((side, stream), bytearray()).extend(data)
