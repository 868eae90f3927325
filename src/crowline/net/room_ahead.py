"""Room on the disk, taken ahead of the bytes of a large file.

A file system that is told once where 64 MiB will go spends a fraction of the work that it spends on the same
bytes as they come, and puts them side by side. Linux only (fallocate(2)); where it cannot be done, the file
is written without.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from typing import TypeAlias

_AHEAD = 64 << 20
# Bytes that are left of a file below which it is not worth a call.
_LEAST = 1 << 20
# The flag of linux/falloc.h: the length of the file stays, since it says how much has come.
_KEEP_SIZE = 1

_Call: TypeAlias = Callable[[int, int, int, int], int]


class RoomAhead:
    """What is reserved of one file that is written from its beginning to its end."""

    def __init__(self, size: int) -> None:
        """`size`: bytes that the file is going to have."""
        self._size = size
        self._end = 0
        self._call = _find() if size >= _LEAST else None

    def take(self, descriptor: int, start: int, end: int) -> None:
        """The bytes from `start` to `end` are about to be written."""
        if self._call is None or end <= self._end:
            return
        start = max(start, self._end)
        self._end = min(start + _AHEAD, self._size)
        if self._end - start < _LEAST or self._call(descriptor, _KEEP_SIZE, start, self._end - start):
            # Not that kind of file system, or a disk so full that the writing itself must find out.
            self._call = None

    def release(self, descriptor: int, start: int) -> None:
        """What follows the first `start` bytes of the file is a hole, which is to take no room. May raise
        `OSError`.
        """
        if start < self._end:
            # ext4 punches no holes behind the end of a file, but it lets go of what is reserved there.
            os.ftruncate(descriptor, start)
            self._end = start


@functools.cache
def _find() -> _Call | None:
    """fallocate of the C library, where its offsets have 64 bits; 0 is success."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    found = getattr(ctypes.CDLL(None), "fallocate", None)
    if found is None:
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    call: _Call = found
    return call
