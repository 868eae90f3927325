"""What is done beside, and later, until the whole ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine


class Chores:
    """Tasks and timers of one owner, made in a running loop; `stop` or `close` ends them."""

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        """`on_end` is called when a task has ended, however that was."""
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def is_busy(self) -> bool:
        """Whether a task has not ended."""
        return bool(self._tasks)

    def beside(self, work: Coroutine[None, None, None]) -> None:
        """Do that work at the same time."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def later(self, delay: float, call: Callable[..., None], *arguments: object) -> None:
        """Call that in `delay` seconds."""
        self._timers.append(self._loop.call_later(delay, call, *arguments))

    def stop(self) -> None:
        """End all of it, without waiting for that."""
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """End all of it, and wait until it has ended."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._on_end()
