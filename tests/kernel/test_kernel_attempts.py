"""Whole attempts with real programs: Crowline between places of every sort, and scripts of other people."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from crowline.lab.kernel_attempt import kernel_attempt, peer_attempt
from crowline.lab.leftovers import RECORDS
from crowline.lab.presets import PRESETS
from needs import needs_program

ATTEMPTS = {
    ("home", "home"): ("direct", "srflx"),
    ("public", "public"): ("direct", "host"),
    ("full-cone", "symmetric"): ("direct", "srflx"),
    ("cgn", "ipv6-home"): ("direct", "srflx"),
    ("nat64", "nat64"): ("direct", "ipv6"),
    ("symmetric", "symmetric"): ("relay", "relay"),
    ("proxy-only", "https-only"): ("hub", "hub"),
}

# What each side was told goes into its answer, so that the test can see it.
SCRIPT = """#!/bin/sh
set -eu
if [ "$1" = server ]; then echo ready; exec sleep 60; fi
touch "$CROWLINE_LAB_FOLDER/$1"
until [ -e "$CROWLINE_LAB_FOLDER/a" ] && [ -e "$CROWLINE_LAB_FOLDER/b" ]; do sleep 0.02; done
if [ "$1" = a ]; then sleep 0.1; fi
ip -4 -oneline addr show dev eth0 | grep -q "$(echo "$CROWLINE_LAB_ADDRESSES" | cut -d' ' -f1)/"
echo '{"kind": "relay", "setup_ms": 12, "reason": "'"$CROWLINE_LAB_STUN $CROWLINE_LAB_URL"'"}'
"""


@pytest.mark.parametrize(("pair", "expected"), ATTEMPTS.items(), ids=lambda value: " ".join(value))
def test_crowline_finds_the_best_path(pair: tuple[str, str], expected: tuple[str, str]) -> None:
    """Two real processes and a real server, between two places: the path is the best that there is."""
    outcome = kernel_attempt(*(PRESETS[name] for name in pair))
    assert (outcome.kind, outcome.technique) == expected, outcome
    assert outcome.setup_ms is not None and outcome.setup_ms > 10
    assert (outcome.direct_ms is not None) == (expected[0] == "direct")
    assert outcome.reason


def test_a_script_runs_on_three_hosts(tmp_path: Path) -> None:
    """It is told the server's services, works with its own addresses, and its answer is the outcome."""
    needs_program("sh")
    script = tmp_path / "script.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    outcome = peer_attempt(PRESETS["home"], PRESETS["symmetric"], script)
    assert (outcome.kind, outcome.setup_ms) == ("relay", 12.0), outcome
    assert outcome.reason == "44.1.0.1:3478 ws://44.1.0.1:443"


def own_records() -> list[Path]:
    """Records of laboratories of this process; others may be at work beside it."""
    found = []
    for record in RECORDS.glob("*.json"):
        with suppress(OSError, ValueError):
            if json.loads(record.read_bytes())["pid"] == os.getpid():
                found.append(record)
    return found


def test_a_script_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Its complaint is the reason, and neither records nor folders stay."""
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('it does not work')")
    outcome = peer_attempt(PRESETS["home"], PRESETS["home"], script)
    assert outcome.kind == "failed" and "it does not work" in outcome.reason
    assert not own_records()
