"""`send` and `receive` beyond the first try: streams, many receivers, breaks, and running it again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_commands import PATIENCE, Command, Commands, serving
from crowline.cli import main

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def commands(server: str, tmp_path: Path) -> Iterator[Commands]:
    found = Commands(server, tmp_path / "state")
    yield found
    found.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def records(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "state" / "crowline" / "transfers"
    return list(folder.iterdir()) if folder.exists() else []


def sending(commands: Commands, *arguments: str, **options: int) -> tuple[Command, str]:
    sender = commands.start("send", *arguments, "--json", "--no-port-mapping", **options)
    return sender, sender.hear("code")["code"]


def receiving(commands: Commands, code: str, target: Path) -> Command:
    return commands.start("receive", code, "-y", "--json", "--no-port-mapping", "--out", str(target))


def test_a_stream_comes_out_as_it_went_in(commands: Commands, tmp_path: Path) -> None:
    """`send -` into `receive --out -`: exact bytes on standard output, and nothing else there; with --json
    objects are on standard error."""
    data = os.urandom(5 * MEGABYTE + 17)
    (tmp_path / "input").write_bytes(data)
    with (tmp_path / "input").open("rb") as file:
        sender, code = sending(commands, "-", stdin=file.fileno())
    receiver = commands.start("receive", code, "--out", "-", "--json")
    out, err = receiver.process.communicate(timeout=PATIENCE)
    assert (sender.end()[0], receiver.process.returncode) == (0, 0), err
    assert out == data
    assert sender.last("done")["bytes"] == len(data)
    assert {"offer", "done"} <= {json.loads(line)["t"] for line in err.splitlines()}
    assert records(tmp_path) == []


def test_a_stream_is_saved_under_the_name_that_it_was_given(commands: Commands, target: Path) -> None:
    """A folder in place of standard output; what is there is not replaced, and the other name is said."""
    (target / "log.txt").write_text("old")
    sender = commands.start("send", "-", "--name", "log.txt", "--json", stdin=subprocess.PIPE)
    receiver = receiving(commands, sender.hear("code")["code"], target)
    assert sender.end(b"new")[0] == 0
    assert receiver.end()[0] == 0
    assert receiver.last("offer")["bytes"] is None
    assert "log (1).txt" in receiver.last("warn")["message"]
    assert sorted(path.name for path in target.iterdir()) == ["log (1).txt", "log.txt"]
    assert (target / "log (1).txt").read_bytes() == b"new"


def test_a_stream_moves_before_it_has_ended(commands: Commands) -> None:
    """No spool file in between: what goes in is seen at the other end at once."""
    sender = commands.start("send", "-", "--json", stdin=subprocess.PIPE)
    receiver = commands.start("receive", sender.hear("code")["code"], "--out", "-")
    assert sender.process.stdin is not None and receiver.process.stdout is not None
    for word in (b"one\n", b"two\n"):
        sender.process.stdin.write(word)
        sender.process.stdin.flush()
        assert receiver.process.stdout.readline() == word
    assert sender.end()[0] == 0
    out, err = receiver.process.communicate(timeout=PATIENCE)
    assert (out, receiver.process.returncode) == (b"", 0)
    assert b"Done" in err


def test_whoever_stops_reading_a_stream_ends_it_on_both_sides(commands: Commands) -> None:
    """As with `| head -1`: exit code 8 there, 5 here, although the input never ends."""
    with Path("/dev/zero").open("rb") as endless:
        sender, code = sending(commands, "-", stdin=endless.fileno())
        receiver = commands.start("receive", code, "--out", "-")
        assert receiver.process.stdout is not None
        assert receiver.process.stdout.read(100) == bytes(100)
        receiver.process.stdout.close()
        assert sender.end()[0] == 5
    assert receiver.process.wait(PATIENCE) == 8


def test_files_are_not_written_to_standard_output(commands: Commands, tmp_path: Path) -> None:
    """A sentence on both sides, and nothing between the data. Whoever says no is not waited for again: the
    next `send` of the same paths is for somebody else."""
    (tmp_path / "a").write_text("a")
    sender, code = sending(commands, str(tmp_path / "a"))
    receiver = commands.start("receive", code, "--out", "-")
    out, err = receiver.process.communicate(timeout=PATIENCE)
    assert receiver.process.returncode == 2 and b"sends files" in err
    assert out == b""
    assert sender.end()[0] == 5
    assert records(tmp_path) == []
    _, other = sending(commands, str(tmp_path / "a"))
    assert other != code


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "-", "x"],
        ["send", "-", "--to-many", "2"],
        ["send", "-", "--no-server"],
        ["send", "-", "--name", "../x"],
        ["send", "x", "--to-many", "2", "--lan"],
        ["send", "x", "--to-many", "33"],
        ["send", "x", "--limit", "0"],
        ["send", "x", "--limit", "fast"],
    ],
)
def test_flags_that_make_no_sense_together_are_exit_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anybody is met."""
    monkeypatch.setenv("CROWLINE_SERVER", "ws://127.0.0.1:1")
    with pytest.raises(SystemExit) as leave:
        main(arguments)
    assert leave.value.code == 2


