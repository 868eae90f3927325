"""Runs a command's coroutine so that Ctrl-C and SIGTERM unwind it: nothing stays half-written or unsaid."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from crowline.base.errors import CrowlineError
from crowline.cli.memory import share_heap

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Raises `KeyboardInterrupt` when a signal ended it."""
    share_heap()
    return run_plainly(_with_signals(work))


def run_plainly(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in a loop that can wait for UDP sockets; Windows' own default loop cannot."""
    factory = asyncio.SelectorEventLoop if sys.platform == "win32" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


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
