"""`crowline pipe` as shells use it: real processes joined by a real server."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

CROWLINE = [sys.executable, "-m", "crowline"]
PATIENCE = 30  # seconds for anything that a command does here


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a real server process on ports that the kernel chose."""
    listen = ["--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0"]
    argv = [*CROWLINE, "serve", "--json", *listen, "--drain", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of the test, none of which it leaves behind."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait(PATIENCE)
        for file in (process.stdin, process.stdout):
            if file is not None:
                with suppress(BrokenPipeError):
                    file.close()


class Pipe:
    """One side: its process, and its standard error read by a thread."""

    def __init__(self, server: str, *arguments: str, stdin: Any, stdout: Any = subprocess.PIPE) -> None:
        argv = [*CROWLINE, "pipe", *arguments, "--json", "--server", server, "--no-port-mapping"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CROWLINE")}
        self.process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=kept)
        self.events: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._has_code = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            text = line.decode()
            if text.startswith("{"):
                self.events.append(json.loads(text))
            else:
                self.other.append(text)
            if self.events and self.events[-1]["t"] == "code":
                self._has_code.set()
        self.process.stderr.close()
        self._has_code.set()

    @property
    def code(self) -> str:
        assert self._has_code.wait(PATIENCE)
        return str(self.event("code")["code"])

    def event(self, kind: str) -> dict[str, Any]:
        found = [event for event in self.events if event["t"] == kind]
        assert found, (self.events, self.other)
        return found[-1]

    def wait(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


def test_both_directions_carry_every_byte_and_end_by_themselves(
    server: str, started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A file one way, a process's output the other; objects on standard error, and nothing else there."""
    big, small = os.urandom(9_000_001), bytes(range(256)) * 1000
    (tmp_path / "in").write_bytes(big)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        here = Pipe(server, stdin=source)
        started.append(here.process)
        there = Pipe(server, here.code, stdin=subprocess.PIPE, stdout=sink)
        started.append(there.process)
        assert there.process.stdin is not None and here.process.stdout is not None
        there.process.stdin.write(small)
        there.process.stdin.close()
        assert here.process.stdout.read() == small
        assert here.wait() == 0 and there.wait() == 0
    digest = hashlib.sha256((tmp_path / "out").read_bytes()).digest()
    assert digest == hashlib.sha256(big).digest()
    for side, sent, received in ((here, len(big), len(small)), (there, len(small), len(big))):
        assert not side.other
        done = side.event("done")
        assert (done["sent"], done["received"]) == (sent, received)
        assert done["direct_bytes"] + done["relay_bytes"] + done["hub_bytes"] >= sent + received


def test_a_half_closed_pipe_goes_on_in_the_other_direction(
    server: str, started: list[subprocess.Popen[bytes]]
) -> None:
    """Like a request and its answer: the end of one side's input reaches the other side's output at once."""
    here = Pipe(server, stdin=subprocess.PIPE)
    started.append(here.process)
    there = Pipe(server, here.code, stdin=subprocess.PIPE)
    started.append(there.process)
    for side in (here, there):
        assert side.process.stdin is not None and side.process.stdout is not None
    here.process.stdin.write(b"question")
    here.process.stdin.close()
    assert there.process.stdout.read() == b"question"
    assert there.process.poll() is None
    there.process.stdin.write(b"answer")
    there.process.stdin.close()
    assert here.process.stdout.read() == b"answer"
    assert here.wait() == 0 and there.wait() == 0


def test_a_reader_that_goes_away_is_a_local_problem_there_and_a_sentence_here(
    server: str, started: list[subprocess.Popen[bytes]]
) -> None:
    """As in `crowline pipe CODE | head -1`: nobody hangs, both sides say why."""
    here = Pipe(server, stdin=subprocess.PIPE)
    started.append(here.process)
    there = Pipe(server, here.code, "--no-input", stdin=subprocess.DEVNULL)
    started.append(there.process)
    assert here.process.stdin is not None and there.process.stdout is not None
    there.process.stdout.close()
    here.process.stdin.write(b"x" * 100_000)
    here.process.stdin.flush()
    assert there.wait() == 8
    assert "Nobody reads" in there.event("error")["message"]
    assert here.wait() == 5
    assert here.event("error")["exit"] == 5


def test_another_verb_is_named(server: str, started: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """Whoever sends files to a pipe hears what runs there, and so does the pipe."""
    here = Pipe(server, stdin=subprocess.DEVNULL)
    started.append(here.process)
    argv = [*CROWLINE, "receive", here.code, "-y", "--server", server, "--out", str(tmp_path)]
    other = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    started.append(other)
    _, said = other.communicate(timeout=PATIENCE)
    assert other.returncode != 0 and b"Traceback" not in said
    assert here.wait() != 0
    assert here.event("error")["message"]
