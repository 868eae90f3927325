"""How the process of a command keeps its memory: pieces of some hundred KiB come and go in thousands."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress

# Containers made and not freed before Python next looks for garbage that refers to itself. Loading a verb
# makes thousands of them, all of which stay.
_YOUNG = 20_000
_OLDER = (10, 10)
# mallopt(3)
_ARENA_MAX = -8


def look_seldom() -> None:
    """Look for garbage less often than by default: call it before much is imported."""
    gc.set_threshold(_YOUNG, *_OLDER)


def share_heap() -> None:
    """One heap for all threads, where the C library is glibc; call it before there are any.

    By default each has its own. What one reads from a file the event loop frees, and such room is used again
    only in the heap that it is in.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
