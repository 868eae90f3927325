"""Two hosts behind two NATs that try a TCP simultaneous open, packet by packet in virtual time.

A NAT keeps one state for the one pair of addresses: nothing, a hole, or a hole that a RST has closed. What it
does with a SYN that no hole lets in is its `Temper`. Kernels repeat a SYN every second, and answer what does
not fit (RFC 9293 §3.10.7.3).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from crowline.base.addresses import Address
from crowline.punch.syn_budget import REPEAT, SynBudget
from crowline.punch.tcp_schedule import Abandon, Attempt, PunchFailed, TcpSchedule


class Temper(Enum):
    """What a NAT does with a SYN that comes too early."""

    DROP = auto()
    RESET = auto()
    """As Linux with a rule for it: a hole that a RST has closed drops what comes, until it is used again."""
    RESET_ALWAYS = auto()
    """Forgets a hole that a RST has closed."""


class Hole(Enum):
    NONE = auto()
    OPEN = auto()
    CLOSED = auto()


class State(Enum):
    SYN_SENT = auto()
    SYN_RECEIVED = auto()
    ESTABLISHED = auto()


@dataclass(frozen=True, slots=True)
class Packet:
    """`sender` and `acknowledged` are numbers of attempts, standing for sequence numbers; 0: none."""

    flags: str
    sender: int
    acknowledged: int = 0


@dataclass(eq=False)
class Side:
    """One host and its NAT."""

    schedule: TcpSchedule
    temper: Temper
    hole: Hole = Hole.NONE
    number: int = 0  # of the attempt that has a socket; 0: none has
    state: State = State.SYN_SENT
    connected_at: float | None = None
    failed: PunchFailed | None = None
    syns_out: list[float] = field(default_factory=list)
    other: Side = field(init=False)


@dataclass(frozen=True, slots=True)
class World:
    """`delay` in seconds one way between the NATs; `skew`: how much later the second side begins.

    `routers_tell`: whether a SYN that dies of its hop limit is answered by ICMP, which a quarter of the delay
    suffices for.
    """

    tempers: tuple[Temper, Temper]
    delay: float
    skew: float = 0.0
    routers_tell: bool = True
    loss: float = 0.0


class Run:
    """One attempt of two sides to meet."""

    def __init__(self, world: World, seed: int, *, proven: bool = True, round_trip: float = 0.0) -> None:
        self.world = world
        self.now = 0.0
        self._chance = random.Random(f"{seed} {world}")
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.sides = tuple(self._side(each, proven, round_trip) for each in (0, 1))
        self.sides[0].other, self.sides[1].other = self.sides[1], self.sides[0]

    @property
    def connected_at(self) -> float | None:
        """When both were, in seconds from the first side's start."""
        times = [side.connected_at for side in self.sides]
        return None if None in times else max(time for time in times if time is not None)

    def go(self, until: float = 12.0) -> Run:
        """Let everything happen."""
        for side, start in zip(self.sides, (0.0, self.world.skew), strict=True):
            self._at(start, lambda side=side: self._start(side))
        while self._queue and self.connected_at is None and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        return self

    def _side(self, index: int, proven: bool, round_trip: float) -> Side:
        remote = Address(f"192.0.2.{2 - index}", 5000)
        budget = SynBudget(10)
        if proven:
            budget.prove(remote)
        schedule = TcpSchedule(remote, budget, entropy=self._chance.randbytes, round_trip=round_trip)
        return Side(schedule, self.world.tempers[index])

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (when, self._order, action))

    # --- hosts ------------------------------------------------------------------------------------------

    def _start(self, side: Side) -> None:
        side.schedule.start(self.now)
        self._drive(side)

    def _drive(self, side: Side) -> None:
        """What a driver does: the commands, the events, the timer."""
        while (command := side.schedule.next_transmit()) is not None:
            if isinstance(command, Attempt):
                self._connect(side, command)
            elif isinstance(command, Abandon):
                self._close(side, command.number)
        while (event := side.schedule.next_event()) is not None:
            side.failed = event
        when = side.schedule.next_timeout()
        if when is not None:
            self._at(max(when, self.now), lambda: self._tick(side, when))

    def _tick(self, side: Side, when: float) -> None:
        if side.schedule.next_timeout() == when:
            side.schedule.handle_timeout(self.now)
            self._drive(side)

    def _connect(self, side: Side, attempt: Attempt) -> None:
        assert side.number == 0, "one attempt at a time"
        side.number, side.state = attempt.number, State.SYN_SENT
        self._syn(side, attempt.number, dies=attempt.hop_limit is not None)

    def _syn(self, side: Side, number: int, *, dies: bool = False) -> None:
        """Send it, and again after a second as long as nothing came."""
        if side.number != number or side.state is not State.SYN_SENT:
            return
        side.syns_out.append(self.now)
        self._send(side, Packet("S", number), dies=dies)
        self._at(self.now + REPEAT, lambda: self._syn(side, number))

    def _close(self, side: Side, number: int) -> None:
        if side.number == number:
            if side.state is not State.SYN_SENT:
                self._send(side, Packet("R", number))
            side.number = 0

    def _take(self, side: Side, packet: Packet) -> None:
        """A packet reached the host."""
        fits = side.number != 0 and packet.acknowledged in (0, side.number)
        if packet.flags == "R":
            if fits and (packet.acknowledged or side.state is not State.SYN_SENT):
                self._reset(side)
        elif not fits:
            self._send(side, Packet("R", 0, packet.sender))
        elif packet.flags == "S":
            side.state = State.SYN_RECEIVED
            self._send(side, Packet("SA", side.number, packet.sender))
        elif side.state is not State.ESTABLISHED:
            side.state, side.connected_at = State.ESTABLISHED, self.now
            side.schedule.opened(side.number)
            self._send(side, Packet("A", side.number, packet.sender))

    def _reset(self, side: Side) -> None:
        number, side.number = side.number, 0
        if side.state is State.ESTABLISHED:
            side.connected_at = None
            side.schedule.lost(number, self.now)
        else:
            side.schedule.refused(number, self.now)
        self._drive(side)

    def _unreachable(self, side: Side, number: int) -> None:
        if side.number == number and side.state is State.SYN_SENT:
            side.number = 0
            side.schedule.unreachable(number, self.now)
            self._drive(side)

    # --- NATs and the way between -----------------------------------------------------------------------

    def _send(self, side: Side, packet: Packet, *, dies: bool = False) -> None:
        if packet.flags == "S":
            side.hole = Hole.OPEN
        elif packet.flags == "R":
            self._reset_hole(side)
        if dies:
            if self.world.routers_tell:
                self._at(self.now + self.world.delay / 2, lambda: self._unreachable(side, packet.sender))
        elif self._chance.random() >= self.world.loss:
            self._at(self.now + self.world.delay, lambda: self._arrive(side.other, packet))

    def _arrive(self, side: Side, packet: Packet) -> None:
        """At the outside of a NAT."""
        if side.hole is Hole.OPEN:
            if packet.flags == "R":
                self._reset_hole(side)
            self._take(side, packet)
        elif packet.flags == "S" and side.hole is Hole.NONE and side.temper is not Temper.DROP:
            refusal = Packet("R", 0, packet.sender)
            self._at(self.now + self.world.delay, lambda: self._arrive(side.other, refusal))

    @staticmethod
    def _reset_hole(side: Side) -> None:
        side.hole = Hole.NONE if side.temper is Temper.RESET_ALWAYS else Hole.CLOSED
