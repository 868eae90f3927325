"""A transfer as it runs: the path line, the bar with rate and time left, or JSON lines."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from crowline.api.path import Path
from crowline.api.peer import Peer
from crowline.api.transfer import FileFinished, Progress, Summary, TransferEvent, Warning
from crowline.cli.output import Output, count, describe_path, printable, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress import Progress as Bar

# Seconds over which the rate is measured.
_RATE_WINDOW = 2.0


class TransferView:
    """Shows one transfer of `peer`, which is known some time after the first path is.

    Enter it when bytes may begin to move; feed it events and path changes. `quiet` holds lines back while a
    question is on the screen.
    """

    def __init__(self, output: Output, total: int) -> None:
        self._output = output
        self.total = total
        self.peer: Peer | None = None
        self.quiet = False
        self._samples: deque[tuple[float, int]] = deque()
        self._live: Live | None = None
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if self._output.is_terminal:
            self._start_live()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def on_path(self, now: Path | None, before: Path | None) -> None:
        self._output.path(now, before)
        if now is not None and self._live is None and not self.quiet:
            self._output.say(f"Path: {describe_path(now)}  ({now.reason})")

    def on_event(self, event: TransferEvent) -> None:
        if isinstance(event, Progress):
            self._on_progress(event)
        elif isinstance(event, FileFinished):
            self._output.emit("file", path=event.path, bytes=event.size, sha256=event.sha256.hex())
        elif isinstance(event, Warning):
            self._output.warn(event.text)

    def _on_progress(self, event: Progress) -> None:
        now = time.monotonic()
        self._samples.append((now, event.bytes_done))
        while now - self._samples[0][0] > _RATE_WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        rate = (last - first) / (ended - began) if ended > began else 0.0
        self._output.progress(event.bytes_done, event.bytes_total, event.file, rate)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=event.bytes_done, description=printable(event.file)
            )

    def _start_live(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("  {task.description}", markup=False),
            TextColumn("{task.percentage:>3.0f} %"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar.add_task("", total=self.total)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8)
        self._live.start()

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        path = self.peer.path if self.peer is not None else None
        line = "looking for a path" if path is None else f"{describe_path(path)}  ({printable(path.reason)})"
        assert self._bar is not None
        return Group(Text(f"  Path: {line}"), self._bar)


def show_done(output: Output, summary: Summary, peer: Peer) -> None:
    """The summary at the end, for people and for programs."""
    carried = peer.carried
    moved = sum(carried.values()) or 1
    output.emit(
        "done",
        bytes=summary.bytes,
        files=summary.files,
        seconds=round(summary.seconds, 3),
        direct_bytes=carried["direct"],
        relay_bytes=carried["relay"],
        hub_bytes=carried["hub"],
        setup_ms=_rounded(peer.setup_ms),
        direct_ms=_rounded(peer.direct_ms),
    )
    shares = [
        f"{_share(carried[kind] / moved)} {kind}" for kind in ("direct", "relay", "hub") if carried[kind]
    ]
    rate = summary.bytes / summary.seconds if summary.seconds else 0.0
    files = count(summary.files, "file")
    took = f"{size(summary.bytes)} in {summary.seconds:.1f} s ({size(rate)}/s)"
    output.say(f"Done: {files}, {took}, checked. {', '.join(shares)}.")


def _share(part: float) -> str:
    return f"{part:.0%}".replace("%", " %") if part >= 0.005 else "<1 %"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
