"""`crowline ping` between two processes: what it prints, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

CROWLINE = [sys.executable, "-m", "crowline"]
PATIENCE = 30  # seconds for anything that a command does here


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


def ping(server: str, *arguments: str) -> subprocess.Popen[str]:
    argv = [*CROWLINE, "ping", *arguments, "--json", "--server", server, "--no-port-mapping"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CROWLINE")}
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=kept
    )


def both(server: str, here: list[str], there: list[str]) -> list[tuple[int, list[dict[str, Any]], str]]:
    """Exit code, objects and sentences of each side."""
    with ping(server, *here) as host:
        try:
            assert host.stdout is not None
            first = json.loads(host.stdout.readline())
            with ping(server, first["code"], *there) as joining:
                try:
                    results = []
                    for process in (host, joining):
                        out, err = process.communicate(timeout=PATIENCE)
                        assert "Traceback" not in err
                        results.append((process.returncode, [json.loads(x) for x in out.splitlines()], err))
                    return results
                finally:
                    joining.kill()
        finally:
            host.kill()


def test_a_direct_path_is_exit_0_and_every_answer_is_an_object(server: str) -> None:
    """As many answers as questions, with round trip and path."""
    for exit_code, found, err in both(
        server, ["--until", "direct", "--count", "0"], ["--count", "3", "-i", "0.2"]
    ):
        assert exit_code == 0, err
        pongs = [event for event in found if event["t"] == "pong"]
        assert pongs and all(event["rtt_ms"] > 0 for event in pongs)
        assert pongs[-1]["kind"] in ("direct", "lan")
        done = found[-1]
        assert done["t"] == "done" and done["received"] == len(pongs)
        assert 0 < done["min_ms"] <= done["average_ms"] <= done["max_ms"]


def test_a_relay_is_exit_20(server: str) -> None:
    """For whoever allows nothing else, and so for the other side."""
    for exit_code, found, err in both(server, ["--relay-only", "-c", "2", "-i", "0.1"], ["-c", "2"]):
        assert exit_code == 20, err
        assert found[-1]["direct_bytes"] == 0


def test_nobody_is_exit_3(server: str) -> None:
    """Within the time that was given."""
    with ping(server, "--timeout", "0.2") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert json.loads(out.splitlines()[-1])["exit"] == 3
    assert "Traceback" not in err
