"""The matrix with real programs behind real NATs: ours, and one that is not ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crowline.lab.leftovers import RECORDS
from crowline.lab.namespace import NAMESPACES
from crowline.lab.presets import PRESETS
from crowline.lab.virtual_attempt import virtual_attempt
from needs import needs_program

CROWLINE = [sys.executable, "-m", "crowline", "lab", "matrix", "--world", "kernel", "--json"]
AIOICE = Path(__file__).parents[2] / "examples" / "lab_peer_aioice.py"

# Twenty-one pairs: every path that an IPv4 host can have, with one and with two layers of translation.
CHOSEN = ("public", "home", "cgn", "symmetric", "udp-blocked", "https-only")


def matrix(folder: Path, *arguments: str, patience: float) -> tuple[dict[tuple[str, str], Any], str]:
    """Each pair of the matrix that the command made, and what it said to people."""
    result = subprocess.run(
        [*CROWLINE, "--state", str(folder / "state"), *arguments],
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["t"] == "matrix" and last["world"] == "kernel"
    return {(pair["a"], pair["b"]): pair for pair in last["pairs"]}, result.stderr


@pytest.mark.timeout(240)
def test_both_worlds_give_the_same_matrix(tmp_path: Path) -> None:
    """Real processes of the product end on the kind of path that virtual time says, for every pair."""
    page = tmp_path / "matrix.html"
    pairs, _ = matrix(
        tmp_path, "--presets", ",".join(CHOSEN), "--jobs", "2", "--html", str(page), patience=220
    )
    assert len(pairs) == 21
    virtual = {(a, b): virtual_attempt(PRESETS[a], PRESETS[b], 1).kind for a, b in pairs}
    assert {pair: fields["kind"] for pair, fields in pairs.items()} == virtual
    assert {"direct", "relay", "hub"} == set(virtual.values())
    for pair, fields in pairs.items():
        # Far above what it takes: this machine may be busy with something else.
        assert 0 < fields["setup_ms"] < 5000, pair
        assert (fields["direct_ms"] is not None) == (fields["kind"] == "direct"), pair
    assert page.read_text().count('<span class="tip') == 36


@pytest.mark.peer
@pytest.mark.timeout(120)
def test_a_program_that_is_not_ours_runs_through_the_matrix(tmp_path: Path) -> None:
    """aioice with coturn behind the same NATs: direct where ICE can, by its relay where it cannot."""
    needs_program("turnserver")
    peer = ("--peer", str(AIOICE), "--name", "aioice", "--jobs", "2")
    pairs, _ = matrix(tmp_path, "--presets", "public,home,symmetric", *peer, patience=110)
    kinds = {pair: fields["kind"] for pair, fields in pairs.items()}
    assert kinds == {
        ("public", "public"): "direct",
        ("public", "home"): "direct",
        ("public", "symmetric"): "direct",
        ("home", "home"): "direct",
        ("home", "symmetric"): "relay",
        ("symmetric", "symmetric"): "relay",
    }, pairs


def namespaces_of(group: int) -> list[str]:
    """Namespaces of the laboratories whose owners are in that process group."""
    prefixes = []
    for record in RECORDS.glob("crow-*.json"):
        try:
            if os.getpgid(json.loads(record.read_text())["pid"]) == group:
                prefixes.append(record.stem)
        except (OSError, ValueError):
            continue  # that one has just ended
    return [name for name in namespaces() if name.startswith(tuple(prefixes))]


def namespaces() -> list[str]:
    return [entry.name for entry in NAMESPACES.iterdir()] if NAMESPACES.exists() else []


@pytest.mark.timeout(90)
def test_ctrl_c_takes_every_namespace_down(tmp_path: Path) -> None:
    """Stopped with two attempts under way: exit code 130, one sentence, and nothing is left."""
    argv = [
        *CROWLINE,
        "--presets",
        "symmetric,udp-blocked",
        "--jobs",
        "2",
        "--state",
        str(tmp_path / "state"),
    ]
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline, built = time.monotonic() + 30, list[str]()
        while len({name.split("-")[1] for name in built}) < 2:
            assert process.poll() is None and time.monotonic() < deadline, "no two laboratories came up"
            time.sleep(0.05)
            built = namespaces_of(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=45)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130 and "Stopped after" in said and said.count("\n") == 1, said
    assert not set(built) & set(namespaces())
