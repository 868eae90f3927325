"""How the process of a command keeps its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults of writing two hundred pieces of 300 KiB one after the other, after the first few.
_FAULTS = """
import resource
from crowline.cli.memory import keep_spare
keep_spare()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    bytes([1]) * 300_000
began = faults()
for _ in range(200):
    bytes([1]) * 300_000
print(faults() - began)
"""

_THRESHOLD = """
import gc
from crowline.cli import main
try:
    main({})
except SystemExit:
    print(gc.get_threshold()[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_large_pieces_use_the_same_memory_again() -> None:
    """A freed piece's pages are not given back and cleared for the next one (73 faults each)."""
    found = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 200 * 73 / 10


def test_the_collector_looks_seldom_only_where_the_process_is_the_commands_own() -> None:
    """A program that calls the command line keeps its own ways."""
    own, foreign = (
        subprocess.run(
            [sys.executable, "-c", _THRESHOLD.format(arguments), "--version"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for arguments in ("", "['--version']")
    )
    assert int(own) > int(foreign)
