"""Datagrams that wait for a link: a short queue, of which the oldest are lost first."""

from __future__ import annotations

from collections import deque

from crowline.base.machine import Buffer

# Bytes and datagrams that wait at most: 20 ms of 100 Mbit/s. What has waited longer is of less use than what
# comes after it.
MAX_WAITING_BYTES = 256 * 1024
MAX_WAITING = 1024


class DatagramQueue:
    """First in, first out. `lost` counts those that were given up."""

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: deque[Buffer] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, data: Buffer) -> None:
        self._waiting.append(data)
        self._size += len(data)
        while self._size > MAX_WAITING_BYTES or len(self._waiting) > MAX_WAITING:
            self.popleft()
            self.lost += 1

    def first(self) -> Buffer:
        """The next to be sent; there has to be one."""
        return self._waiting[0]

    def popleft(self) -> Buffer:
        data = self._waiting.popleft()
        self._size -= len(data)
        return data

    def clear(self) -> None:
        """Give up all of them."""
        self.lost += len(self._waiting)
        self._waiting.clear()
        self._size = 0
