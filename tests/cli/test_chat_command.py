"""`crowline chat` as people and scripts run it: real processes in pipes, with JSON, and on a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

import crowline
from cli_commands import CROWLINE, PATIENCE, end_all, serving
from crowline.api.chat import Arrived, Chat, ChatEvent, PeerAway, PeerLeft, PeerTyping, Read

E = TypeVar("E", bound=ChatEvent)
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    end_all(STARTED)


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


async def said(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """As `wanted`, while the other side goes on in this process."""
    return await asyncio.to_thread(wanted, process, kind)


def code_of(process: subprocess.Popen[str]) -> str:
    """What a person would read off the screen."""
    assert process.stderr is not None
    for line in process.stderr:
        if "crowline chat " in line:
            return line.split()[-1]
    raise AssertionError("no code was shown")


@asynccontextmanager
async def speaking(peer: crowline.Peer) -> AsyncIterator[Chat]:
    """The other side's chat, by the library in this process."""
    chat = Chat()
    task = asyncio.create_task(chat.run(peer))
    try:
        async with asyncio.timeout(PATIENCE):
            yield chat
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def joined(code: str, server: str) -> AsyncIterator[Chat]:
    """A chat with whoever shows that code."""
    meeting = crowline.join(code, server, port_mapping=False, timeout=PATIENCE)
    async with meeting as peer, speaking(peer) as chat:
        yield chat


async def heard(chat: Chat, kind: type[E]) -> E:
    """The next event of that kind; those before it are left out."""
    async for event in chat.events():
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the chat ended before {kind}")


async def test_programs_chat_by_objects_both_ways(server: str) -> None:
    """What is said before the other side is there, marks, writing, being away; Ctrl-C leaves properly."""
    host = start(server, "--json")
    code = wanted(host, "code")["code"]
    tell(host, t="say", text="first\nof two lines")
    assert wanted(host, "sent")["id"] == 1
    async with joined(code, server) as other:
        assert await heard(other, Arrived) == Arrived(1, "first\nof two lines")
        assert (await said(host, "delivered"))["id"] == 1
        other.saw(1)
        assert (await said(host, "read"))["id"] == 1
        other.typed()
        assert (await said(host, "typing"))["on"] is True
        other.away("lunch")
        away = await said(host, "away")
        assert away["on"] is True and away["note"] == "lunch"
        other.away(None)
        assert (await said(host, "away"))["on"] is False
        other.say("red \x1b[31m\nü")
        assert await said(host, "message") == {"v": 1, "t": "message", "id": 1, "text": "red \x1b[31m\nü"}
        tell(host, t="read", id=1)
        assert await heard(other, Read) == Read(1)
        tell(host, t="typing")
        assert await heard(other, PeerTyping) == PeerTyping(True)
        tell(host, t="away", note="lunch \ud800")
        assert await heard(other, PeerAway) == PeerAway(True, "lunch ?")
        tell(host, t="away", on=False)
        assert await heard(other, PeerAway) == PeerAway(False, "")
        for nonsense in ("{", "[]", '{"t":"say"}', '{"t":"say","text":""}', '{"t":"fly"}'):
            assert host.stdin is not None
            host.stdin.write(nonsense + "\n")
        host.stdin.flush()
        assert len([await said(host, "warn") for _ in range(5)]) == 5
        host.send_signal(signal.SIGINT)
        await heard(other, PeerLeft)
    assert await asyncio.to_thread(host.wait, PATIENCE) == 130


async def test_lines_of_pipes_are_messages(server: str) -> None:
    """What comes on standard input goes over, and what the other side says is on standard output; control
    characters are not.
    """
    host = start(server)
    assert host.stdin is not None and host.stdout is not None and host.stderr is not None
    host.stdin.write("one\n\nzwei ü\nno newline")
    host.stdin.flush()
    async with joined(code_of(host), server) as other:
        assert [(await heard(other, Arrived)).text for _ in range(2)] == ["one", "zwei ü"]
        other.say("two\nlines")
        other.say("bell\a and \x1b[31mred")
        lines = [await asyncio.to_thread(host.stdout.readline) for _ in range(3)]
        assert lines == ["two\n", "lines\n", "bell\ufffd and \ufffd[31mred\n"]
        host.stdin.close()
        assert (await heard(other, Arrived)).text == "no newline"
        await heard(other, PeerLeft)
    assert await asyncio.to_thread(host.wait, PATIENCE) == 0
    assert host.stdout.read() == ""


class Terminal:
    """A person at a terminal of their own."""

    def __init__(self, server: str, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.seen = ""
        self.process = start(server, *arguments, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def sees(self, text: str) -> None:
        """Wait until that is on the screen, from where the last search ended."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.seen!r}"
            await asyncio.to_thread(self._read)
        self.seen = self.seen.partition(text)[2]

    async def leave(self) -> int:
        """The exit code; what is still written is read, lest the process wait for that."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            await asyncio.to_thread(self._read)
        os.close(self._master)
        return self.process.wait(PATIENCE)

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.05)[0]:
            try:
                self.seen += os.read(self._master, 65_536).decode("utf-8", "replace")
            except OSError:
                # Linux says so where nobody has the other end any more.
                return


async def test_a_person_writes_on_a_terminal(server: str) -> None:
    """Marks stand before the line and messages above it; there are commands, and pastes of many lines."""
    async with crowline.host(server, port_mapping=False, timeout=PATIENCE) as room:
        person = Terminal(server, room.code)
        async with speaking(await room.peer()) as other:
            await person.sees("Connected")
            await person.sees("> ")
            person.type("helo\x7flo there\r")
            assert (await heard(other, Arrived)).text == "hello there"
            await person.sees("you: hello there")
            await person.sees("✓ ")
            other.saw(1)
            await person.sees("✓✓")
            other.say("red \x1b[31m\nyou: forged")
            await person.sees("peer: red \ufffd[31m\r\n      you: forged")
            assert await heard(other, Read) == Read(1)
            person.type("\x1b[200~two\rlines\x1b[201~\r")
            assert (await heard(other, Arrived)).text == "two\nlines"
            person.type("/away lunch\r")
            assert await heard(other, PeerAway) == PeerAway(True, "lunch")
            person.type("//back\r")
            assert (await heard(other, Arrived)).text == "/back"
            person.type("x")
            assert await heard(other, PeerTyping) == PeerTyping(True)
            person.type("\x7f\x04")
            await heard(other, PeerLeft)
        assert await person.leave() == 0
