"""Datagrams of the other side that wait for the application: a short queue, of which the oldest are lost."""

from __future__ import annotations

import asyncio
from collections import deque

# Datagrams and bytes that wait at most, for an application that is busy for a moment.
MAX_WAITING = 4096
MAX_WAITING_BYTES = 4 << 20


class DatagramInbox:
    """`lost` counts those that nobody took in time."""

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._is_ended = False

    def put(self, data: bytes | memoryview) -> None:
        self._waiting.append(bytes(data))
        self._size += len(data)
        while self._size > MAX_WAITING_BYTES or len(self._waiting) > MAX_WAITING:
            self._pop()
            self.lost += 1
        self._changed.set()

    def end(self) -> None:
        """No more will come."""
        self._is_ended = True
        self._changed.set()

    async def get(self) -> bytes | None:
        """The next one; None after the last."""
        while not self._waiting:
            if self._is_ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._pop()

    def _pop(self) -> bytes:
        data = self._waiting.popleft()
        self._size -= len(data)
        return data