def test_merging_adds_what_is_new_to_the_folder_that_is_there(
    commands: Commands, tmp_path: Path, target: Path
) -> None:
    """`receive --merge`: the other files of that folder stay as they are, and nothing of theirs moves."""
    for folder in (tmp_path / "notes", target / "notes"):
        folder.mkdir()
        (folder / "both").write_bytes(b"the same")
    (tmp_path / "notes" / "new").write_bytes(b"new")
    (target / "notes" / "own").write_bytes(b"own")
    sender, code = sending(commands, str(tmp_path / "notes"))
    arguments = [code, "-y", "--merge", "--json", "--no-port-mapping", "--out", str(target)]
    receiver = commands.start("receive", *arguments)
    assert (sender.end()[0], receiver.end()[0]) == (0, 0)
    assert receiver.last("done")["skipped"] == 1
    found = {path.name: path.read_bytes() for path in (target / "notes").iterdir()}
    assert found == {"both": b"the same", "new": b"new", "own": b"own"}
    assert [path.name for path in target.iterdir()] == ["notes"]


def test_many_receivers_have_everything_each(commands: Commands, tmp_path: Path) -> None:
    """A code, a session and a summary for each; one that refuses costs the others nothing."""
    (tmp_path / "a").write_bytes(os.urandom(2 * MEGABYTE))
    sender = commands.start("send", str(tmp_path / "a"), "--to-many", "3", "--json", "--no-port-mapping")
    codes = {}
    while len(codes) < 3:
        event = sender.hear("code")
        codes[event["receiver"]] = event["code"]
    assert len(set(codes.values())) == 3
    targets = [tmp_path / f"target{number}" for number in (1, 2)]
    receivers = []
    for number, target in enumerate(targets, 1):
        target.mkdir()
        receivers.append(receiving(commands, codes[number], target))
    refusing = commands.start("receive", codes[3], "--out", "-")
    assert refusing.end()[0] == 2
    assert [receiver.end()[0] for receiver in receivers] == [0, 0]
    assert sender.end()[0] == 5
    done = {event["receiver"]: event for event in sender.found if event["t"] == "done"}
    assert {number: event["bytes"] for number, event in done.items()} == {1: 2 * MEGABYTE, 2: 2 * MEGABYTE}
    assert sender.last("error")["receiver"] == 3
    for target in targets:
        assert (target / "a").read_bytes() == (tmp_path / "a").read_bytes()
    assert records(tmp_path) == []


def large(tmp_path: Path, megabytes: int = 24) -> Path:
    """A file that takes a moment at the limit that the tests give."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(megabytes * MEGABYTE))
    return path


def test_the_same_commands_go_on_after_kill_9(commands: Commands, tmp_path: Path, target: Path) -> None:
    """With the same code, whichever side was killed, or both: what had arrived is not sent again."""
    source, limit = large(tmp_path), ["--limit", "4MB"]
    sender, code = sending(commands, str(source), *limit)
    receiver = receiving(commands, code, target)
    for number, killed in enumerate([{"sender"}, {"receiver"}, {"sender", "receiver"}], 1):
        receiver.hear_progress(4 * number * MEGABYTE)
        dead = [sender.process] * ("sender" in killed) + [receiver.process] * ("receiver" in killed)
        for process in dead:
            process.kill()
            process.wait(PATIENCE)
        if "sender" in killed:
            sender, again = sending(commands, str(source), *(limit if number == 1 else []))
            assert again == code
        if "receiver" in killed:
            receiver = receiving(commands, code, target)
    code_there, err_there = receiver.end()
    code_here, err_here = sender.end()
    assert (code_here, code_there) == (0, 0), err_here + err_there
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert hashlib.sha256((target / "large").read_bytes()).hexdigest() == digest
    assert [path.name for path in target.iterdir()] == ["large"]
    assert receiver.last("done")["moved"] < 20 * MEGABYTE
    assert records(tmp_path) == []


def test_ctrl_c_can_be_gone_on_with_and_new_begins_anew(
    commands: Commands, tmp_path: Path, target: Path
) -> None:
    """The person is told how; --new is for when somebody else is to have it."""
    source = large(tmp_path)
    sender, code = sending(commands, str(source), "--limit", "8MB")
    receiver = receiving(commands, code, target)
    receiver.hear_progress(2 * MEGABYTE)
    sender.process.send_signal(signal.SIGINT)
    assert sender.end()[0] == 130
    code_there, err = receiver.end()
    assert code_there == 10 and "same command" in err
    assert len(records(tmp_path)) == 2
    _, same = sending(commands, str(source))
    assert same == code
    commands.close()
    _, new = sending(commands, str(source), "--new")
    assert new != code


def test_the_slower_of_two_limits_holds(commands: Commands, tmp_path: Path, target: Path) -> None:
    """Here the receiver's: no more than that leaves at the other side."""
    sender, code = sending(commands, str(large(tmp_path, 4)), "--limit", "40MB")
    flags = ["-y", "--json", "--no-port-mapping", "--limit", "4MB", "--out", str(target)]
    receiver = commands.start("receive", code, *flags)
    assert receiver.end()[0] == 0 and sender.end()[0] == 0
    assert receiver.last("done")["seconds"] > 0.9 * (4 - 0.5) / 4
