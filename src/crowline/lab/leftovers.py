"""What a run of the kernel laboratory leaves in the machine, who owns it, and how to remove all of it.

Every run has a prefix of its own. Its namespaces begin with it, its processes live in those namespaces, its
devices vanish with them, and a record under `RECORDS` names the owner and the folders of temporary files, so
that a later run can tell the remains of a killed one from those of one that is at work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowline.lab.kernel import find_program
from crowline.lab.namespace import NAMESPACES

RECORDS = Path("/run/crowline-lab")
_PREFIX = re.compile(r"crow-[0-9a-f]{8}-")
_PATIENCE = 2.0  # seconds that processes get between SIGTERM and SIGKILL, and again to be gone
_POLL = 0.01  # seconds between looks at whether they are gone


@dataclass(frozen=True, slots=True)
class Remains:
    """What was removed of one run."""

    prefix: str
    processes: int
    namespaces: int
    folders: int


def new_prefix() -> str:
    """A prefix that no other run has, recorded as this process's own."""
    RECORDS.mkdir(mode=0o755, exist_ok=True)
    prefix = f"crow-{os.urandom(4).hex()}-"
    _write_record(prefix, {"pid": os.getpid(), "started": _start_time(os.getpid()), "folders": []})
    return prefix


def new_folder(prefix: str) -> Path:
    """A folder for temporary files, which goes with the run of that prefix."""
    record = _read_record(prefix)
    folder = Path(tempfile.gettempdir(), f"{prefix}{len(record['folders'])}")
    _write_record(prefix, {**record, "folders": [*record["folders"], str(folder)]})
    folder.mkdir(mode=0o700)
    return folder


def abandoned() -> list[str]:
    """Prefixes of which something is left, but not the owner."""
    prefixes = {match[0] for name in _listed(RECORDS) + _listed(NAMESPACES) if (match := _PREFIX.match(name))}
    return sorted(prefix for prefix in prefixes if not _is_owned(prefix))


def remove(prefix: str) -> Remains:
    """End every process in the namespaces of that prefix, then remove these, the folders and the record."""
    names = [name for name in _listed(NAMESPACES) if name.startswith(prefix)]
    ended = _end_processes(names)
    for name in names:
        subprocess.run([find_program("ip"), "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
    folders = _remove_folders(prefix)
    for name in _listed(RECORDS):
        if name.startswith(prefix):
            (RECORDS / name).unlink(missing_ok=True)
    return Remains(prefix, ended, len(names), folders)


def sweep() -> list[Remains]:
    """Remove what killed runs left behind."""
    return [remove(prefix) for prefix in abandoned()]


def _listed(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []


def _record(prefix: str) -> Path:
    return RECORDS / f"{prefix}.json"


def _read_record(prefix: str) -> dict[str, Any]:
    """Raises `OSError` and `ValueError`."""
    record: dict[str, Any] = json.loads(_record(prefix).read_bytes())
    return record


def _write_record(prefix: str, record: dict[str, Any]) -> None:
    unfinished = RECORDS / f".{prefix}"
    unfinished.write_text(json.dumps(record))
    unfinished.rename(_record(prefix))


def _remove_folders(prefix: str) -> int:
    """Those that the record names and that have a name of ours."""
    with contextlib.suppress(OSError, ValueError):
        folders = [Path(name) for name in _read_record(prefix).get("folders", ())]
        ours = [folder for folder in folders if folder.name.startswith(prefix) and folder.is_dir()]
        for folder in ours:
            shutil.rmtree(folder, ignore_errors=True)
        return len(ours)
    return 0


def _is_owned(prefix: str) -> bool:
    try:
        record = _read_record(prefix)
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


def _end_processes(namespaces: list[str]) -> int:
    """How many there were."""
    seen: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = _processes(namespaces)
        seen.update(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _PATIENCE
        while pids and time.monotonic() < deadline:
            time.sleep(_POLL)
            pids = _processes(namespaces)
        if not pids:
            break
    return len(seen)


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
