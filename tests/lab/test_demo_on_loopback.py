"""`crowline demo` where no namespaces can be made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DEMO = [sys.executable, "-m", "crowline", "demo"]
PATIENCE = 40.0  # seconds; it takes a few


def test_the_demo_runs_on_loopback_too(tmp_path: Path) -> None:
    """Without namespaces the same programs meet on 127.0.0.1, and it says so."""
    run = subprocess.run(
        [*DEMO, "--loopback"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "on loopback" in run.stdout
    assert run.stdout.rstrip().endswith("All is right.")
