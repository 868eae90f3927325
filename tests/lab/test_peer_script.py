"""What a foreign program is told and what becomes of its answer, with scripts on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from crowline.base.errors import LocalProblem
from crowline.lab import peer_script
from crowline.lab.outcome import MalformedOutcome, Outcome
from crowline.lab.peer_script import Surroundings, command, merge, read_answer, run_script

ANSWER = """
import json, os, sys
role = sys.argv[1]
assert role == os.environ["CROWLINE_LAB_ROLE"]
if role == "server":
    print("ready", flush=True)
    import time
    time.sleep(60)
with open(os.path.join(os.environ["CROWLINE_LAB_FOLDER"], role), "w") as file:
    json.dump({name: value for name, value in os.environ.items() if name.startswith("CROWLINE")}, file)
"""


def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(argv, start_new_session=True, **options)


class Bench:
    """Runs one script with all three roles on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir()
        self.work = folder / "work"
        self.work.mkdir()

    def run(self, source: str, *, patience: float = 20.0) -> Outcome:
        script = self.folder / "peer.py"
        script.write_text(source)
        surroundings = Surroundings(
            self.shared,
            ("44.1.0.1", "44.1.0.2"),
            {"a": ("192.168.1.2",), "b": ("192.168.2.2", "2a01::2")},
            "44.1.0.1:3478",
            "ws://44.1.0.1:8080",
            patience,
        )
        return run_script(script, {"server": spawn, "a": spawn, "b": spawn}, surroundings, self.work)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_both_sides_are_told_where_they_are_and_not_what_is_between(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of the contract, and none that would lead the program out or into our settings."""
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    monkeypatch.setenv("CROWLINE_SERVER", "ws://elsewhere.example")
    outcome = bench.run(ANSWER + 'print(json.dumps({"kind": "direct", "setup_ms": 12}))')
    assert outcome == Outcome("direct", 12.0)
    told = json.loads((bench.shared / "b").read_text())
    assert told == {
        "CROWLINE_LAB_ROLE": "b",
        "CROWLINE_LAB_ADDRESSES": "192.168.2.2 2a01::2",
        "CROWLINE_LAB_SERVERS": "44.1.0.1 44.1.0.2",
        "CROWLINE_LAB_STUN": "44.1.0.1:3478",
        "CROWLINE_LAB_URL": "ws://44.1.0.1:8080",
        "CROWLINE_LAB_FOLDER": str(bench.shared),
        "CROWLINE_LAB_TIMEOUT": "20",
    }


def test_a_script_without_server_of_its_own_is_run_all_the_same(bench: Bench) -> None:
    """Exit code 0 of the role `server` means that none is needed; lines before the answer are ignored."""
    source = (
        'import sys\nif sys.argv[1] != "server": print("hello"); print(\'{"kind": "relay"}\'); print("bye")'
    )
    assert bench.run(source) == Outcome("relay")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('print(\'{"kind": "direct"}\'); sys.exit(3)', "a says direct, but ended with 3"),
        ('sys.exit("no candidates")', "a ended with 1: no candidates"),
        ('print(\'{"kind": "great"}\')', "a ended with 0: kind is one of direct, lan, relay, hub, failed"),
        ("pass", "a ended with 0: it printed no JSON object"),
        ("print('{' * 100000)", "a ended with 0: what it printed is no JSON object"),
    ],
    ids=["exit code", "complaint", "unknown kind", "silence", "depth"],
)
def test_a_script_that_breaks_the_contract_has_failed(bench: Bench, body: str, reason: str) -> None:
    """Whatever a side does wrong is the reason of a failed outcome."""
    source = f'import sys\nif sys.argv[1] == "server": sys.exit(0)\n{body}'
    assert bench.run(source) == Outcome("failed", reason=reason)


def test_a_script_that_does_not_end_is_ended(bench: Bench) -> None:
    """The time runs out: both are ended, and the outcome says so."""
    source = 'import sys, time\nif sys.argv[1] != "server": time.sleep(60)'
    assert bench.run(source, patience=0.3) == Outcome("failed", reason="a gave no answer in time")


def test_one_side_that_fails_does_not_leave_the_other_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is that of the side which ended by itself."""
    monkeypatch.setattr(peer_script, "GRACE", 0.2)
    source = (
        'import sys, time\nif sys.argv[1] == "a": time.sleep(60)\nif sys.argv[1] == "b": sys.exit("lost")'
    )
    assert bench.run(source) == Outcome("failed", reason="b ended with 1: lost")


def test_a_server_that_cannot_start_ends_the_attempt(bench: Bench) -> None:
    """Nothing else is started."""
    source = 'import sys\nif sys.argv[1] == "server": sys.exit("port in use")\nprint(\'{"kind": "direct"}\')'
    assert bench.run(source) == Outcome("failed", reason="its server ended with 1: port in use")
    assert not (bench.work / "a").exists()


def test_a_server_that_says_nothing_is_not_waited_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a deadline too, and is gone afterwards."""
    monkeypatch.setattr(peer_script, "SERVER_PATIENCE", 0.3)
    source = 'import os, time\nopen(os.environ["HOME"] + "/pid", "w").write(str(os.getpid()))\ntime.sleep(60)'
    assert bench.run(source) == Outcome("failed", reason="its server was not ready after 0.3 s")
    pid = int((bench.work / "server" / "pid").read_text() or "0") if (bench.work / "server").exists() else 0
    assert not pid or not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("a", "b", "merged"),
    [
        (Outcome("direct", 10.0, 30.0), Outcome("direct", 20.0, 25.0), Outcome("direct", 20.0, 30.0)),
        (Outcome("direct", 10.0), Outcome("relay", 20.0, reason="why"), Outcome("relay", 20.0, reason="why")),
        (Outcome("direct", reason="x"), Outcome("direct", 9.0), Outcome("direct", 9.0, reason="x")),
        (Outcome("failed", reason="mine"), Outcome("direct", 1.0), Outcome("failed", reason="mine")),
        (Outcome("failed", reason="a"), Outcome("failed", reason="b"), Outcome("failed", reason="a")),
    ],
    ids=["equal", "worse wins", "texts", "failed wins", "first reason"],
)  # fmt: skip
def test_what_two_sides_say_becomes_one_outcome(a: Outcome, b: Outcome, merged: Outcome) -> None:
    """The worse kind wins; a time counts when both have reached it."""
    assert merge(a, b) == merged


@pytest.mark.parametrize(
    "fields",
    [
        [], {}, {"kind": 3}, {"kind": []}, {"kind": "direct", "setup_ms": "12"},
        {"kind": "direct", "setup_ms": True}, {"kind": "direct", "setup_ms": -1},
        {"kind": "direct", "setup_ms": float("nan")}, {"kind": "direct", "direct_ms": float("inf")},
        {"kind": "direct", "direct_ms": 10**400}, {"kind": "direct", "technique": 1},
        {"kind": "direct", "reason": ["x"]},
    ],
)  # fmt: skip
def test_fields_of_the_wrong_type_or_size_are_refused(fields: object) -> None:
    """Nothing but `MalformedOutcome` comes out of foreign values."""
    with pytest.raises(MalformedOutcome):
        Outcome.from_fields(fields)


def test_an_outcome_survives_json_and_loses_what_could_harm() -> None:
    """Fields read back are equal; texts are cut and printable on one line."""
    outcome = Outcome("lan", 1.5, None, "host", "neighbours")
    assert Outcome.from_fields(json.loads(json.dumps(outcome.to_fields()))) == outcome
    dirty = read_answer(
        '{"kind": "failed", "reason": "a\\u001b[31m\\nb\\ud800' + "x" * 9000 + '", "more": 1}'
    )
    assert (
        dirty.reason.startswith("a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b")
        and len(dirty.reason) == 500
    )
    assert dirty.reason.isprintable()


def test_scripts_are_started_by_themselves_or_by_this_python(tmp_path: Path) -> None:
    """An executable file is run as it is; a Python file needs no bit; all else is a clear sentence."""
    script = tmp_path / "peer.py"
    with pytest.raises(LocalProblem, match="no peer script"):
        command(script, "a")
    script.touch()
    assert command(script, "a") == [sys.executable, str(script), "a"]
    script.chmod(0o755)
    assert command(script, "b") == [str(script), "b"]
    plain = tmp_path / "peer"
    plain.touch(0o644)
    if os.access(plain, os.X_OK):
        pytest.fail("a file without the bit counts as executable")
    with pytest.raises(LocalProblem, match="not executable"):
        command(plain, "a")
