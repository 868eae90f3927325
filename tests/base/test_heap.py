"""Pieces that come and go use the same memory again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Page faults of writing five pieces of 100 KB and freeing them, two hundred times, after the first few.
_FAULTS = """
import resource
from crowline.base.heap import keep_freed
keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work(times):
    for _ in range(times):
        pieces = [bytes([1]) * 100_000 for _ in range(5)]
work(5)
began = faults()
work(200)
print(faults() - began)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_what_was_freed_at_the_end_of_the_heap_is_not_cleared_again() -> None:
    """By default that is about fifty faults each time."""
    found = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 200 * 12
