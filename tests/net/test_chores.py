"""What is done beside, and later, until the whole ends."""

from __future__ import annotations

import asyncio

from crowline.net.chores import Chores
from waiting import until


async def forever() -> None:
    await asyncio.Event().wait()


async def test_the_end_of_a_task_is_told_however_it_came() -> None:
    """By itself or by `stop`; then it counts no more."""
    left: list[bool] = []
    chores = Chores(on_end=lambda: left.append(chores.is_busy))
    chores.beside(asyncio.sleep(0))
    chores.beside(forever())
    assert chores.is_busy
    await until(lambda: left == [True])
    chores.stop()
    assert chores.is_busy  # as long as it has not ended
    await until(lambda: left == [True, False])


async def test_closing_waits_for_what_ends() -> None:
    """Also for what a task does when it is cancelled; what was to be later never is."""
    ended: list[str] = []

    async def tidy() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended.append("tidied")

    chores = Chores()
    chores.beside(tidy())
    await asyncio.sleep(0)
    chores.later(0.0, ended.append, "late")
    await chores.close()
    assert not chores.is_busy
    assert ended == ["tidied"]
