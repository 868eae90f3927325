"""What is needed to go on with a transfer in a later process, kept in the user's state folder.

Each unfinished transfer is a file, named by a hash and readable by this user alone: it holds the secret by
which the other side is met again. Who works on a transfer holds a lock on its file, which ends with the
process however that ends; so a second process that sends the same to somebody else gets a file of its own.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from crowline.net.state_file import state_folder

FOLDER = "transfers"
MAX_RECORDS = 64
"""Files that are kept; the ones that nobody touched for longest make room."""
MAX_BYTES = 4096
"""Of one file; a larger one is not ours."""
KEPT_SECONDS = 7 * 24 * 3600
"""How long an unfinished transfer can be gone on with: whoever was away for a week sends anew."""
MAX_AT_ONCE = 64
"""Processes that may send the same at once, each with a file of its own."""

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_LOCKED_BYTE = 1 << 20  # of the file on Windows, where a lock is on a part of it


class TransferRecord(msgspec.Struct, frozen=True):
    """An unfinished transfer: the code as people know it, the server where both look for each other, the
    secret that they share, and whether this side is the one that hosts."""

    code: Annotated[str, msgspec.Meta(max_length=100)]
    url: Annotated[str, msgspec.Meta(max_length=1000)]
    secret: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    hosts: bool


class RecordSlot:
    """The file of one transfer, while this process works on it.

    Without a descriptor, as where the folder cannot be written to, nothing is remembered.
    """

    def __init__(self, path: Path | None = None, descriptor: int = -1) -> None:
        self._path = path
        self._descriptor = descriptor
        self.record = _decode(os.read(descriptor, MAX_BYTES + 1)) if descriptor >= 0 else None

    def keep(self, record: TransferRecord) -> None:
        """Write that down in place of what was there. What cannot be written is not remembered."""
        if record == self.record:
            # As at each meeting but the first: whatever is full or breaks by now costs nothing.
            return
        self.record = record
        if self._descriptor < 0:
            return
        data = msgspec.json.encode(record)
        with suppress(OSError):
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, data)
            os.ftruncate(self._descriptor, len(data))
            os.fsync(self._descriptor)

    def forget(self) -> None:
        """There is nothing to go on with any more."""
        self.record = None

    def close(self) -> None:
        """Leave the file to a later process, if there is something in it."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if self.record is None and self._path is not None:
            with suppress(OSError):
                # Another process has the name where this one took longer than files are kept.
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    self._path.unlink()
        os.close(descriptor)


def claim(name: bytes, folder: Path | None = None, *, clock: Callable[[], float] = time.time) -> RecordSlot:
    """The file of an unfinished transfer of that name that no other process works on, else a new one.

    `clock` counts seconds since 1970, as the dates of files do.
    """
    folder = folder or state_folder() / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _prune(folder, clock())
        return _claim(folder, hashlib.sha256(name).hexdigest()[:32])
    except OSError:
        return RecordSlot()


def _claim(folder: Path, key: str) -> RecordSlot:
    kept = {path.name for path in folder.glob(f"{key}-*")}
    names = [f"{key}-{number}" for number in range(MAX_AT_ONCE)]
    for name in sorted(names, key=lambda name: name not in kept):
        if (slot := _open(folder / name)) is None:
            continue
        if slot.record is not None or name not in kept:
            return slot
        # Left by a process that met nobody.
        slot.close()
    return RecordSlot()


def _open(path: Path) -> RecordSlot | None:
    """The file, if this process may have it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, 0o600)
    try:
        # Whoever had it before may have removed it just now.
        if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), path.stat()):
            os.utime(path)
            return RecordSlot(path, descriptor)
    except OSError:
        pass
    os.close(descriptor)
    return None


def _prune(folder: Path, now: float) -> None:
    """Remove what is too old, and of too much the oldest. What a process works on is touched by it when it
    begins, and lives on without a name where it takes longer than that."""
    dated = []
    for path in folder.iterdir():
        # Another process may remove it just now.
        with suppress(FileNotFoundError):
            dated.append((path.stat().st_mtime, path))
    dated.sort()
    too_many = len(dated) - MAX_RECORDS
    for number, (touched, path) in enumerate(dated):
        if number < too_many or now - touched > KEPT_SECONDS:
            with suppress(OSError):
                path.unlink()


def _decode(data: bytes) -> TransferRecord | None:
    if len(data) > MAX_BYTES:
        return None
    try:
        return msgspec.json.decode(data, type=TransferRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _lock(descriptor: int) -> bool:
    """Take the file for this process, if no other has it; the lock ends with the process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # Far behind the content, which another process may still want to read.
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
