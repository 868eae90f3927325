"""What a run of the kernel laboratory leaves in the machine, who owns it, and how to remove all of it.

Every run has a prefix of its own. Its namespaces begin with it, its processes live in those namespaces, its
devices vanish with them, and a record under `RECORDS` names the owner, so that a later run can tell the
remains of a killed one from those of one that is at work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from crowline.lab.kernel import find_program
from crowline.lab.namespace import NAMESPACES

RECORDS = Path("/run/crowline-lab")
_PREFIX = re.compile(r"crow-[0-9a-f]{8}-")
_PATIENCE = 2.0  # seconds that processes get between SIGTERM and SIGKILL, and again to be gone
_POLL = 0.01  # seconds between looks at whether they are gone


def new_prefix() -> str:
    """A prefix that no other run has, recorded as this process's own."""
    RECORDS.mkdir(mode=0o755, exist_ok=True)
    prefix = f"crow-{os.urandom(4).hex()}-"
    record = RECORDS / f"{prefix}.json"
    unfinished = RECORDS / f".{prefix}"
    unfinished.write_text(json.dumps({"pid": os.getpid(), "started": _start_time(os.getpid())}))
    unfinished.rename(record)
    return prefix


def abandoned() -> list[str]:
    """Prefixes of which something is left, but not the owner."""
    prefixes = {match[0] for name in _listed(RECORDS) + _listed(NAMESPACES) if (match := _PREFIX.match(name))}
    return sorted(prefix for prefix in prefixes if not _is_owned(prefix))


def remove(prefix: str) -> None:
    """End every process in the namespaces of that prefix, then remove these and the record."""
    names = [name for name in _listed(NAMESPACES) if name.startswith(prefix)]
    _end_processes(names)
    for name in names:
        subprocess.run([find_program("ip"), "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
    for name in _listed(RECORDS):
        if name.startswith(prefix):
            (RECORDS / name).unlink(missing_ok=True)


def sweep() -> None:
    """Remove what killed runs left behind."""
    for prefix in abandoned():
        remove(prefix)


def _listed(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []


def _is_owned(prefix: str) -> bool:
    try:
        record = json.loads((RECORDS / f"{prefix}.json").read_bytes())
    except (OSError, ValueError):
        return False
    started: int | None = record.get("started")
    return started is not None and _start_time(int(record.get("pid", 0))) == started


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which that process began: with its id, a name that is never used again."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(status.rpartition(b")")[2].split()[19])


def _end_processes(namespaces: list[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = _processes(namespaces)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _PATIENCE
        while pids and time.monotonic() < deadline:
            time.sleep(_POLL)
            pids = _processes(namespaces)
        if not pids:
            return


def _processes(namespaces: list[str]) -> list[int]:
    """Every process whose network namespace is one of these, but never the caller."""
    wanted = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            wanted.add((NAMESPACES / name).stat().st_ino)
    found = []
    for entry in _listed(Path("/proc")):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if Path(f"/proc/{entry}/ns/net").stat().st_ino in wanted and not _is_zombie(entry):
                found.append(int(entry))
    return found


def _is_zombie(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
