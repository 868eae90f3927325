"""Waiting no longer than so many seconds, also while the task that waits is being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def within(seconds: float, work: Coroutine[Any, Any, object]) -> bool:
    """Whether `work` ended in time; what it raises is raised, and it is cancelled when time is up.

    `asyncio.timeout` of Python 3.11.0 to 3.11.3 takes the cancellation that a clean-up runs in for its own
    and raises `CancelledError` where time is up, so clean-ups use this.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            task.result()
            return True
        return False
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
