"""Files that were hashed for a comparison and wait for its result, between the threads of a reader."""

from __future__ import annotations

import hashlib
import threading

from msgspec import Struct

from crowline.net.found_file import Identity
from crowline.transfer.chunks import Comparison

MAX_WAITING = 1024
"""Files hashed before the first of them is sent: enough for a path of 200 ms at 5,000 files a second."""


class Prefix(Struct, frozen=True):
    """The part of a file that is compared: the digests of its chunks, and the running hash of all of it."""

    identity: Identity
    digests: bytes
    whole: hashlib._Hash


class Prefixes:
    """`put` is for the thread that hashes, `take` for the one that sends, `answer` for the event loop."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._prefixes: dict[int, Prefix | str] = {}
        self._answers: dict[int, Comparison] = {}
        self._closed = False

    def put(self, index: int, prefix: Prefix | str) -> bool:
        """A file's prefix, or why there is none; waits while too many wait. False once this is closed."""
        with self._changed:
            while len(self._prefixes) >= MAX_WAITING and not self._closed:
                self._changed.wait()
            self._prefixes[index] = prefix
            self._changed.notify_all()
            return not self._closed

    def answer(self, index: int, comparison: Comparison) -> None:
        """What the receiver says of a prefix."""
        with self._changed:
            self._answers[index] = comparison
            self._changed.notify_all()

    def is_ready(self, index: int) -> bool:
        """Whether `take` would not wait."""
        with self._changed:
            return isinstance(self._prefixes.get(index), str) or index in self._answers

    def take(self, index: int) -> tuple[Prefix, Comparison] | str | None:
        """A prefix with its answer, or why there is none, once they have come; ``None`` if this is closed."""
        with self._changed:
            while not self._closed:
                prefix = self._prefixes.get(index)
                if isinstance(prefix, str) or (prefix is not None and index in self._answers):
                    del self._prefixes[index]
                    self._changed.notify_all()
                    return prefix if isinstance(prefix, str) else (prefix, self._answers.pop(index))
                self._changed.wait()
            return None

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
