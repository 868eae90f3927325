"""What is noted of plans, and when it is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

from crowline.api.traversal.plan_notes import PlanNotes
from crowline.net.plan_store import FILE, PlanStore
from crowline.punch.plan_memory import TRIED, WORKED

HERE, THERE = "198.51.100.7", "203.0.113.9"


async def until_written(folder: Path, what: bytes) -> None:
    """Files say nothing when they change."""
    async with asyncio.timeout(30):
        while not (folder / FILE).exists() or what not in (folder / FILE).read_bytes():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def noted(folder: Path) -> PlanNotes:
    notes = PlanNotes(PlanStore(folder))
    await notes.read()
    return notes


async def test_what_worked_is_known_the_next_time(tmp_path: Path) -> None:
    """Between these two networks only, and in this direction."""
    notes = await noted(tmp_path)
    assert notes.between(HERE, THERE) == {}
    notes.tried("spray/own")
    notes.worked("spray/own")
    score = TRIED + WORKED
    await until_written(tmp_path, b'"spray/own":%d' % score)
    later = await noted(tmp_path)
    assert later.between(HERE, THERE) == {"spray/own": score}
    assert later.between(THERE, HERE) == {}


async def test_notes_that_come_while_others_are_written_are_written_too(tmp_path: Path) -> None:
    """One file at a time, and the last word in it."""
    notes = await noted(tmp_path)
    notes.between(HERE, THERE)
    for number in range(6):
        notes.tried(f"plan-{number}")
    await until_written(tmp_path, b'"plan-5":%d' % TRIED)
    later = await noted(tmp_path)
    assert later.between(HERE, THERE) == {f"plan-{number}": TRIED for number in range(6)}


async def test_nothing_is_noted_of_networks_that_are_not_known(tmp_path: Path) -> None:
    """Neither before the file was read nor before both sides have measured."""
    unread = PlanNotes(PlanStore(tmp_path))
    assert unread.between(HERE, THERE) == {}
    unread.worked("spray/own")
    nameless = await noted(tmp_path)
    nameless.tried("spray/own")
    nameless.worked("spray/own")
    await asyncio.sleep(0)
    assert not (tmp_path / FILE).exists()
