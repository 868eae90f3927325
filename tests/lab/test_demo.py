"""The demo's judgement, with a stand-in for the program that does right or does one thing wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from crowline.lab import demo_stage, demo_transfer
from crowline.lab.demo import FILE_SIZE, Wishes, describe, judge, run_demo
from crowline.lab.demo_files import digest, fingerprint, make_file, make_folder, size_of
from crowline.lab.demo_stage import loopback_stage
from crowline.lab.demo_transfer import Result, TransferFailed, transfer

# Speaks the program's language: the code is a file by which the two sides find each other.
STAND_IN = """
import json, os, shutil, socket, sys, time
from pathlib import Path

mode, verb, arguments = os.environ["STAND_IN"], sys.argv[1], sys.argv[2:]

def say(t, **fields):
    print(json.dumps({"v": 1, "t": t, **fields}), flush=True)

def option(name):
    return arguments[arguments.index(name) + 1]

def fail(code, message):
    say("error", exit=code, message=message, hint="")
    sys.exit(code)

if verb == "serve":
    if mode == "no server":
        sys.exit("the port is taken")
    host, _, port = option("--listen").rpartition(":")
    listener = socket.create_server((host, int(port)))
    while True:
        listener.accept()[0].close()

path = dict(kind="direct", transport="udp", local="127.0.0.1:1", remote=f"127.0.0.1:{os.getpid() % 9999 + 1}")
if verb == "send":
    sources = [a for a in arguments if a.startswith("/")]
    if mode == "no code":
        fail(7, "no server here")
    meeting = Path(os.environ["HOME"]) / f"meeting-{os.getpid()}"
    meeting.write_text(json.dumps(sources))
    print("a line for nobody", flush=True)
    say("code", code=str(meeting))
    while meeting.exists():
        time.sleep(0.01)
    say("path", **path)
    if mode == "sender fails":
        fail(9, "the check sum is wrong")
    say("done", bytes=1)
else:
    out, meeting = Path(option("--out")), Path(arguments[-1])
    if mode == "receiver hangs":
        time.sleep(300)
    if mode == "receiver dies":
        meeting.unlink()
        os.kill(os.getpid(), 9)
    say("path", kind="hub", transport="ws", local="", remote="")
    size = 0
    for source in map(Path, json.loads(meeting.read_text())):
        target = out / source.name
        if mode == "loses a file":
            continue
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        members = [m for m in [target, *target.rglob("*")] if m.is_file()]
        size += sum(m.stat().st_size for m in members)
        if mode == "flips a bit":
            first = bytearray(members[0].read_bytes())
            first[-1] ^= 1
            members[0].write_bytes(first)
        if mode == "forgets modes":
            for member in members:
                member.chmod(0o644)
    say("path", **path)
    say("done", bytes=size, seconds=0.5, direct_bytes=size, relay_bytes=0, setup_ms=12.4, direct_ms=55)
    meeting.unlink()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the demo run the stand-in instead of the program."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    for module in (demo_transfer, demo_stage):
        monkeypatch.setattr(module, "CROWLINE", (sys.executable, str(script)))
    monkeypatch.setattr(demo_transfer, "GRACE", 1.0)
    monkeypatch.setenv("STAND_IN", "right")
    return monkeypatch


class Notes:
    """Everything that was told."""

    def __init__(self) -> None:
        self.text = ""

    def heading(self, text: str) -> None:
        self.text += f"# {text}\n"

    def line(self, label: str, text: str) -> None:
        self.text += f"{label}: {text}\n"


def run(folder: Path) -> Result:
    folder.mkdir()
    source = folder / "notes"
    make_folder(source)
    with loopback_stage(folder) as stage:
        left, right = stage.home
        return transfer(left.spawn, right.spawn, stage.server, [source], folder / "case")


def test_a_right_run_has_no_problem(stand_in: pytest.MonkeyPatch) -> None:
    """Both transfers are told, with path, times, rate and both checksums, and nothing is wrong."""
    notes = Notes()
    assert run_demo(Wishes(loopback=True), notes) == []
    assert "on loopback" in notes.text
    assert re.search(r"path: direct, udp, 127\.0\.0\.1:\d+ ⇄ 127\.0\.0\.1:\d+", notes.text)
    assert "on the way: hub → direct" in notes.text
    assert "set-up: after 12 ms, direct after 55 ms" in notes.text
    assert f"rate: {FILE_SIZE / 1e6:.1f} MB in 0.50 s: {FILE_SIZE / 0.5 / 1e6:.1f} MB/s" in notes.text
    checksums = re.findall(r"(?:sent     |received )([0-9a-f]{64})", notes.text)
    assert len(checksums) == 4
    assert checksums[0] == checksums[1] != checksums[2] == checksums[3]


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("flips a bit", "what arrived is not what was sent"),
        ("loses a file", "what arrived is not what was sent"),
        ("forgets modes", "what arrived is not what was sent"),
        ("sender fails", "the sender ended with 9: the check sum is wrong"),
        ("receiver dies", "the receiver ended with -9"),
    ],
)
def test_what_goes_wrong_is_noticed(
    stand_in: pytest.MonkeyPatch, tmp_path: Path, mode: str, problem: str
) -> None:
    """The demo believes its own checksums and the exit codes, not what a side claims."""
    stand_in.setenv("STAND_IN", mode)
    assert problem in judge(run(tmp_path / "run"), "", "", "")


def test_a_missing_code_ends_the_attempt(stand_in: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sender that gives up is reported with its own words."""
    stand_in.setenv("STAND_IN", "no code")
    with pytest.raises(TransferFailed, match="no server here"):
        run(tmp_path / "run")


def test_a_server_that_ends_is_reported(stand_in: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The last line of its standard error says why."""
    stand_in.setenv("STAND_IN", "no server")
    with pytest.raises(TransferFailed, match="the port is taken"):
        run(tmp_path / "run")


def test_a_side_that_hangs_is_ended(stand_in: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After the deadline both processes are gone and the exit codes tell."""
    stand_in.setenv("STAND_IN", "receiver hangs")
    stand_in.setattr(demo_transfer, "END_PATIENCE", 0.3)
    result = run(tmp_path / "run")
    assert result.exit_codes == (-15, -15)
    assert not result.same


def test_the_path_is_judged(stand_in: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its kind must be the expected one, and a direct path goes by the two outside addresses."""
    result = run(tmp_path / "run")
    assert judge(result, "direct", "127.0.0.1", "127.0.0.1") == []
    assert "the path is direct and should be relay" in judge(result, "relay", "", "")
    [problem] = judge(result, "direct", "127.0.0.1", "44.100.1.1")
    assert "44.100.1.1 is the outside address" in problem
    assert dict(describe(result))["path"].startswith("direct, udp, 127.0.0.1:")


def test_fingerprints_see_every_member(tmp_path: Path) -> None:
    """Content, names, modes and empty folders count."""
    folder = tmp_path / "notes"
    make_folder(folder)
    before = fingerprint(folder)
    assert before["notes/nothing here"] == "folder"
    assert before["notes/tools/greet.sh"].endswith(" executable")
    assert size_of(folder) == sum(len(m.read_bytes()) for m in folder.rglob("*") if m.is_file())
    (folder / "nothing here").rmdir()
    assert digest(fingerprint(folder)) != digest(before)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_made_files_have_their_size(tmp_path: Path, size: int) -> None:
    """To the byte."""
    make_file(tmp_path / "file", size)
    assert (tmp_path / "file").stat().st_size == size
