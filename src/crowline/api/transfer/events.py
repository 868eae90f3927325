"""What a file transfer tells its user while it runs."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from crowline.transfer.manifest import Manifest


class OfferMade(Struct, frozen=True):
    """The other side offers these files and folders. Its names are safe to write; to show them, use
    `crowline.transfer.names.display_name`."""

    manifest: Manifest


class FileStarted(Struct, frozen=True):
    """A file begins. `path` is its path in the offer."""

    path: str
    size: int


class FileFinished(Struct, frozen=True):
    """A file is whole, its SHA-256 verified by the receiver; `skipped`: it was there already."""

    path: str
    size: int
    sha256: bytes
    skipped: bool = False


class Progress(Struct, frozen=True):
    """At most ten a second, and one at the end. `file` is the path of the current file in the offer; `kept`
    of `bytes_done` were there already."""

    bytes_done: int
    bytes_total: int
    file: str
    kept: int = 0


class Warning(Struct, frozen=True):
    """A sentence for the person. It is safe on a terminal."""

    text: str


TransferEvent = OfferMade | FileStarted | FileFinished | Progress | Warning

PROGRESS_INTERVAL = 0.1
"""Seconds between two `Progress` events: faster than that nobody reads."""


class ProgressMeter:
    """Counts bytes and reports them, not too often."""

    def __init__(
        self, total: int, on_event: Callable[[TransferEvent], None], clock: Callable[[], float]
    ) -> None:
        self._total = total
        self._on_event = on_event
        self._clock = clock
        self._done = 0
        self._kept = 0
        self._file = ""
        self._due = clock()

    def add(self, count: int, file: str, *, kept: bool = False) -> None:
        """`count` more bytes of `file`, moved or kept."""
        self._done += count
        self._kept += count if kept else 0
        self._file = file
        now = self._clock()
        if now >= self._due:
            self._due = now + PROGRESS_INTERVAL
            self._report()

    def finish(self) -> None:
        """All bytes have been counted."""
        self._report()

    def _report(self) -> None:
        self._on_event(Progress(self._done, self._total, self._file, self._kept))
