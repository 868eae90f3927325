"""One transfer between two real processes, watched through what they print for programs."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from crowline.base.errors import CrowlineError
from crowline.lab.demo_files import digest, fingerprint, size_of

Event: TypeAlias = dict[str, Any]
Spawn: TypeAlias = Callable[..., "subprocess.Popen[Any]"]  # argv, and options of Popen

CROWLINE = (sys.executable, "-m", "crowline")

CODE_PATIENCE = 20.0  # seconds until the sender must have shown a code
END_PATIENCE = 60.0  # seconds for a transfer, and
SLOWEST_RATE = 10e6  # bytes a second on top of that, below which it is given up
GRACE = 5.0  # seconds that one side gets to end once the other has
_COMPLAINT_LINES = 6  # of a failed side's standard error, the last ones that say anything


class TransferFailed(CrowlineError):
    """The demonstration could not be carried through."""


@dataclass(slots=True)
class Side:
    """One of the two processes and what it has said so far, in order."""

    role: str
    process: subprocess.Popen[Any]
    complaints: Path
    listener: threading.Thread | None = None
    events: list[Event] = field(default_factory=list)

    def last(self, kind: str) -> Event | None:
        """Its newest event of that type."""
        return next((event for event in reversed(self.events) if event.get("t") == kind), None)

    def paths(self) -> list[Event]:
        """Every path that it told of; not the moments without any."""
        return [event for event in self.events if event.get("t") == "path" and event.get("kind")]

    def complaint(self) -> str:
        """What it gave as its reason: its error event, or the end of its standard error."""
        error = self.last("error")
        if error:
            return f"{error.get('message', '')} {error.get('hint') or ''}".strip()
        with suppress(OSError):
            lines = [
                line for line in self.complaints.read_text(errors="replace").splitlines() if line.strip()
            ]
            return " / ".join(lines[-_COMPLAINT_LINES:])
        return ""


@dataclass(frozen=True, slots=True)
class Result:
    """How a transfer went. `sent` and `received` are SHA-256 of both sides, computed here."""

    sender: Side
    receiver: Side
    size: int
    sent: str
    received: str
    elapsed: float

    @property
    def done(self) -> Event:
        """The receiver's closing event; empty when there was none."""
        return self.receiver.last("done") or {}

    @property
    def same(self) -> bool:
        return bool(self.received) and self.sent == self.received

    @property
    def exit_codes(self) -> tuple[int | None, int | None]:
        return self.sender.process.returncode, self.receiver.process.returncode

    @property
    def path(self) -> Event:
        """The last path of the receiver."""
        return (self.receiver.paths() or [{}])[-1]

    def describe_path(self) -> str:
        """`direct, udp, SENDER ⇄ RECEIVER`, each by the address at which the other one sees it."""
        theirs, mine = self.path, (self.sender.paths() or [{}])[-1]
        if not theirs or not mine:
            return "none was reported"
        ends = f"{theirs.get('remote')} ⇄ {mine.get('remote')}"
        return f"{theirs.get('kind')}, {theirs.get('transport')}, {ends}"


def transfer(
    send: Spawn,
    receive: Spawn,
    server: str,
    sources: Sequence[Path],
    folder: Path,
    options: Sequence[str] = (),
) -> Result:
    """Send `sources` from one process to another, which writes below `folder`; wait for both to end.

    Raises `TransferFailed` when no code is shown or a side does not end in time; any other failure is in the
    result. Both processes are gone afterwards.
    """
    out = folder / "received"
    out.mkdir(parents=True)
    sides: list[Side] = []
    news: queue.Queue[tuple[str, Event | None]] = queue.Queue()
    size = sum(size_of(source) for source in sources)
    try:
        argv = [*CROWLINE, "send", "--json", "--server", server, *options, *map(str, sources)]
        sender = _start("sender", send, argv, folder, sides, news)
        code = _await_code(sender, news)
        started = time.monotonic()
        argv = [*CROWLINE, "receive", "--json", "-y", "--server", server, "--out", str(out), *options, code]
        receiver = _start("receiver", receive, argv, folder, sides, news)
        _await_end(sides, started + END_PATIENCE + size / SLOWEST_RATE, news)
        elapsed = time.monotonic() - started
    finally:
        for side in sides:
            _stop(side)
    sent = [fingerprint(source) for source in sources]
    received = [fingerprint(out / source.name) if (out / source.name).exists() else {} for source in sources]
    whole = all(received)
    return Result(sender, receiver, size, _joined(sent), _joined(received) if whole else "", elapsed)


def _joined(members: list[dict[str, str]]) -> str:
    return digest({name: value for part in members for name, value in part.items()})


def _start(
    role: str,
    spawn: Spawn,
    argv: Sequence[str],
    folder: Path,
    sides: list[Side],
    news: queue.Queue[tuple[str, Event | None]],
) -> Side:
    complaints = folder / f"{role}.err"
    with complaints.open("wb") as errors:
        process = spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    side = Side(role, process, complaints)
    sides.append(side)
    side.listener = threading.Thread(target=_listen, args=(side, news), daemon=True)
    side.listener.start()
    return side


def _listen(side: Side, news: queue.Queue[tuple[str, Event | None]]) -> None:
    assert side.process.stdout is not None
    for line in side.process.stdout:
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                side.events.append(event)
                news.put((side.role, event))
    news.put((side.role, None))


def _await_code(sender: Side, news: queue.Queue[tuple[str, Event | None]]) -> str:
    deadline = time.monotonic() + CODE_PATIENCE
    while True:
        try:
            _, event = news.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TransferFailed(f"The sender showed no code within {CODE_PATIENCE:.0f} seconds.") from None
        if event is None:
            sender.process.wait(GRACE)
            raise TransferFailed(f"The sender ended without a code: {sender.complaint()}")
        if event.get("t") == "code":
            return str(event["code"])


def _await_end(sides: list[Side], deadline: float, news: queue.Queue[tuple[str, Event | None]]) -> None:
    open_sides = len(sides)
    while open_sides:
        try:
            _, event = news.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        if event is None:
            open_sides -= 1
            deadline = min(deadline, time.monotonic() + GRACE)


def _stop(side: Side) -> None:
    """Wait for a side that has closed its output; end one that has not."""
    try:
        side.process.wait(GRACE if side.process.poll() is None and side.last("done") else 0.5)
    except subprocess.TimeoutExpired:
        _signal(side.process, signal.SIGTERM)
        try:
            side.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            _signal(side.process, signal.SIGKILL)
            side.process.wait()
    if side.listener is not None:
        side.listener.join(GRACE)
    if side.process.stdout is not None and not (side.listener and side.listener.is_alive()):
        side.process.stdout.close()


def _signal(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
