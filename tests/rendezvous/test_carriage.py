"""How the hub shares out link zero: a free budget, then a rate, and never a byte lost."""

from __future__ import annotations

import pytest

from crowline.link.hub import RESERVE
from crowline.rendezvous.carriage import WINDOW
from crowline.rendezvous.events import BudgetGranted
from crowline.rendezvous.limits import MIB, HubLimits
from rendezvous_room import Client, Room

FRAME = 32 * 1024


class Pourer:
    """A side that sends bulk whenever its credit allows, like `HubLink`, until `total` bytes are sent."""

    def __init__(self, client: Client, credit: int, total: int) -> None:
        self.client, self.credit, self.total, self.sent = client, credit, total, 0

    def go_on(self) -> None:
        for grant in self.client.of(BudgetGranted):
            self.credit = max(self.credit, grant.limit)
        while self.sent < self.total and self.sent + FRAME <= self.credit - RESERVE:
            self.client.frame(bytes(FRAME))
            self.sent += FRAME

    @property
    def is_told_the_end(self) -> bool:
        return any(grant.final for grant in self.client.of(BudgetGranted))


def pour(room: Room, sides: list[Pourer], seconds: float) -> None:
    for _ in range(round(seconds / 0.05)):
        for side in sides:
            side.go_on()
        room.run(0.05)


def start(limits: HubLimits, *totals: int) -> tuple[Room, list[Pourer]]:
    room = Room(limits=limits)
    credit = room.hub._carriage.credit
    return room, [Pourer(each, credit, total) for each, total in zip(room.pair(), totals, strict=True)]


@pytest.mark.parametrize("totals", [(100 * MIB, 0), (0, 100 * MIB), (100 * MIB, 100 * MIB)])
def test_the_budget_is_used_up_by_one_side_or_both_and_no_byte_is_lost(totals: tuple[int, int]) -> None:
    """What a side sent before it heard the end still arrives: credit was set aside for it."""
    room, sides = start(HubLimits(), *totals)
    pour(room, sides, 60)
    assert all(side.is_told_the_end for side in sides)
    assert room.hub.counters["over budget"] == 0
    assert sum(len(frame) for side in sides for frame in side.client.frames) == sum(s.sent for s in sides)
    assert 4 * MIB - 2 * WINDOW < sum(side.sent for side in sides) <= 4 * MIB
    if all(totals):
        assert abs(sides[0].sent - sides[1].sent) <= WINDOW


def test_beyond_the_budget_a_meeting_goes_on_at_the_rate() -> None:
    """Both sides together have it, nobody hears of an end, and nothing is lost."""
    rate = 256 * 1024
    room, sides = start(HubLimits(budget=MIB, link_rate=rate), 100 * MIB, 100 * MIB)
    pour(room, sides, 10)
    at_first = sum(side.sent for side in sides)
    pour(room, sides, 30)
    assert 0.9 * 30 * rate < sum(side.sent for side in sides) - at_first < 1.1 * 30 * rate
    assert not any(side.is_told_the_end for side in sides)
    assert room.hub.counters["over budget"] == 0
    assert abs(sides[0].sent - sides[1].sent) <= WINDOW


def test_all_meetings_together_keep_to_their_rate() -> None:
    """Each gets a fair part of it."""
    limits = HubLimits(budget=0, link_rate=MIB, link_rate_total=MIB)
    room = Room(limits=limits)
    credit = room.hub._carriage.credit
    sides = [Pourer(room.pair()[0], credit, 100 * MIB) for _ in range(4)]
    pour(room, sides, 5)
    at_first = [side.sent for side in sides]
    pour(room, sides, 40)
    gained = [side.sent - before for side, before in zip(sides, at_first, strict=True)]
    assert 0.9 * 40 * MIB < sum(gained) < 1.1 * 40 * MIB
    assert max(gained) < 1.1 * min(gained)


def test_who_sends_beyond_the_credit_loses_that_and_nothing_else() -> None:
    """A side that does not listen takes nothing from the budget of the other."""
    room, sides = start(HubLimits(budget=MIB), 0, 100 * MIB)
    for _ in range(100):
        sides[0].client.frame(bytes(FRAME))
    room.run(1)
    assert room.hub.counters["over budget"] > 0
    assert sum(map(len, sides[1].client.frames)) <= MIB - WINDOW
    pour(room, sides[1:], 10)
    assert sides[1].sent >= WINDOW - RESERVE


def test_a_low_rate_still_carries_whole_messages() -> None:
    """The hub grants in steps that hold the largest message, however long that takes."""
    room, sides = start(HubLimits(budget=0, link_rate=16 * 1024), 2 * MIB, 0)
    pour(room, sides, 200)
    assert sides[0].sent == 2 * MIB == sum(map(len, sides[1].client.frames))
