"""`crowline pair`, `crowline peers` and `--peer NAME` as people and scripts run them: two users."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cli_commands import CROWLINE, PATIENCE, end_all, serving
from crowline.api.chat import Arrived, Chat
from crowline.api.pairing import KnownPeer, KnownPeers, room_with
from crowline.base.secrets import Secret
from crowline.cli import main
from crowline.rendezvous.role import Role

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


class User:
    """Somebody with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CROWLINE", "XDG"))}
        self._environment = kept | {
            "HOME": str(home),
            "XDG_DATA_HOME": str(home),
            "XDG_STATE_HOME": str(home),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*CROWLINE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        STARTED.append(process)
        return process

    def meet(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that meets somebody, without asking any router."""
        return self.start(*arguments, "--no-port-mapping")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """A command in this process."""
        out, err = io.StringIO(), io.StringIO()
        home = mock.patch.dict(os.environ, self._environment, clear=True)
        with home, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as leave:
            main(list(arguments))
        assert isinstance(leave.value.code, int)
        return leave.value.code, out.getvalue(), err.getvalue()

    def known(self, *arguments: str) -> list[dict[str, Any]]:
        """What `crowline peers` says to programs."""
        exit_code, out, err = self.run("peers", "--json", *arguments)
        assert exit_code == 0, err
        return [event for line in out.splitlines() if (event := json.loads(line))["t"] == "known"]

    def hears(self, name: str) -> str:
        """The first message of a chat with that peer; then this side leaves. It is met as by another process,
        with the library in this one.
        """
        return asyncio.run(self._hear(name))

    async def _hear(self, name: str) -> str:
        chat, known = Chat(), KnownPeers(self.home / "crowline")
        async with (
            asyncio.timeout(PATIENCE),
            room_with(name, "chat", known=known, port_mapping=False) as room,
        ):
            speaking = asyncio.create_task(chat.run(await room.peer()))
            arrived = [event async for event in _until_a_message(chat)]
            await speaking
        return arrived[0].text

    def knows(self, name: str, other: User, secret: bytes, role: Role, server: str) -> None:
        """As if the two had paired."""
        key = KnownPeers(other.home / "crowline").own_key().public
        peer = KnownPeer(name, key, Secret(secret), role, server)
        KnownPeers(self.home / "crowline").add(peer)


async def _until_a_message(chat: Chat) -> AsyncIterator[Arrived]:
    """Messages up to the end of the chat, which this side ends after the first one."""
    async for event in chat.events():
        if isinstance(event, Arrived):
            chat.end()
            yield event


def tell(process: subprocess.Popen[str], **wish: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(wish) + "\n")
    process.stdin.flush()


def wanted(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next object of that kind; those before it are left out."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["t"] == kind:
            return event
    raise AssertionError(f"no {kind}: {process.stderr.read() if process.stderr else ''}")


@pytest.fixture
def ana(tmp_path: Path) -> User:
    (tmp_path / "ana").mkdir()
    return User(tmp_path / "ana")


@pytest.fixture
def ben(tmp_path: Path) -> User:
    (tmp_path / "ben").mkdir()
    return User(tmp_path / "ben")


@pytest.fixture
def paired(server: str, ana: User, ben: User) -> None:
    """Each knows the other by name, and where they met."""
    secret = os.urandom(32)
    ana.knows("ben", ben, secret, Role.HOST, server)
    ben.knows("Ana", ana, secret, Role.JOIN, server)


def test_who_pairs_is_known_to_the_other_side(server: str, ana: User, ben: User) -> None:
    """By the name that the other side likes, or by one's own choice."""
    host = ana.meet("pair", "--json", "--name", "ana", "--server", server)
    code = wanted(host, "code")["code"]
    join = ben.meet("pair", code, "--json", "--name", "ben", "--as", "Annie", "--server", server)
    assert wanted(host, "known")["name"] == "ben"
    assert wanted(join, "known")["name"] == "Annie"
    assert host.wait(PATIENCE) == 0 and join.wait(PATIENCE) == 0
    (entry,) = ana.known()
    assert entry["name"] == "ben" and entry["server"] == server and entry["waits"] == []
    assert entry["key"] == KnownPeers(ben.home / "crowline").own_key().public.hex()


@pytest.mark.usefixtures("paired")
def test_who_paired_chats_without_a_code(ana: User, ben: User) -> None:
    """At the server where they paired, and again at once with a side that was killed: nobody has to wait
    until that counts as gone. Who waits is shown to the other side.
    """
    waiting = ana.meet("chat", "--json", "--peer", "ben")
    deadline = time.monotonic() + PATIENCE
    while not (seen := ben.known())[0]["waits"]:
        assert waiting.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    assert seen[0]["waits"] == ["chat"]
    _, out, _ = ben.run("peers")
    assert "Ana" in out and "waits with `crowline chat`" in out
    killed = ben.meet("chat", "--json", "--peer", "ana")
    assert wanted(waiting, "peer")["name"] == "ben"
    assert wanted(killed, "peer")["name"] == "ana"
    tell(killed, t="say", text="hello")
    assert wanted(waiting, "message")["text"] == "hello"
    killed.kill()
    tell(waiting, t="say", text="are you there?")
    tell(waiting, t="end")
    assert ben.hears("ana") == "are you there?"
    assert wanted(waiting, "delivered")["id"] == 1
    assert waiting.wait(PATIENCE) == 0


@pytest.mark.usefixtures("paired")
def test_who_stays_is_met_again(ana: User, ben: User) -> None:
    """After the other side has left, which gets what was written while nobody was there."""
    staying = ana.meet("chat", "--json", "--stay", "--peer", "ben")
    for number, text in enumerate(("one", "two"), 1):
        tell(staying, t="say", text=text)
        assert ben.hears("ana") == text
        assert wanted(staying, "delivered")["id"] == number
        assert wanted(staying, "left")
    assert staying.stdin is not None
    staying.stdin.close()
    assert staying.wait(PATIENCE) == 0


@pytest.mark.usefixtures("paired")
def test_a_transfer_without_a_code_survives_the_death_of_either_side(
    ana: User, ben: User, tmp_path: Path
) -> None:
    """The side that lives and the one that comes again find each other by the same name: first the receiver,
    which hosted when they paired and is there before anybody, and then the sender that came again.
    """
    source, target = tmp_path / "a.bin", tmp_path / "target"
    source.write_bytes(os.urandom(3_000_000))
    target.mkdir()
    receive = ["receive", "-y", "--json", "--out", str(target), "--peer", "ben"]
    send = ["send", str(source), "--json", "--peer", "Ana"]
    # Slow enough that nothing is over before somebody is killed.
    receiver = ana.meet(*receive, "--limit", "40kB")
    killed = ben.meet(*send)
    assert wanted(receiver, "progress") and wanted(killed, "progress")
    killed.kill()
    sender = ben.meet(*send)
    assert wanted(sender, "progress")
    receiver.kill()
    receiver = ana.meet(*receive)
    for process in (sender, receiver):
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    assert (target / "a.bin").read_bytes() == source.read_bytes()


@pytest.mark.usefixtures("paired")
def test_names_are_the_persons_own(ana: User) -> None:
    """They change and go, and then stand for nobody."""
    assert ana.run("peers", "rename", "ben", "benjamin")[0] == 0
    assert [each["name"] for each in ana.known("--offline")] == ["benjamin"]
    assert ana.run("peers", "rename", "benjamin", "a b")[0] == 2
    assert ana.run("peers", "remove", "ben")[0] == 2
    assert ana.run("peers", "remove", "benjamin")[0] == 0
    assert ana.known() == []
    exit_code, _, err = ana.run("chat", "--peer", "benjamin", "--server", "ws://127.0.0.1:1")
    assert exit_code == 2 and "benjamin" in err


@pytest.mark.usefixtures("paired")
def test_a_server_that_is_gone_is_a_warning(ana: User) -> None:
    """Who is known is listed all the same."""
    exit_code, out, err = ana.run("peers", "--server", "ws://127.0.0.1:1")
    assert exit_code == 0 and "ben" in out and "ws://127.0.0.1:1" in err
    (entry,) = ana.known("--server", "ws://127.0.0.1:1")
    assert entry["waits"] is None


def test_nobody_is_known_at_first(ana: User) -> None:
    """And a person is told how that changes."""
    exit_code, out, err = ana.run("peers")
    assert exit_code == 0 and not out and "crowline pair" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["chat", "7-maple-orbit-candle", "--peer", "ben"],
        ["chat", "--lan", "--peer", "ben"],
        ["pair", "--peer", "ben"],
        ["chat", "--stay"],
        ["pair", "--as", "a b", "--server", "ws://127.0.0.1:1"],
        ["send", "--to", "192.0.2.7", "--peer", "ben", "."],
    ],
    ids=" ".join,
)
def test_flags_that_make_no_sense_together_are_refused(ana: User, arguments: list[str]) -> None:
    """As usage errors, before anybody is asked."""
    assert ana.run(*arguments)[0] == 2


def test_a_home_that_cannot_be_written_costs_no_code(ana: User) -> None:
    """It is said before the server is asked for one."""
    (ana.home / "crowline").touch()
    exit_code, out, err = ana.run("pair", "--json", "--server", "ws://127.0.0.1:1")
    assert exit_code == 8 and '"code"' not in out and "cannot be written" in err
