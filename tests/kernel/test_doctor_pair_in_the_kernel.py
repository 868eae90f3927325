"""`crowline doctor --pair` and `crowline doctor CODE` as real processes behind real and user-space NATs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from crowline.lab.bed import Bed, build_bed
from crowline.lab.presets import PRESETS

CROWLINE = [sys.executable, "-m", "crowline"]
PATIENCE = 120  # seconds for processes that need about ten


def start(bed: Bed, role: Any, *arguments: str) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = bed.spawn(
        role,
        [*CROWLINE, "doctor", "--json", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """The exit code and the report."""
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err, err
    events = [json.loads(line) for line in out.splitlines()]
    reports = [event for event in events if event["t"] == "doctor-pair"]
    assert len(reports) == 1, (out, err)
    return process.returncode, reports[0]


def examine(a: str, b: str) -> tuple[tuple[int, dict[str, Any]], tuple[int, dict[str, Any]]]:
    """What both sides say behind these presets."""
    with build_bed(PRESETS[a], PRESETS[b]) as bed:
        bed.serve()
        host = start(bed, "a", "--pair")
        assert host.stdout is not None
        code = json.loads(host.stdout.readline())
        assert code["t"] == "code"
        join = start(bed, "b", code["code"])
        return finish(join), finish(host)


def types_of(report: dict[str, Any], result: str) -> set[tuple[str, str]]:
    return {(each["local_type"], each["remote_type"]) for each in report["pairs"] if each["result"] == result}


def test_two_homes_are_told_that_they_connect_directly() -> None:
    """With round trip, loss and rates of the best path, and the relay beside it."""
    for code, report in examine("home", "home"):
        assert (code, report["verdict"], report["schema"]) == (0, "direct", "doctor/1")
        best, relay = report["best"], report["relay"]
        assert best["kind"] == "direct" and best["rtt_ms"] > 35 and best["loss"] < 0.5
        assert best["up"] > 0 and best["down"] > 0
        assert relay["kind"] == "relay" and relay["rtt_ms"] > 0
        assert types_of(report, "works") and report["peer_worked"] > 0
        assert all(each["reason"] for each in report["pairs"])


def test_two_random_nats_are_told_why_there_is_a_relay() -> None:
    """TCP would need foreknowledge of ports too: nothing but a relay leads across, and it is said why."""
    for code, report in examine("symmetric", "symmetric"):
        assert (code, report["verdict"]) == (20, "relay")
        assert report["obstacle"] == "both NATs draw a new random port for each destination"
        assert report["you"]["mapping"] == report["peer"]["mapping"] == "per_port"
        assert report["best"]["kind"] == "relay" and report["best"]["up"] > 0
        assert any("relay" in types for types in types_of(report, "works"))
