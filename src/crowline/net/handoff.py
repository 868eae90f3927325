"""A bounded queue with one end in a thread and the other in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Handoff(Generic[T]):
    """Items with a cost each; whoever puts waits while the sum of the costs is at or above `limit`.

    Made in the event loop, which uses `put` and `get`; the thread uses `give` and `take`. Either side may
    be the one that puts. After `close` nothing waits and nothing comes any more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._items: deque[tuple[T, int]] = deque()
        self._load = 0
        self._closed = False
        self._finished = False
        self._waiting: asyncio.Future[None] | None = None

    async def put(self, item: T, cost: int = 1) -> None:
        """From the loop: add `item` when there is room. Dropped once the queue is closed."""
        while True:
            with self._changed:
                if self._load < self._limit or self._closed or self._finished:
                    self._add(item, cost)
                    return
                waiting = self._wait()
            await waiting

    async def get(self) -> T | None:
        """To the loop: the next item; ``None`` once the queue is closed."""
        while True:
            with self._changed:
                if self._closed:
                    return None
                if self._items:
                    return self._remove()
                waiting = self._wait()
            await waiting

    async def get_all(self) -> list[T]:
        """To the loop: all items that wait, at least one; none once the queue is closed."""
        while True:
            with self._changed:
                if self._closed:
                    return []
                if self._items:
                    return self._remove_all()
                waiting = self._wait()
            await waiting

    def give(self, item: T, cost: int = 1) -> bool:
        """From the thread: add `item` when there is room; False once the queue is closed."""
        with self._changed:
            while self._load >= self._limit and not self._closed:
                self._changed.wait()
            self._add(item, cost)
            return not self._closed

    def give_all(self, items: Sequence[tuple[T, int]]) -> bool:
        """From the thread: add items with their costs when there is room for one, and wake the loop once for
        all of them; False once the queue is closed."""
        with self._changed:
            while self._load >= self._limit and not self._closed:
                self._changed.wait()
            if items and not self._closed:
                self._items.extend(items)
                self._load += sum(cost for _, cost in items)
                self._wake()
            return not self._closed

    def take(self) -> T | None:
        """To the thread: the next item; ``None`` once the queue is closed."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            return None if self._closed else self._remove()

    def take_all(self) -> list[T]:
        """To the thread: all items that wait, at least one; none once the queue is closed, or finished and
        empty."""
        with self._changed:
            while not self._items and not self._closed and not self._finished:
                self._changed.wait()
            return [] if self._closed else self._remove_all()

    @property
    def closed(self) -> bool:
        """Nobody wants anything any more."""
        return self._closed

    def finish(self) -> None:
        """From the loop: nothing more comes; what waits can still be taken."""
        with self._changed:
            self._finished = True
            self._wake()

    def close(self) -> None:
        """From either side: let go of all items, and of everyone who waits."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._wake()

    def _add(self, item: T, cost: int) -> None:
        if self._closed or self._finished:
            return
        self._items.append((item, cost))
        self._load += cost
        self._wake()

    def _remove(self) -> T:
        item, cost = self._items.popleft()
        self._load -= cost
        self._wake()
        return item

    def _remove_all(self) -> list[T]:
        items = [item for item, _ in self._items]
        self._items.clear()
        self._load = 0
        self._wake()
        return items

    def _wait(self) -> asyncio.Future[None]:
        self._waiting = self._loop.create_future()
        return self._waiting

    def _wake(self) -> None:
        self._changed.notify()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            # The loop may have been closed while the thread was still busy.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_set, waiting)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
