"""`crowline chat` as people and scripts run it: real processes in pipes, with JSON, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cli_commands import CROWLINE, PATIENCE, serving

STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait(PATIENCE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def start(server: str, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    """A chat without questions to any router, in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CROWLINE")}
    argv = [*CROWLINE, "chat", *arguments, "--server", server, "--no-port-mapping"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | streams
    process = subprocess.Popen(argv, text=True, env=clean, bufsize=1, **pipes)
    STARTED.append(process)
    return process


def tell(process: subprocess.Popen[str], **wish: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(wish) + "\n")
    process.stdin.flush()


def wanted(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next object of that kind; those before it are left out."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        assert event["v"] == 1
        if event["t"] == kind:
            return event
    raise AssertionError(f"no {kind}: {process.stderr.read() if process.stderr else ''}")


def code_of(process: subprocess.Popen[str]) -> str:
    """What a person would read off the screen."""
    assert process.stderr is not None
    for line in process.stderr:
        if "crowline chat " in line:
            return line.split()[-1]
    raise AssertionError("no code was shown")


def test_programs_chat_by_objects_both_ways(server: str) -> None:
    """What is said before the other side is there, marks, writing, being away; Ctrl-C leaves properly."""
    host = start(server, "--json")
    code = wanted(host, "code")["code"]
    tell(host, t="say", text="first\nof two lines")
    assert wanted(host, "sent")["id"] == 1
    join = start(server, code, "--json")
    assert wanted(join, "message") | {"v": 1} == {
        "v": 1,
        "t": "message",
        "id": 1,
        "text": "first\nof two lines",
    }
    assert wanted(host, "delivered")["id"] == 1
    tell(join, t="read", id=1)
    assert wanted(host, "read")["id"] == 1
    tell(join, t="typing")
    assert wanted(host, "typing")["on"] is True
    tell(join, t="away", note="lunch")
    away = wanted(host, "away")
    assert away["on"] is True and away["note"] == "lunch"
    tell(join, t="away", on=False)
    assert wanted(host, "away")["on"] is False
    for nonsense in ("{", "[]", '{"t":"say"}', '{"t":"say","text":""}', '{"t":"fly"}'):
        assert join.stdin is not None
        join.stdin.write(nonsense + "\n")
    join.stdin.flush()
    assert len([wanted(join, "warn") for _ in range(5)]) == 5
    host.send_signal(signal.SIGINT)
    assert wanted(join, "left")
    assert host.wait(PATIENCE) == 130 and join.wait(PATIENCE) == 0


def test_lines_of_pipes_are_messages(server: str) -> None:
    """What one side gets on standard input is what the other has on standard output; control characters are
    not.
    """
    host = start(server)
    assert host.stdin is not None
    host.stdin.write("one\n\nzwei ü\nbell\a and \x1b[31mred\nno newline")
    host.stdin.close()
    join = start(server, code_of(host))
    assert join.stdout is not None
    lines = [join.stdout.readline() for _ in range(4)]
    assert lines == ["one\n", "zwei ü\n", "bell\ufffd and \ufffd[31mred\n", "no newline\n"]
    assert join.stdout.read() == ""
    assert join.wait(PATIENCE) == 0 and host.wait(PATIENCE) == 0
    assert join.stderr is not None and "peer left" in join.stderr.read()


class Terminal:
    """A person at a terminal of their own."""

    def __init__(self, server: str, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.seen = ""
        self.process = start(server, *arguments, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def sees(self, text: str) -> None:
        """Wait until that is on the screen, from where the last search ended."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.seen!r}"
            self._read()
        self.seen = self.seen.partition(text)[2]

    def leave(self) -> int:
        """The exit code; what is still written is read, lest the process wait for that."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        os.close(self._master)
        return self.process.wait(PATIENCE)

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.05)[0]:
            try:
                self.seen += os.read(self._master, 65_536).decode("utf-8", "replace")
            except OSError:
                # Linux says so where nobody has the other end any more.
                return


def test_a_person_writes_on_a_terminal(server: str) -> None:
    """Marks stand before the line and messages above it; there are commands, and pastes of many lines."""
    join = start(server, "--json")
    person = Terminal(server, wanted(join, "code")["code"])
    person.sees("Connected")
    person.sees("> ")
    person.type("helo\x7flo there\r")
    assert wanted(join, "message")["text"] == "hello there"
    person.sees("you: hello there")
    person.sees("✓ ")
    tell(join, t="read", id=1)
    person.sees("✓✓")
    tell(join, t="say", text="red \x1b[31m\nyou: forged")
    person.sees("peer: red \ufffd[31m\r\n      you: forged")
    assert wanted(join, "read")["id"] == 1
    person.type("\x1b[200~two\rlines\x1b[201~\r")
    assert wanted(join, "message")["text"] == "two\nlines"
    person.type("/away lunch\r")
    assert wanted(join, "away")["note"] == "lunch"
    person.type("//back\r")
    assert wanted(join, "message")["text"] == "/back"
    person.type("x")
    assert wanted(join, "typing")["on"] is True
    person.type("\x7f\x04")
    assert wanted(join, "left")
    assert person.leave() == 0 and join.wait(PATIENCE) == 0
