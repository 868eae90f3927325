"""The hub under any order of events: at most two sides, one winner, nothing lost, nothing misled."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from crowline.rendezvous import wire
from crowline.rendezvous.limits import HubLimits
from hub_bench import Bench

LIMITS = HubLimits(claims_per_minute=10**6, allocations_per_minute=10**6, mailboxes_per_source=10**6)


@dataclass(eq=False)
class Side:
    """What one side has done and got, by its own account."""

    meeting: Meeting
    connection: int | None
    token: str
    said: list[bytes] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)
    logged: int = 0
    heard: int = 0
    is_gone: bool = False
    away_since: float = 0.0


@dataclass(eq=False)
class Meeting:
    """One life of a number."""

    number: int
    sides: list[Side] = field(default_factory=list)
    winners: int = 0

    def other(self, side: Side) -> Side | None:
        return next((each for each in self.sides if each is not side), None)


class HubMachine(RuleBasedStateMachine):
    """Sides come, talk, break off, come back, leave and let time pass in any order."""

    sides = Bundle("sides")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(LIMITS)
        self.meetings: list[Meeting] = []
        self.counter = 0

    @rule(target=sides)
    def host(self) -> Side:
        connection = self.bench.connect()
        [allocated] = self.bench.say(connection, wire.Allocate(wire.VERSION, b"host"))
        assert isinstance(allocated, wire.Allocated)
        taken = {
            meeting.number for meeting in self.meetings if not all(side.is_gone for side in meeting.sides)
        }
        assert allocated.number not in taken
        meeting = Meeting(allocated.number)
        side = Side(meeting, connection, allocated.token, heard=2)
        meeting.sides.append(side)
        self.meetings.append(meeting)
        return side

    @precondition(lambda self: self.meetings)
    @rule(target=sides, data=st.data())
    def claim(self, data: st.DataObject) -> Side:
        meeting = data.draw(st.sampled_from(self.meetings))
        connection = self.bench.connect()
        [answer] = self.bench.say(connection, wire.Claim(wire.VERSION, meeting.number, b"join"))
        if not isinstance(answer, wire.Claimed):
            assert answer == wire.Error("no-such-code")
            assert len(meeting.sides) == 2 or meeting.sides[0].is_gone
            return Side(meeting, None, "", is_gone=True)
        assert len(meeting.sides) == 1 and not meeting.sides[0].is_gone
        meeting.winners += 1
        side = Side(meeting, connection, answer.token, heard=2)
        meeting.sides.append(side)
        return side

    @rule(side=sides)
    def relay(self, side: Side) -> None:
        other = side.meeting.other(side)
        if side.connection is None or side.is_gone or other is None:
            return
        self.counter += 1
        body = b"%d" % self.counter
        self.bench.say(side.connection, wire.Relay("sealed", body))
        side.said.append(body)

    @rule(side=sides)
    def frame(self, side: Side) -> None:
        if side.connection is None or side.is_gone:
            return
        other = side.meeting.other(side)
        before = {connection: len(frames) for connection, frames in self.bench.frames.items()}
        self.bench.frame(side.connection, b"frame")
        grown = [c for c, frames in self.bench.frames.items() if len(frames) > before.get(c, 0)]
        expected = [other.connection] if other is not None and other.connection is not None else []
        assert grown == expected

    @rule(side=sides)
    def break_off(self, side: Side) -> None:
        self._listen()
        if side.connection is not None:
            self.bench.disconnect(side.connection)
            side.connection, side.away_since = None, self.bench.now

    @rule(side=sides)
    def come_back(self, side: Side) -> None:
        self._listen()
        if not side.token:
            return
        connection = self.bench.connect()
        answers = self.bench.say(connection, wire.Resume(wire.VERSION, side.token, side.logged))
        if side.is_gone:
            assert answers == [wire.Error("lost")]
            return
        assert answers[0] == wire.Resumed(len(side.said))
        side.connection, side.heard = connection, 1

    @rule(side=sides)
    def leave(self, side: Side) -> None:
        self._listen()
        if side.connection is not None and not side.is_gone:
            self.bench.say(side.connection, wire.Leave())
            side.is_gone, side.connection = True, None

    @rule(side=sides)
    def burn(self, side: Side) -> None:
        self._listen()
        if side.connection is None or side.is_gone:
            return
        self.bench.say(side.connection, wire.Burn())
        for each in side.meeting.sides:
            each.is_gone, each.connection = True, None

    @rule(seconds=st.sampled_from([1, 10, 29, 31]))
    def wait(self, seconds: int) -> None:
        self._listen()
        for side in self._everyone():
            if side.connection is not None:
                self.bench.say(side.connection, wire.Ping())
        self.bench.pass_time(seconds)
        for side in self._everyone():
            if side.connection is None and self.bench.now - side.away_since >= LIMITS.grace:
                side.is_gone = True

    @invariant()
    def the_hub_knows_who_may_come_back(self) -> None:
        for side in self._everyone():
            found = self.bench.hub._store.by_token(side.token)
            assert side.is_gone == (found is None or found[1].gone)

    @invariant()
    def nothing_is_lost_or_misled(self) -> None:
        self._listen()
        for meeting in self.meetings:
            assert len(meeting.sides) <= 2
            assert meeting.winners <= 1
            for side in meeting.sides:
                other = meeting.other(side)
                said = other.said if other is not None else []
                assert side.got == said[: len(side.got)]
                if side.connection is not None and not side.is_gone:
                    assert side.got == said

    def _everyone(self) -> list[Side]:
        return [side for meeting in self.meetings for side in meeting.sides]

    def _listen(self) -> None:
        for meeting in self.meetings:
            for side in meeting.sides:
                if side.connection is None:
                    continue
                heard = self.bench.heard[side.connection]
                for message in heard[side.heard :]:
                    if isinstance(message, wire.Relayed | wire.Joined):
                        side.logged += 1
                    if isinstance(message, wire.Relayed):
                        side.got.append(message.body)
                side.heard = len(heard)
                if side.connection in self.bench.closed:
                    side.connection = None


HubMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestHub = HubMachine.TestCase
