"""Waiting no longer than so many seconds, also in a clean-up after a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from crowline.net.patience import within


async def forever(cancelled: list[bool]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.append(True)
        raise


async def test_work_that_ends_in_time() -> None:
    """Its end, and its errors, are the caller's."""
    assert await within(5, asyncio.sleep(0))

    async def fail() -> None:
        raise ValueError("as expected")

    with pytest.raises(ValueError, match="as expected"):
        await within(5, fail())


async def test_work_that_does_not_is_cancelled() -> None:
    """And the caller is told, not raised at."""
    cancelled: list[bool] = []
    assert not await within(0.01, forever(cancelled))
    assert cancelled == [True]


async def test_a_clean_up_in_a_cancelled_task_goes_on_after_it() -> None:
    """Running out of time is no second cancellation."""
    cancelled: list[bool] = []
    went_on: list[bool] = []

    async def victim() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            went_on.append(await within(0.01, forever(cancelled)))

    task = asyncio.create_task(victim())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert went_on == [False] and cancelled == [True]


async def test_cancelling_the_one_who_waits_cancels_the_work() -> None:
    """Nothing is left running."""
    cancelled: list[bool] = []
    task = asyncio.create_task(within(60, forever(cancelled)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == [True]
