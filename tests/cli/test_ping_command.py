"""`crowline ping` between a process and this one: what it prints, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from crowline.cli import main
from crowline.cli.meet import tell_path
from crowline.cli.output import Output
from threaded_server import served

CROWLINE = [sys.executable, "-m", "crowline"]
PATIENCE = 30  # seconds for anything that a command does here
# Exit code and objects of a side.
Said = tuple[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as url:
        yield url


def arguments(server: str, *more: str) -> list[str]:
    return ["ping", *more, "--json", "--server", server, "--no-port-mapping"]


def both(
    capsys: pytest.CaptureFixture[str], server: str, here: list[str], there: list[str]
) -> tuple[Said, Said]:
    """What a process says that hosts, and what this one says that joins."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CROWLINE")}
    argv = [*CROWLINE, *arguments(server, *here)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=kept) as host:
        assert host.stdout is not None
        try:
            code = json.loads(host.stdout.readline())["code"]
            joining = run_here(capsys, server, code, *there)
            out, _ = host.communicate(timeout=PATIENCE)
        finally:
            host.kill()
    return (host.returncode, [json.loads(line) for line in out.splitlines()]), joining


def run_here(capsys: pytest.CaptureFixture[str], server: str, *more: str) -> Said:
    with pytest.raises(SystemExit) as ended:
        main(arguments(server, *more))
    assert isinstance(ended.value.code, int)
    return ended.value.code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_direct_path_is_exit_0_and_every_answer_is_an_object(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many answers as questions, with round trip and path."""
    for exit_code, found in both(
        capsys, server, ["--until", "direct", "--count", "0"], ["--count", "3", "-i", "0.2"]
    ):
        assert exit_code == 0, found
        pongs = [event for event in found if event["t"] == "pong"]
        assert pongs and all(event["rtt_ms"] > 0 for event in pongs)
        assert pongs[-1]["kind"] in ("direct", "lan")
        done = found[-1]
        assert done["t"] == "done" and done["received"] == len(pongs)
        assert 0 < done["min_ms"] <= done["average_ms"] <= done["max_ms"]


def test_a_relay_is_exit_20(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever allows nothing else, and so for the other side."""
    questions = ["-c", "2", "-i", "0.1"]
    for exit_code, found in both(capsys, server, ["--relay-only", *questions], questions):
        assert exit_code == 20, found
        assert found[-1]["direct_bytes"] == 0


def test_nobody_is_exit_3(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Within the time that was given."""
    exit_code, found = run_here(capsys, server, "--timeout", "0.2")
    assert exit_code == 3 and found[-1]["exit"] == 3


def test_paths_that_go_down_at_the_end_are_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    """The object that says how it ended is the last one."""
    output = Output(as_json=True)
    tell_path(output, None, None)
    output.emit("done")
    tell_path(output, None, None)
    assert [json.loads(line)["t"] for line in capsys.readouterr().out.splitlines()] == ["path", "done"]
