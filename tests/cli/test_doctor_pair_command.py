"""`crowline doctor` of two sides, as people and scripts run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

CROWLINE = [sys.executable, "-m", "crowline"]
STARTED: list[subprocess.Popen[str]] = []
PATIENCE = 60  # seconds for what takes about ten


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


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def doctor(server: str, *arguments: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CROWLINE")}
    process = subprocess.Popen(
        [*CROWLINE, "doctor", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "CROWLINE_SERVER": server},
    )
    STARTED.append(process)
    return process


def code_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    event = json.loads(process.stdout.readline())
    assert event["t"] == "code"
    return str(event["code"])


def test_one_reads_sentences_and_the_other_objects(server: str) -> None:
    """Both hear the same verdict, and their exit codes say it too."""
    first = doctor(server, "--pair", "--json")
    second = doctor(server, code_of(first))
    out, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, err
    assert out == ""
    for words in (
        "Verdict   You two connect directly.",
        "You  ",
        "Peer ",
        "Tried ",
        "✓ ",
        "Best ",
        "Why ",
        "Relay ",
    ):
        assert words in err, err
    out, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0 and "Traceback" not in err, err
    events = [json.loads(line) for line in out.splitlines()]
    assert {"peer", "path", "doctor-pair"} <= {event["t"] for event in events}
    report = events[-1]
    assert (report["v"], report["schema"], report["verdict"], report["exit"]) == (1, "doctor/1", "direct", 0)
    assert report["pairs"] and report["best"]["up"] > 0 and report["relay"]["loss"] < 1


def test_a_typo_is_found_before_anything_is_looked_at(server: str) -> None:
    """As with every code."""
    process = doctor(server, "7-maple-orbit-candlf")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4 and "Looking at this side" not in err, err


def test_who_comes_too_late_is_waited_for_no_longer(server: str) -> None:
    """`--timeout` is how long the other person may take."""
    process = doctor(server, "--pair", "--json", "--timeout", "0.5")
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert json.loads(out.splitlines()[-1])["exit"] == 3
