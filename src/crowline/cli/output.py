"""What commands say: sentences on stderr for people, one JSON object a line on stdout for programs.

Every object is ``{"v":1,"t":TYPE,…}``; DESIGN of the fields: `docs/protocol.md`, "JSON lines".
"""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from crowline.base.errors import CrowlineError, LocalProblem

if TYPE_CHECKING:
    from crowline.api.path import Path

JSON_VERSION = 1
# Seconds between two progress objects: ten a second at most.
PROGRESS_INTERVAL = 0.1


class Output:
    """One command's voice. `quiet` leaves people the code, warnings and errors only."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        # Standard output is data: what programs read goes to standard error, and nothing else does.
        self._stdout_is_data = False
        # Shows lines to a person in place of standard error: a screen on which the person writes too.
        self.screen: Callable[[str], None] | None = None
        # The command has said how it ended.
        self.is_done = False
        self._last_progress = 0.0

    @contextmanager
    def data_on_stdout(self) -> Iterator[None]:
        """For a command whose standard output is data: objects, an error's too, go to standard error."""
        self._stdout_is_data = True
        try:
            yield
        except (CrowlineError, OSError) as problem:
            if not self.as_json:
                raise
            error = problem if isinstance(problem, CrowlineError) else local_problem(problem)
            self.error(error)
            raise SystemExit(error.exit_code) from None

    @property
    def is_terminal(self) -> bool:
        return sys.stderr.isatty() and not self.as_json and not self.quiet

    def emit(self, type_: str, /, **fields: Any) -> None:
        """One JSON line, where JSON was asked for."""
        self.is_done |= type_ == "done"
        if self.as_json:
            # ASCII: the other side's names may hold what an encoding or a terminal does not take.
            line = json.dumps({"v": JSON_VERSION, "t": type_, **fields}, separators=(",", ":"))
            _write(sys.stderr if self._stdout_is_data else sys.stdout, line)

    def say(self, text: str) -> None:
        """A line for a person."""
        if not self.quiet and not self.as_json:
            self.insist(text)

    def insist(self, text: str) -> None:
        """A line that also a quiet person must see; with JSON too, unless objects are where it would be."""
        if self.screen is not None:
            self.screen(printable(text))
        elif not (self.as_json and self._stdout_is_data):
            _write(sys.stderr, f"  {printable(text)}")

    def data(self, text: str) -> None:
        """A line of what the command is for, on standard output."""
        _write(sys.stdout, printable(text))

    def warn(self, text: str) -> None:
        self.emit("warn", message=printable(text))
        if not self.as_json:
            self.insist(text)

    def path(self, now: Path | None, before: Path | None) -> None:
        if now is None:
            self.emit("path", kind=None, was=before.kind if before else None, reason="no path is left")
            self.say("Path: none; looking for another")
            return
        self.emit(
            "path",
            kind=now.kind,
            transport=now.transport,
            rtt_ms=None if now.rtt is None else round(now.rtt * 1000, 1),
            local=now.local,
            remote=now.remote,
            was=before.kind if before else None,
            reason=now.reason,
        )

    def progress(self, done: int, total: int | None, name: str, rate: float) -> None:
        """At most ten a second, and always the last one where `total` says which that is."""
        now = time.monotonic()
        if (total is None or done < total) and now - self._last_progress < PROGRESS_INTERVAL:
            return
        self._last_progress = now
        self.emit("progress", bytes=done, total=total, file=name, rate=round(rate))

    def error(self, error: CrowlineError) -> None:
        """How the command ends, for programs."""
        message, hint = printable(error.message), printable(error.hint)
        self.emit("error", exit=error.exit_code, message=message, hint=hint)


def show_error(error: CrowlineError, *, as_json: bool) -> None:
    """The sentence, the hint, and nothing else."""
    Output(as_json=as_json).error(error)
    _write(sys.stderr, f"crowline: {printable(error.message)}")
    if error.hint:
        _write(sys.stderr, f"  {printable(error.hint)}")


def local_problem(error: OSError) -> LocalProblem:
    """What the operating system refused, as a sentence."""
    where = f"{error.filename}: " if error.filename else ""
    return LocalProblem(f"{where}{error.strerror or error}.")


def _write(stream: TextIO, line: str) -> None:
    """Write a line at once. Whoever does not read any more, as in `| head -1`, misses the rest."""
    try:
        stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:
        # What is still in the stream's buffer must not raise again when the interpreter flushes it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def printable(text: str) -> str:
    """`text` on one line, without characters that could move a terminal's cursor or reorder what it shows."""
    return "".join(
        char if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else "�"
        for char in text
    )


def describe_path(path: Path) -> str:
    """``direct, udp, A:P ⇄ B:P, 41 ms (reason)``."""
    rtt = "" if path.rtt is None else f", {path.rtt * 1000:.0f} ms"
    return printable(f"{path}{rtt}")


def size(count: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def count(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
