"""A transfer as it runs: the path line, the bar with rate and time left, or JSON lines."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Self

from crowline.api.path import Path
from crowline.api.peer import Peer
from crowline.api.transfer import FileFinished, Progress, Summary, TransferEvent, Warning
from crowline.cli.meet import carriage
from crowline.cli.output import Output, count, describe_path, printable, size
from crowline.cli.screen import Bar, Screen

# Seconds over which the rate is measured.
_RATE_WINDOW = 2.0
_MINUTE = 60


class TransferView:
    """Shows one transfer of `peer`, which is known some time after the first path is.

    Enter it when bytes may begin to move, and leave it when they are through; it can be entered again. Feed
    it events and path changes. `total` is None where nobody knows it. `quiet` holds lines back while a
    question is on the screen.
    """

    def __init__(self, output: Output, total: int | None, screen: Screen | None = None) -> None:
        self._output = output
        self._screen = screen or Screen()
        self.total = total
        self.peer: Peer | None = None
        self.quiet = False
        self._samples: deque[tuple[float, int]] = deque()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        self._samples.clear()
        if self._output.is_terminal:
            self._bar = Bar(self, self.total)
            self._screen.add(self._bar)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._screen.remove(self._bar)
            self._bar = None

    def path_line(self) -> str:
        path = self.peer.path if self.peer is not None else None
        return "looking for a path" if path is None else f"{describe_path(path)}  ({printable(path.reason)})"

    def on_path(self, now: Path | None, before: Path | None) -> None:
        self._output.path(now, before)
        if now is not None and self._bar is None and not self.quiet:
            self._output.say(f"Path: {describe_path(now)}  ({now.reason})")

    def on_event(self, event: TransferEvent) -> None:
        if isinstance(event, Progress):
            self._on_progress(event)
        elif isinstance(event, FileFinished):
            self._output.emit(
                "file", path=event.path, bytes=event.size, sha256=event.sha256.hex(), skipped=event.skipped
            )
        elif isinstance(event, Warning):
            self._output.warn(event.text)

    def _on_progress(self, event: Progress) -> None:
        now = time.monotonic()
        # What was there already did not come by any path.
        self._samples.append((now, event.bytes_done - event.kept))
        while now - self._samples[0][0] > _RATE_WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        rate = (last - first) / (ended - began) if ended > began else 0.0
        self._output.progress(event.bytes_done, self.total, event.file, rate)
        if self._bar is not None:
            self._bar.update(event.bytes_done, printable(event.file))


def show_done(output: Output, summary: Summary, peer: Peer) -> None:
    """The summary at the end, for people and for programs."""
    output.emit(
        "done",
        bytes=summary.bytes,
        files=summary.files,
        skipped=summary.skipped,
        moved=summary.moved,
        seconds=round(summary.seconds, 3),
        **carriage(peer),
    )
    rate = f" ({size(summary.moved / summary.seconds)}/s)" if summary.seconds and summary.moved else ""
    took = f"{size(summary.bytes)} in {duration(summary.seconds)}{rate}"
    parts = [f"Done: {count(summary.files, 'file')}, {took}, checked."]
    if summary.skipped or summary.kept:
        files = f"{count(summary.skipped, 'file')}, " if summary.skipped else ""
        parts.append(f"There already: {files}{size(summary.kept)}.")
    carried = {kind: peer.carried[kind] for kind in ("direct", "relay", "hub") if peer.carried[kind]}
    if total := sum(carried.values()):
        shares = (f"{_share(number / total)} {kind}" for kind, number in carried.items())
        parts.append(f"{', '.join(shares)}.")
    output.say(" ".join(parts))


def duration(seconds: float) -> str:
    """Time for people: ``2.7 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    if minutes < _MINUTE:
        return f"{minutes} min {rest} s"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE} min"


def _share(part: float) -> str:
    return f"{part:.0%}".replace("%", " %") if part >= 0.005 else "<1 %"
