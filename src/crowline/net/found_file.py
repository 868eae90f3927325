"""What is on the disk already of a file that is offered."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from enum import Enum, auto

from msgspec import Struct

from crowline.transfer.chunks import DIGEST_BYTES, Comparison, chunk_count, chunk_size

BLOCK = 1 << 20
"""Bytes read at once."""


class Kind(Enum):
    """Where it is."""

    PART = auto()
    """Under its private name: a transfer was broken off in the middle of it."""

    STAGED = auto()
    """Under its own name in a folder of which not everything had come."""

    THERE = auto()
    """Under its own name, as the user's file: it is read, and never changed."""


class Found(Struct, frozen=True):
    """Something of a file, of `size` bytes."""

    kind: Kind
    size: int


class Identity(Struct, frozen=True):
    """What of a file changes whenever its content does."""

    device: int
    number: int
    size: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Proof(Struct, frozen=True):
    """What came of comparing: which chunks are as they should be, and the running SHA-256 of all that was
    compared if every one of them is."""

    comparison: Comparison
    identity: Identity | None
    digest: hashlib._Hash | None


def is_ours(status: os.stat_result) -> bool:
    """Whether a file under a private name may be written to: not a device, not somebody else's, and not
    another name of a file that has one."""
    owner = getattr(os, "geteuid", lambda: status.st_uid)()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == owner


def compare(descriptor: int, size: int, length: int, digests: bytes, stop: Callable[[], bool]) -> Proof:
    """Hash the first `length` bytes of an open file, chunk by chunk, and compare with `digests`, those of a
    file of `size` bytes. Ends early, with chunks missing, when `stop` says so. May raise `OSError`."""
    identity = Identity.of(os.fstat(descriptor))
    whole = hashlib.sha256()
    chunk = chunk_size(size)
    missing = 0
    for number in range(chunk_count(length, size)):
        left = min(chunk, length - number * chunk)
        digest = hashlib.sha256()
        while left and not stop() and (block := os.read(descriptor, min(BLOCK, left))):
            left -= len(block)
            digest.update(block)
            if not missing and size > chunk:
                whole.update(block)
        if left or digest.digest() != digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]:
            missing |= 1 << number
            os.lseek(descriptor, min(length, (number + 1) * chunk), os.SEEK_SET)
        elif size <= chunk:
            whole = digest
    return Proof(Comparison(size, length, missing), identity, None if missing else whole)


def everything(size: int) -> Proof:
    """Of a file that is just copied, and hashed meanwhile."""
    return Proof(Comparison(size, size, 0), None, None)


def nothing(size: int, length: int) -> Proof:
    """The proof of a file of which nothing could be read."""
    return Proof(Comparison(size, length, (1 << chunk_count(length, size)) - 1), None, None)
