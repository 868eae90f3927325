"""How far a command of the laboratory is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from crowline.cli.output import Output

_INTERVAL = 10.0  # seconds between two lines where there is no terminal


class Step(Protocol):
    """Call it after each piece of work."""

    def __call__(self) -> None: ...


@contextmanager
def progress(output: Output, label: str, total: int) -> Iterator[Step]:
    """Show how many of `total` pieces are done; nothing with `--quiet`, nothing on standard output."""
    if not output.is_terminal:
        yield _lines(output, label, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM raises `KeyboardInterrupt` as Ctrl-C does, so that everything which was built is taken down."""

    def terminated(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _lines(output: Output, label: str, total: int) -> Step:
    done, said_at = 0, time.monotonic()

    def step() -> None:
        nonlocal done, said_at
        done += 1
        if time.monotonic() - said_at >= _INTERVAL:
            said_at = time.monotonic()
            output.say(f"{label}: {done} of {total}")

    return step
