"""Whose turn it is: two sides that dial one after the other, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from crowline.base.addresses import Address
from crowline.punch.dial_plan import TRIES, Connect, DialPlan, Outcome
from crowline.punch.syn_budget import SynBudget
from crowline.punch.turns import TOTAL_LIMIT, HandOver, Turn, Turns, TurnsFailed

DELAY = 0.02  # seconds one way


@dataclass(eq=False)
class Side:
    """One side; `reachable` are the addresses of the other side at which this one gets an answer."""

    name: str
    turns: Turns
    reachable: set[Address]
    dials: list[tuple[float, Address]] = field(default_factory=list)
    failed: TurnsFailed | None = None
    other: Side = field(init=False)


class Meeting:
    """Both sides, and the signals between them; `tells` whether a hand-over arrives."""

    def __init__(
        self,
        addresses: int,
        reachable: tuple[set[int], set[int]],
        *,
        tells: bool = True,
        refuses: bool = True,
    ) -> None:
        self.now = 0.0
        self.connected: tuple[str, float] | None = None
        self._tells, self._refuses = tells, refuses
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.sides = tuple(self._side(index, addresses, reachable[index]) for index in (0, 1))
        self.sides[0].other, self.sides[1].other = self.sides[1], self.sides[0]

    def go(self) -> Meeting:
        for side in self.sides:
            side.turns.start(0.0)
            self._drive(side)
        while self._queue:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        return self

    def _side(self, index: int, count: int, reachable: set[int]) -> Side:
        plan = DialPlan(SynBudget(100), entropy=random.Random(index).randbytes, in_turn=True)
        addresses = [Address(f"192.0.2.{index + 1}", port) for port in range(1, 1 + count)]
        for address in addresses:
            plan.add(address, 0.0)
        turns = Turns(plan, begins=index == 0, own_addresses=count)
        return Side("ab"[index], turns, {address for address in addresses if address.port in reachable})

    def _at(self, when: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (when, self._order, action))

    def _drive(self, side: Side) -> None:
        while (command := side.turns.next_transmit()) is not None:
            if isinstance(command, Connect):
                side.dials.append((self.now, command.remote))
                self._dial(side, command)
        while (event := side.turns.next_event()) is not None:
            if isinstance(event, TurnsFailed):
                side.failed = event
            elif self._tells:
                self._at(self.now + DELAY, lambda: self._hand_over(side.other))
        when = side.turns.next_timeout()
        if when is not None:
            self._at(max(when, self.now), lambda: self._tick(side, when))

    def _dial(self, side: Side, command: Connect) -> None:
        if command.remote in side.reachable:
            self._at(self.now + 2 * DELAY, lambda: self._connect(side, command.number))
        elif self._refuses:
            self._at(self.now + 2 * DELAY, lambda: self._refuse(side, command.number))

    def _connect(self, side: Side, number: int) -> None:
        side.turns.connected(number)
        self.connected = (side.name, self.now)
        for each in self.sides:
            each.turns.proven()
            self._drive(each)

    def _refuse(self, side: Side, number: int) -> None:
        side.turns.failed(number, Outcome.REFUSED, self.now)
        self._drive(side)

    def _hand_over(self, side: Side) -> None:
        side.turns.handed_over(self.now)
        self._drive(side)

    def _tick(self, side: Side, when: float) -> None:
        if side.turns.next_timeout() == when:
            side.turns.handle_timeout(self.now)
            self._drive(side)


@pytest.mark.parametrize("refuses", [True, False])
def test_a_side_that_can_be_reached_is_dialled_at_once(refuses: bool) -> None:
    """By its first address, or by its second after three tries of the first; the other side never dials."""
    first, second = Meeting(2, ({1}, set()), refuses=refuses).go().sides
    assert [address.port for _, address in first.dials] == [1]
    meeting = Meeting(2, ({2}, set()), refuses=refuses).go()
    assert [address.port for _, address in meeting.sides[0].dials] == [1] * TRIES + [2]
    assert second.dials == meeting.sides[1].dials == []
    assert meeting.connected is not None and meeting.connected[0] == "a"


@pytest.mark.parametrize("refuses", [True, False])
def test_a_side_that_cannot_be_reached_dials_in_its_turn(refuses: bool) -> None:
    """After three tries of each of its addresses: the reverse connection."""
    meeting = Meeting(2, (set(), {2}), refuses=refuses).go()
    first, second = meeting.sides
    assert [address.port for _, address in first.dials] == [1] * TRIES + [2] * TRIES
    assert [address.port for _, address in second.dials] == [1] * TRIES + [2]
    assert second.dials[0][0] > first.dials[-1][0]
    assert meeting.connected is not None and meeting.connected[0] == "b"
    assert [side.failed for side in meeting.sides] == [None, None]


def test_a_hand_over_that_gets_lost_is_not_waited_for() -> None:
    """The other side dials when the first one's time is up, and the first still listens."""
    meeting = Meeting(1, (set(), {1}), tells=False).go()
    assert meeting.connected is not None and meeting.connected[0] == "b"
    assert meeting.sides[0].failed is None


@pytest.mark.parametrize("refuses", [True, False])
def test_when_neither_reaches_the_other_both_say_so(refuses: bool) -> None:
    """With what became of each address, within the time that both turns take; nobody dials twice."""
    meeting = Meeting(2, (set(), set()), refuses=refuses).go()
    assert meeting.connected is None
    for side in meeting.sides:
        assert len(side.dials) == 2 * TRIES
        assert side.failed is not None and [each.tries for each in side.failed.tried] == [TRIES] * 2
        outcome = Outcome.REFUSED if refuses else Outcome.SILENT
        assert {each.outcome for each in side.failed.tried} == {outcome}
        assert side.turns.turn is Turn.OVER and side.turns.next_timeout() is None
    assert meeting.now < TOTAL_LIMIT


def test_whatever_happens_it_ends_in_a_minute() -> None:
    """Many addresses, all of them silent: the other side's turn cannot take for ever."""
    meeting = Meeting(30, (set(), set()), refuses=False).go()
    assert all(side.failed is not None for side in meeting.sides)
    assert meeting.now <= TOTAL_LIMIT + 1


def test_a_connection_from_the_other_side_ends_the_dialling() -> None:
    """Whoever is let in ends the matter, whosever turn it is."""
    meeting = Meeting(1, (set(), set()), refuses=False)
    side = meeting.sides[0].turns
    side.start(0.0)
    side.proven()
    assert side.next_timeout() is None and side.turn is Turn.OVER
    side.handle_timeout(100.0)
    side.handed_over(100.0)
    assert side.next_event() is None


def test_a_side_that_has_no_address_to_dial_hands_over_at_once() -> None:
    """It knows no place where the other might listen."""
    turns = Turns(
        DialPlan(SynBudget(1), entropy=random.Random(1).randbytes, in_turn=True),
        begins=True,
        own_addresses=1,
    )
    turns.start(0.0)
    turns.start(0.0)
    assert turns.next_event() == HandOver(())
    assert turns.turn is Turn.WAITS
    turns.handed_over(0.1)
    assert turns.turn is Turn.WAITS and turns.next_event() is None
