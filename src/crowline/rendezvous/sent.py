"""Messages that may have to be sent again after a broken WebSocket."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

M = TypeVar("M")


class SentLog(Generic[M]):
    """The last messages of one direction, numbered from 0, within `max_bytes`; older ones are forgotten."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._messages: deque[tuple[M, int]] = deque()
        self._bytes = 0
        self._end = 0

    def __len__(self) -> int:
        """How many messages there have been."""
        return self._end

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._bytes

    def append(self, message: M, size: int) -> None:
        self._messages.append((message, size))
        self._bytes += size
        self._end += 1
        while self._bytes > self._max_bytes:
            self._forget()

    def since(self, count: int) -> list[M] | None:
        """The messages after the first `count`, or ``None`` if some are forgotten or were never sent."""
        start = self._end - len(self._messages)
        if not start <= count <= self._end:
            return None
        return [message for message, _ in list(self._messages)[count - start :]]

    def _forget(self) -> None:
        _, size = self._messages.popleft()
        self._bytes -= size
