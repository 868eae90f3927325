"""Bars on a terminal, one for each transfer: the path, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_REFRESHES = 8  # a second


class Shown(Protocol):
    """What one transfer shows."""

    def path_line(self) -> str:
        """How its bytes travel now."""


class Bar:
    """The bar of one transfer. A total of None is not known."""

    def __init__(self, shown: Shown, total: int | None) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._shown = shown
        self._progress = Progress(
            TextColumn("  {task.description}", markup=False),
            TextColumn("{task.percentage:>3.0f} %" if total is not None else ""),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task("", total=total)

    def update(self, done: int, text: str) -> None:
        self._progress.update(self._task, completed=done, description=text)

    def lines(self) -> list[RenderableType]:
        from rich.text import Text

        return [Text(f"  Path: {self._shown.path_line()}"), self._progress]


class Screen:
    """All bars of a command, drawn again and again from the first to the last of them."""

    def __init__(self) -> None:
        self._bars: list[Bar] = []
        self._live: Live | None = None

    def add(self, bar: Bar) -> None:
        from rich.console import Console
        from rich.live import Live

        self._bars.append(bar)
        if self._live is None:
            console = Console(stderr=True)
            self._live = Live(get_renderable=self.render, console=console, refresh_per_second=_REFRESHES)
            self._live.start()

    def remove(self, bar: Bar) -> None:
        """The bar's last state stays on the screen when it was the last one."""
        if self._live is not None and self._bars == [bar]:
            self._live.stop()
            self._live = None
        self._bars.remove(bar)

    def render(self) -> RenderableType:
        from rich.console import Group

        return Group(*(line for bar in self._bars for line in bar.lines()))
