"""The contract with programs that are not ours: what a peer script is told, and what it must answer.

A script is started three times in every attempt, each time on a machine of its own: as `server`, then as
`a` and `b` at once. It gets its role as its only argument and as an environment variable, beside the
variables of `Surroundings.environment`. `server` prints one line when it is ready and runs until it is
ended, or exits with 0 where the program needs no server. `a` and `b` try to reach each other, print one JSON
object on a line (`Outcome.to_fields`; only `kind` is required) and exit with 0. `docs/lab.md` says the same
for users.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from crowline.base.errors import LocalProblem
from crowline.lab.outcome import KINDS, MalformedOutcome, Outcome

Role: TypeAlias = Literal["server", "a", "b"]
Spawn: TypeAlias = Callable[..., "subprocess.Popen[Any]"]  # argv and options of Popen, `env` among them

PATIENCE = 30.0  # seconds that an attempt may take, told to the script
SERVER_PATIENCE = 10.0  # seconds until its server must be ready
GRACE = 3.0  # seconds that a process gets to end by itself: after its deadline, after the other side failed
MAX_OUTPUT = 1 << 16  # bytes of what a script printed that are looked at, the last ones
_POLL = 0.01  # seconds between looks at the processes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The part of the laboratory that one attempt of a script may know. It is not told what NATs there are.

    `addresses` of hosts a and b are their own ones, inside; `servers` are those of the public server, whose
    first one has `stun` (host:port) and the WebSocket `url` of a running `crowline serve`. `folder` is empty
    and visible to all three: the script may exchange there what its users would exchange by hand.
    """

    folder: Path
    servers: tuple[str, ...]
    addresses: Mapping[Role, tuple[str, ...]]
    stun: str = ""
    url: str = ""
    patience: float = PATIENCE

    def environment(self, role: Role, home: Path) -> dict[str, str]:
        """This process's own environment without proxies and settings of Crowline, and what is told."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith(("XDG_", "CROWLINE_"))
        }
        mine = self.servers if role == "server" else self.addresses[role]
        return kept | {
            "HOME": str(home),
            "PYTHONUNBUFFERED": "1",
            "CROWLINE_LAB_ROLE": role,
            "CROWLINE_LAB_ADDRESSES": " ".join(mine),
            "CROWLINE_LAB_SERVERS": " ".join(self.servers),
            "CROWLINE_LAB_STUN": self.stun,
            "CROWLINE_LAB_URL": self.url,
            "CROWLINE_LAB_FOLDER": str(self.folder),
            "CROWLINE_LAB_TIMEOUT": f"{self.patience:g}",
        }


def command(script: Path, role: Role) -> list[str]:
    """How to start a script: by itself where it is executable, Python files with this Python otherwise.

    Raises `LocalProblem` where neither is possible.
    """
    if not script.is_file():
        raise LocalProblem(f"There is no peer script {script.name}.")
    if os.access(script, os.X_OK):
        return [str(script.absolute()), role]
    if script.suffix == ".py":
        return [sys.executable, str(script.absolute()), role]
    raise LocalProblem(
        f"The peer script {script.name} is not executable.", hint=f"chmod +x {script.name} makes it so."
    )


def run_script(script: Path, spawns: Mapping[Role, Spawn], surroundings: Surroundings, work: Path) -> Outcome:
    """One attempt; `spawns` starts a process on the machine of each role, `work` is an empty private folder.

    Everything that goes wrong with the script is a failed outcome with a reason. All processes that were
    started are gone afterwards.
    """
    started: list[_Process] = []

    def start(role: Role) -> _Process:
        process = _Process.start(role, command(script, role), spawns[role], surroundings, work)
        started.append(process)
        return process

    try:
        if problem := _await_server(start("server")):
            return Outcome("failed", reason=problem)
        sides = [start("a"), start("b")]
        _await_end(sides, time.monotonic() + surroundings.patience)
        for side in sides:
            side.end()
        one, other = sorted(sides, key=lambda side: side.was_ended)  # who ended by itself knows more
        return merge(one.answer(), other.answer())
    finally:
        for process in started:
            process.end()


def merge(a: Outcome, b: Outcome) -> Outcome:
    """One outcome of what both sides say: the worse kind, and the later of two times."""
    if KINDS.index(a.kind) < KINDS.index(b.kind):
        a, b = b, a  # from here on, `a` is the worse one
    if a.kind == "failed" or a.kind != b.kind:
        return a
    return Outcome(
        a.kind,
        _later(a.setup_ms, b.setup_ms),
        _later(a.direct_ms, b.direct_ms),
        a.technique or b.technique,
        a.reason or b.reason,
    )


def read_answer(output: str) -> Outcome:
    """The last line that begins a JSON object, as an outcome. Raises `MalformedOutcome`."""
    lines = [line for line in output.splitlines() if line.lstrip().startswith("{")]
    if not lines:
        raise MalformedOutcome("it printed no JSON object")
    try:
        return Outcome.from_fields(json.loads(lines[-1]))
    except (ValueError, RecursionError) as error:
        raise MalformedOutcome("what it printed is no JSON object") from error


@dataclass(slots=True)
class _Process:
    """A running script, its output in files: nobody has to read while it runs."""

    role: Role
    process: subprocess.Popen[Any]
    output: Path
    complaints: Path
    was_ended: bool = False

    @classmethod
    def start(
        cls, role: Role, argv: Sequence[str], spawn: Spawn, surroundings: Surroundings, work: Path
    ) -> _Process:
        home = work / role
        home.mkdir()
        output, complaints = work / f"{role}.out", work / f"{role}.err"
        with output.open("wb") as out, complaints.open("wb") as err:
            environment = surroundings.environment(role, home)
            process = spawn(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)
        return cls(role, process, output, complaints)

    def is_ready(self) -> bool:
        """Whether it has printed a whole line."""
        with self.output.open("rb") as lines:
            return b"\n" in lines.read(MAX_OUTPUT)

    def answer(self) -> Outcome:
        """What it said about the attempt, once it has ended."""
        code = self.process.returncode
        try:
            outcome = read_answer(_tail(self.output))
        except MalformedOutcome as problem:
            said = _last_line(_tail(self.complaints))
            if self.was_ended:
                return Outcome("failed", reason=f"{self.role} gave no answer in time")
            return Outcome("failed", reason=f"{self.role} ended with {code}: {said or problem.message}")
        if code != 0 and outcome.is_connected:
            return Outcome("failed", reason=f"{self.role} says {outcome.kind}, but ended with {code}")
        return outcome

    def end(self) -> None:
        """Make sure that it is gone, with what it started in its session if it still runs."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            self.was_ended = True
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)


def _await_server(server: _Process) -> str:
    """Wait until the script's server is ready or not needed; what went wrong, "" where nothing did."""
    deadline = time.monotonic() + SERVER_PATIENCE
    while time.monotonic() < deadline:
        code = server.process.poll()
        if code is not None:
            said = _last_line(_tail(server.complaints))
            return "" if code == 0 else f"its server ended with {code}: {said or 'it did not say why'}"
        if server.is_ready():
            return ""
        time.sleep(_POLL)
    return f"its server was not ready after {SERVER_PATIENCE:g} s"


def _await_end(sides: Sequence[_Process], deadline: float) -> None:
    """Until all have ended; one that failed leaves the other only a moment."""
    running = list(sides)
    while running and time.monotonic() < deadline:
        for side in [side for side in running if side.process.poll() is not None]:
            running.remove(side)
            if side.process.returncode != 0:
                deadline = min(deadline, time.monotonic() + GRACE)
        time.sleep(_POLL)


def _tail(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_OUTPUT))
        return file.read(MAX_OUTPUT).decode(errors="replace")
    return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _later(one: float | None, other: float | None) -> float | None:
    return max((time for time in (one, other) if time is not None), default=None)
