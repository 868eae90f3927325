"""What the demo sends, and a checksum of it that owes nothing to the code under demonstration."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_BLOCK = 1 << 20  # bytes written and hashed at a time

FOLDER = {
    "readme.txt": b"A few lines of text.\n" * 40,
    "empty": b"",
    "pictures/harbour.raw": None,  # random bytes
    "pictures/night/stars.raw": None,
    "tools/greet.sh": b"#!/bin/sh\necho hello\n",
}
RANDOM_SIZE = 6_000_001  # bytes of each random member: above what the hub carries, a multiple of no block
EXECUTABLE = "tools/greet.sh"
EMPTY_FOLDER = "nothing here"


def make_file(path: Path, size: int) -> None:
    """A file of that many bytes in which no block is like another, quickly made also when it is large."""
    block = os.urandom(_BLOCK)
    with path.open("wb") as file:
        for number in range(-(-size // _BLOCK)):
            rest = min(_BLOCK, size - number * _BLOCK)
            file.write((number.to_bytes(8, "big") + block[8:])[:rest])


def make_folder(path: Path) -> None:
    """Several files, one empty, one executable, in sub-folders, and an empty folder."""
    for name, content in FOLDER.items():
        member = path / name
        member.parent.mkdir(parents=True, exist_ok=True)
        member.write_bytes(os.urandom(RANDOM_SIZE) if content is None else content)
    (path / EXECUTABLE).chmod(0o755)
    (path / EMPTY_FOLDER).mkdir()


def fingerprint(path: Path) -> dict[str, str]:
    """Each member's path, relative to `path`'s folder, to its SHA-256, and whether it may be executed."""
    members = [path, *sorted(path.rglob("*"))]
    return {str(member.relative_to(path.parent)): _of_member(member) for member in members}


def digest(members: dict[str, str]) -> str:
    """One line for the whole: a single file's own SHA-256, or the SHA-256 of a folder's list."""
    if len(members) == 1:
        return next(iter(members.values())).partition(" ")[0]
    return hashlib.sha256(repr(sorted(members.items())).encode()).hexdigest()


def size_of(path: Path) -> int:
    """Bytes in all files at or below `path`."""
    return sum(member.stat().st_size for member in [path, *path.rglob("*")] if member.is_file())


def _of_member(path: Path) -> str:
    if path.is_dir():
        return "folder"
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{checksum} executable" if os.access(path, os.X_OK) else checksum
