"""What `crowline --help` costs over a bare interpreter, in CPU milliseconds: medians of several runs."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

RUNS = 15


def cpu_ms(*argv: str) -> float:
    """User and system time of one child."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def main() -> None:
    bare, full = [], []
    for _ in range(RUNS):
        bare.append(cpu_ms(sys.executable, "-c", "pass"))
        full.append(cpu_ms(sys.executable, "-m", "crowline", "--help"))
    base, total = statistics.median(bare), statistics.median(full)
    print(f"python -c pass      {base:6.1f} ms CPU")
    print(f"crowline --help     {total:6.1f} ms CPU, {total - base:.1f} ms over it")


if __name__ == "__main__":
    main()
