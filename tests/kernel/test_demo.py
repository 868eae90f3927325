"""`crowline demo` as a person runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crowline.lab import leftovers

DEMO = [sys.executable, "-m", "crowline", "demo"]
PATIENCE = 40.0  # seconds; it takes a few


@pytest.mark.parametrize("nat", ["kernel", "user"])
def test_the_demo_goes_right(tmp_path: Path, nat: str) -> None:
    """Direct through two NATs, by relay through two symmetric ones, every checksum the same, exit code 0."""
    run = subprocess.run(
        [*DEMO, "--nat", nat],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    first, second, third = re.split(r"^\d\. ", run.stdout, flags=re.MULTILINE)[1:]
    assert re.search(r"path +direct, udp, 44\.100\.1\.1:\d+ ⇄ 44\.100\.2\.1:\d+", first)
    assert re.search(r"set-up +after \d+ ms, direct after \d+ ms", first)
    assert re.search(r"rate .* MB/s", first)
    for part in (first, second, third):
        sent, received = re.findall(r"(?:sent|received) +([0-9a-f]{64})", part)
        assert sent == received
    assert re.search(r"path +relay, ", third)
    assert run.stdout.rstrip().endswith("All is right.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Files, namespaces and processes are gone when it has ended, and it ends with 130."""
    with subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith("1. "):
                break
        time.sleep(0.3)
        [prefix] = [
            record.stem
            for record in leftovers.RECORDS.glob("crow-*.json")
            if json.loads(record.read_text())["pid"] == demo.pid
        ]
        demo.send_signal(number)
        assert demo.wait(PATIENCE) == 130
    assert [entry for entry in Path("/run/netns").iterdir() if entry.name.startswith(prefix)] == []
    assert not (leftovers.RECORDS / f"{prefix}.json").exists()
    assert list(tmp_path.iterdir()) == []
