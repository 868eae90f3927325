"""How the process of a command keeps its memory: pieces of some hundred KiB come and go in thousands."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress

# Containers made and not freed before Python next looks for garbage that refers to itself. Loading a verb
# makes thousands of them, all of which stay.
_YOUNG = 20_000
_OLDER = (10, 10)
# mallopt(3): by default each piece of 128 KiB and more is mapped and given back by a call of its own, and the
# kernel clears each of its pages again. Those of files and runs of packets are smaller than `_OWN_MAPPING`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_OWN_MAPPING = 4 << 20
# Free bytes at the end of the heap that are kept for what comes next.
_SPARE = 8 << 20
# By default each thread has a heap of its own. What one reads from a file another frees, and it is used again
# only where both have the same.
_HEAPS = 1


def look_seldom() -> None:
    """Look for garbage less often than by default: call it before much is imported."""
    gc.set_threshold(_YOUNG, *_OLDER)


def keep_spare() -> None:
    """Have the C library use freed memory again, where it is glibc; others do it their own way."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _HEAPS)
        mallopt(_MMAP_THRESHOLD, _OWN_MAPPING)
        mallopt(_TRIM_THRESHOLD, _SPARE)
