"""What starting costs in CPU milliseconds: `crowline --help` over a bare interpreter, and a small file sent.

Medians of several runs. A send is both sides, from nothing to the end of both: they meet at a server on
loopback, whose own time is not counted, and move 1,000 bytes.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from send import Run, by_crowline
from throughput import served

RUNS = 15
SENDS = 5
# Bytes: next to nothing.
SMALL = 1000


def cpu_ms(*argv: str) -> float:
    """User and system time of one child."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def sends() -> list[Run]:
    """Small files from one command to another; the first run compiles, and does not count."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "note.txt"
        file.write_bytes(bytes(SMALL))
        with served(Path(place)) as server:
            for _ in range(SENDS + 1):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(by_crowline(file, Path(folder), server))
    return found[1:]


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    bare, full = [], []
    for _ in range(RUNS):
        bare.append(cpu_ms(sys.executable, "-c", "pass"))
        full.append(cpu_ms(sys.executable, "-m", "crowline", "--help"))
    base, total = statistics.median(bare), statistics.median(full)
    print(f"python -c pass      {base:6.1f} ms CPU")
    print(f"crowline --help     {total:6.1f} ms CPU, {total - base:.1f} ms over it")
    runs = sends()
    cpu = statistics.median(run.cpu for run in runs) * 1000
    peaks = zip(*(run.memory for run in runs), strict=True)
    memory = " + ".join(f"{max(each) / 2**20:.0f}" for each in peaks)
    print(f"send and receive    {cpu:6.1f} ms CPU, {memory} MiB at the peak")


if __name__ == "__main__":
    main()
