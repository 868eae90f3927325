"""`crowline pipe` as shells use it: real processes joined by a real server."""

from __future__ import annotations

import asyncio
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

import crowline
from crowline.api.pipe import PIPE
from crowline.api.service import agreed_stream
from crowline.base.errors import Refused
from crowline.cli import main
from threaded_server import served

CROWLINE = [sys.executable, "-m", "crowline"]
PATIENCE = 30  # seconds for anything that a command does here


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as url:
        yield url


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
    """Like a request and its answer: the end of one side's input reaches the other side's output at once, and
    its answer, into a file, comes after that. Objects are on standard error, and nothing else is.
    """
    question, answer = bytes(range(256)) * 1000, os.urandom(9_000_001)
    with (tmp_path / "out").open("wb") as sink:
        here = Pipe(server, stdin=subprocess.PIPE, stdout=sink)
        started.append(here.process)
        there = Pipe(server, here.code, stdin=subprocess.PIPE)
        started.append(there.process)
        for stdin in (here.process.stdin, there.process.stdin):
            assert stdin is not None
        here.process.stdin.write(question)
        here.process.stdin.close()
        assert there.process.stdout.read() == question
        assert there.process.poll() is None
        there.process.stdin.write(answer)
        there.process.stdin.close()
        assert here.wait() == 0 and there.wait() == 0
    assert (tmp_path / "out").read_bytes() == answer
    for side, sent, received in ((here, question, answer), (there, answer, question)):
        assert not side.other
        done = side.event("done")
        assert (done["sent"], done["received"]) == (len(sent), len(received))
        assert done["direct_bytes"] + done["relay_bytes"] + done["hub_bytes"] >= len(sent) + len(received)


async def test_a_reader_that_goes_away_is_a_local_problem_there_and_a_sentence_here(
    server: str, started: list[subprocess.Popen[bytes]]
) -> None:
    """As in `crowline pipe CODE | head -1`: nobody hangs, both sides say why."""
    async with crowline.host(server, port_mapping=False) as room:
        there = Pipe(server, room.code, "--no-input", stdin=subprocess.DEVNULL)
        started.append(there.process)
        assert there.process.stdout is not None
        there.process.stdout.close()
        stream = await agreed_stream(await asyncio.wait_for(room.peer(), PATIENCE), PIPE)
        await stream.write(b"x" * 100_000)
        with pytest.raises(Refused, match="Something on this machine"):
            await asyncio.wait_for(stream.broken(), PATIENCE)
        assert await asyncio.to_thread(there.wait) == 8
    assert "Nobody reads" in there.event("error")["message"]


def test_another_verb_is_named(
    server: str, started: list[subprocess.Popen[bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever receives from a pipe hears what runs there, and so does the pipe."""
    here = Pipe(server, stdin=subprocess.DEVNULL)
    started.append(here.process)
    with pytest.raises(SystemExit) as ended:
        main(["receive", here.code, "-y", "--server", server, "--no-port-mapping", "--out", str(tmp_path)])
    assert ended.value.code and "crowline pipe" in capsys.readouterr().err
    assert here.wait() != 0
    assert here.event("error")["message"]
