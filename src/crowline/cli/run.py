"""Runs a command's coroutine so that Ctrl-C and SIGTERM unwind it: nothing stays half-written or unsaid."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from crowline.base.errors import CrowlineError

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Raises `KeyboardInterrupt` when a signal ended it."""
    return asyncio.run(_with_signals(work))


async def _with_signals(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:
            # Windows: asyncio turns Ctrl-C into a cancellation by itself.
            break
    try:
        return await task
    except (asyncio.CancelledError, CrowlineError):
        # Where a signal ended it, whatever the unwinding met is only a consequence.
        if stopped:
            raise KeyboardInterrupt from None
        raise
