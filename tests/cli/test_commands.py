"""The commands as people and scripts run them: real processes, exit codes, JSON lines, no traceback."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from needs import needs_root

CROWLINE = [sys.executable, "-m", "crowline"]
STARTED: list[subprocess.Popen[str]] = []
PATIENCE = 30  # seconds for anything that a command does here


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a real server process on ports that the kernel chose.

    Clients that were killed still have their relays when it is told to end: it does not wait for these.
    """
    listen = ["--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0"]
    argv = [*CROWLINE, "serve", "--json", *listen, "--drain", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()
        assert process.wait(PATIENCE) == 0


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CROWLINE")}
    return kept | extra


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def start(*arguments: str, cwd: Path | None = None, **extra: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*CROWLINE, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(**extra),
    )
    STARTED.append(process)
    return process


def events(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(event["v"] == 1 for event in found)
    return found


def finish(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err, err
    return process.returncode, events(out), err


def code_of(sender: subprocess.Popen[str]) -> str:
    assert sender.stdout is not None
    for line in sender.stdout:
        event = json.loads(line)
        if event["t"] == "code":
            return str(event["code"])
    raise AssertionError(sender.communicate(timeout=PATIENCE)[1])


def last(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return [event for event in found if event["t"] == kind][-1]


def test_files_and_folders_arrive_whole(server: str, tmp_path: Path) -> None:
    """Two files and a folder with an empty file, permissions and sub-folders; every event of the contract."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "notes" / "deep").mkdir(parents=True)
    target.mkdir()
    (source / "one.bin").write_bytes(os.urandom(3_000_000))
    (source / "zwei ü.txt").write_text("zwei")
    (source / "notes" / "empty").touch()
    (source / "notes" / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (source / "notes" / "deep" / "run.sh").chmod(0o755)
    paths = [str(source / name) for name in ("one.bin", "zwei ü.txt", "notes")]
    sender = start("send", *paths, "--json", "--server", server)
    code = code_of(sender)
    receiver = start("receive", code, "-y", "--json", "--out", str(target), CROWLINE_SERVER=server)
    received = finish(receiver)
    sent = finish(sender)
    for exit_code, found, err in (received, sent):
        assert exit_code == 0, err
        kinds = {event["t"] for event in found}
        assert {"peer", "path", "progress", "file", "done"} <= kinds
        done = last(found, "done")
        assert done["bytes"] == 3_000_000 + 4 + 10
        assert done["setup_ms"] > 0
        assert done["direct_bytes"] + done["relay_bytes"] + done["hub_bytes"] >= done["bytes"]
        assert last(found, "progress")["bytes"] == done["bytes"]
    assert last(received[1], "offer")["files"] == 4
    assert last(received[1], "peer")["words"] == last(sent[1], "peer")["words"]
    digest = hashlib.sha256((source / "one.bin").read_bytes()).hexdigest()
    assert digest in {event["sha256"] for event in received[1] if event["t"] == "file"}
    assert (target / "one.bin").read_bytes() == (source / "one.bin").read_bytes()
    assert (target / "zwei ü.txt").read_text() == "zwei"
    assert (target / "notes" / "empty").read_bytes() == b""
    assert (target / "notes" / "deep" / "run.sh").stat().st_mode & 0o777 == 0o755


def test_nothing_is_ever_overwritten(server: str, tmp_path: Path) -> None:
    """A taken name gets a number, and the person is told."""
    source, target = tmp_path / "a.txt", tmp_path / "target"
    source.write_text("new")
    target.mkdir()
    (target / "a.txt").write_text("old")
    sender = start("send", str(source), "--json", "--server", server)
    exit_code, found, _ = finish(
        start("receive", code_of(sender), "-y", "--json", "--out", str(target), "--server", server)
    )
    assert exit_code == 0 and finish(sender)[0] == 0
    assert (target / "a.txt").read_text() == "old"
    assert (target / "a (1).txt").read_text() == "new"
    assert "a (1).txt" in last(found, "warn")["message"]


def test_a_wrong_code_is_exit_4_on_both_sides(server: str, tmp_path: Path) -> None:
    """A code that could be right but is not costs the code, and says so."""
    from crowline.rendezvous.code import Code

    source = tmp_path / "a"
    source.write_text("a")
    sender = start("send", str(source), "--json", "--server", server)
    code = Code.parse(code_of(sender))
    wrong = next(c for n in (0x1234567, 0x0ABCDEF) if (c := Code.from_secret(code.number, n)) != code)
    for process in (start("receive", str(wrong), "-y", "--json", "--server", server), sender):
        exit_code, found, err = finish(process)
        assert exit_code == 4
        assert last(found, "error")["exit"] == 4
        assert last(found, "error")["message"] in err
    exit_code, _, _ = finish(start("receive", str(code), "-y", "--server", server))
    assert exit_code == 4


def test_a_typo_is_caught_here_with_a_suggestion(tmp_path: Path) -> None:
    """No server is asked; near misses are named."""
    from crowline.rendezvous.code import Code

    code = str(Code.from_secret(7, 0x1234567))
    typo = code[:-1]
    exit_code, _, err = finish(start("receive", typo, "-y", "--server", "ws://127.0.0.1:1"))
    assert exit_code == 4
    assert code in err


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["send"], 2),
        (["send", "x", "--no-such-flag"], 2),
        (["no-such-verb"], 2),
        (["receive", "7-a-b-c"], 2),
        (["receive", "x", "-y", "--out", "/nowhere/at/all"], 2),
        (["send", "no/such/file", "--server", "ws://127.0.0.1:1"], 8),
        (["send", "/dev/zero", "--server", "ws://127.0.0.1:1"], 8),
        (["send", __file__, "--server", "ws://127.0.0.1:1"], 7),
        (["send", __file__], 7),
        (["send", __file__, "--server", "http://example.org"], 2),
        (["send", __file__, "--relay-only", "--direct-only", "--server", "ws://127.0.0.1:1"], 2),
        (["serve", "--listen", "nonsense"], 2),
        (["serve", "--allow-peer", "10.0.0.0/99"], 2),
    ],
)
def test_misuse_and_trouble_have_their_exit_codes(
    arguments: list[str], exit_code: int, tmp_path: Path
) -> None:
    """A sentence on standard error, no traceback, and the code of the contract."""
    process = start(*arguments, cwd=tmp_path, HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    code, _, err = finish(process)
    assert code == exit_code, err
    assert err.strip()


def test_a_port_in_use_is_exit_8() -> None:
    """Two servers on one port: the second says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = finish(start("serve", "--listen", f"127.0.0.1:{port}", "--stun-listen", "127.0.0.1:0"))
    assert code == 8
    assert str(port) in err


def test_nobody_comes_is_exit_3(server: str, tmp_path: Path) -> None:
    """`--timeout` ends the wait."""
    (tmp_path / "a").touch()
    code, found, _ = finish(
        start("send", str(tmp_path / "a"), "--json", "--timeout", "0.3", "--server", server)
    )
    assert code == 3
    assert last(found, "error")["exit"] == 3


def names_that_look_whole(folder: Path) -> list[str]:
    """What is there under names that are not this program's own."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".crowline-")]


def large_transfer(server: str, tmp_path: Path) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """A sender and a receiver in the middle of a file that takes its time."""
    source, target = tmp_path / "large", tmp_path / "target"
    target.mkdir()
    source.write_bytes(os.urandom(40 << 20))
    flags = ["--json", "--deadline", "3", "--server", server]
    sender = start("send", str(source), "--limit", "4MB", *flags)
    receiver = start("receive", code_of(sender), "-y", "--out", str(target), *flags)
    assert receiver.stdout is not None
    for line in receiver.stdout:
        if json.loads(line).get("bytes", 0) > 0 and json.loads(line)["t"] == "progress":
            return sender, receiver
    raise AssertionError(receiver.communicate()[1])


@pytest.mark.parametrize("stopped", ["sender", "receiver"])
def test_ctrl_c_is_exit_130_and_leaves_nothing_that_looks_whole(
    server: str, tmp_path: Path, stopped: str
) -> None:
    """The other side is told at once and ends with the code for "can be run again"."""
    sender, receiver = large_transfer(server, tmp_path)
    victim, other = (sender, receiver) if stopped == "sender" else (receiver, sender)
    victim.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert finish(victim)[0] == 130
    code, _, err = finish(other)
    assert code == 10, err
    assert time.monotonic() - began < PATIENCE
    assert names_that_look_whole(tmp_path / "target") == []


def test_a_killed_sender_is_noticed_and_nothing_looks_whole(server: str, tmp_path: Path) -> None:
    """kill -9: no goodbye is sent."""
    sender, receiver = large_transfer(server, tmp_path)
    sender.kill()
    sender.communicate()
    code, found, _ = finish(receiver)
    assert code == 10
    assert last(found, "error")["exit"] == 10
    assert names_that_look_whole(tmp_path / "target") == []


@pytest.mark.kernel
def test_a_full_disk_is_exit_8_there_and_exit_5_here(server: str, tmp_path: Path) -> None:
    """The receiver's disk fills up in the middle; the sender hears that, and nothing stays half-written."""
    needs_root()
    source, target = tmp_path / "large", tmp_path / "target"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(target)], check=True)
    try:
        source.write_bytes(os.urandom(200 << 20))
        sender = start("send", str(source), "--json", "--limit", "20MB", "--server", server)
        code = code_of(sender)
        receiver = start("receive", code, "-y", "--json", "--out", str(target), "--server", server)
        assert receiver.stdout is not None
        for line in receiver.stdout:
            if json.loads(line)["t"] == "offer":
                break
        with suppress(OSError), (target / "hog").open("wb", buffering=0) as hog:
            while hog.write(bytes(1 << 20)):
                pass
        exit_code, found, _ = finish(receiver)
        assert exit_code == 8
        assert "disk is full" in last(found, "error")["message"]
        exit_code, found, _ = finish(sender)
        assert exit_code == 5
        assert "disk is too full" in last(found, "error")["message"]
        assert names_that_look_whole(target) == ["hog"]
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


def test_an_offer_that_does_not_fit_is_refused_before_it_begins(server: str, tmp_path: Path) -> None:
    """The free space is looked at first."""
    source = tmp_path / "huge"
    with source.open("wb") as file:
        file.truncate(1 << 42)
    (tmp_path / "target").mkdir()
    sender = start("send", str(source), "--json", "--server", server)
    receiver = start(
        "receive", code_of(sender), "-y", "--json", "--out", str(tmp_path / "target"), "--server", server
    )
    assert finish(receiver)[0] == 8
    assert finish(sender)[0] == 5
    assert list((tmp_path / "target").iterdir()) == []


def test_an_unreadable_file_is_exit_8(server: str, tmp_path: Path) -> None:
    """Said before anybody is asked to wait, where it can be known before."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        secret.unlink()
        secret.symlink_to(tmp_path / "nowhere")
    code, _, err = finish(start("send", str(secret), "--server", server))
    assert code == 8
    assert "secret" in err


def test_help_imports_nothing_slow() -> None:
    """`--help` knows verbs by name, and a verb its flags; QUIC, the PAKE and the server's parts stay out."""
    script = (
        "import sys\n"
        "from crowline.cli import main\n"
        "for verb in ([], ['pipe'], ['forward'], ['ping']):\n"
        "    try: main([*verb, '--help'])\n"
        "    except SystemExit as leave: assert not leave.code\n"
        "slow = {'qh3', 'spake2', 'websockets', 'cryptography', 'msgspec', 'rich', 'starlette', 'asyncio'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in ("send", "receive", "serve", "demo"))


@pytest.mark.parametrize("verb", ["send", "receive", "serve", "demo"])
def test_every_verb_explains_itself(verb: str) -> None:
    """Its flags are listed."""
    done = subprocess.run([*CROWLINE, verb, "--help"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_the_example_runs(server: str) -> None:
    """The library as `examples/echo.py` shows it, between two processes."""
    example = str(Path(__file__).parents[2] / "examples" / "echo.py")
    variables = environment(CROWLINE_SERVER=server, PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        [sys.executable, example, "host"], stdout=subprocess.PIPE, text=True, env=variables
    ) as host:
        assert host.stdout is not None
        code = host.stdout.readline().split()[1]
        joined = subprocess.run(
            [sys.executable, example, "join", code],
            capture_output=True, text=True, env=variables, timeout=PATIENCE,
        )  # fmt: skip
        assert joined.returncode == 0, joined.stderr
        assert joined.stdout.splitlines()[:4] == ["AS", "THE", "CROW", "FLIES"]
        assert host.wait(PATIENCE) == 0
