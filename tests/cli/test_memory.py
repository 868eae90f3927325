"""How the process of a command keeps its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Whether what a thread has made lies in the first heap.
_PLACE = """
from threading import Thread
from crowline.cli.memory import share_heap
share_heap()
made = []
thread = Thread(target=lambda: made.append(bytes(100_000)))
thread.start()
thread.join()
heap = next(line for line in open("/proc/self/maps") if "[heap]" in line)
begin, end = (int(place, 16) for place in heap.split()[0].split("-"))
print(begin <= id(made[0]) < end)
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
def test_threads_use_the_heap_of_the_event_loop() -> None:
    """What one of them reads from a file, another frees and uses again."""
    found = subprocess.run([sys.executable, "-c", _PLACE], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"


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
