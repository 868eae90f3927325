"""Commands as processes: started on loopback, heard line by line, and never left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CROWLINE = [sys.executable, "-m", "crowline"]
PATIENCE = 60  # seconds for anything that a command does here


@contextmanager
def serving() -> Iterator[str]:
    """The URL of a server process on ports that the kernel chose."""
    listen = ["--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0"]
    argv = [*CROWLINE, "serve", "--json", *listen, "--drain", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()
        assert process.wait(PATIENCE) == 0


def end_all(started: list[subprocess.Popen[str]]) -> None:
    """Whatever still runs of them, and leave no pipe open."""
    while started:
        process = started.pop()
        process.kill()
        process.wait(PATIENCE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


class Commands:
    """Starts commands with a server and a state folder of their own; `close` ends what still runs."""

    def __init__(self, server: str, state: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CROWLINE")}
        self._environment = kept | {"CROWLINE_SERVER": server, "XDG_STATE_HOME": str(state)}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, stdin: int | None = subprocess.DEVNULL) -> Command:
        process = subprocess.Popen(
            [*CROWLINE, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
        )
        self._started.append(process)
        return Command(process)

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


class Command:
    """One of them; `found` are the objects that it has said and somebody has heard."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.found: list[dict[str, Any]] = []

    def hear(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next object of that kind with those fields."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.found.append(event)
            if event["t"] == kind and fields.items() <= event.items():
                return dict(event)
        raise AssertionError(self.process.communicate(timeout=PATIENCE)[1].decode())

    def hear_progress(self, bytes_done: int) -> None:
        """Until so many bytes have gone or come."""
        while self.hear("progress")["bytes"] < bytes_done:
            pass

    def end(self, data: bytes | None = None) -> tuple[int, str]:
        """Its exit code and what it said to people, when it has ended; objects are in `found`."""
        out, err = self.process.communicate(data, timeout=PATIENCE)
        self.found += [json.loads(line) for line in out.splitlines()]
        text = err.decode()
        assert "Traceback" not in text, text
        return self.process.returncode, text

    def last(self, kind: str) -> dict[str, Any]:
        return [event for event in self.found if event["t"] == kind][-1]
