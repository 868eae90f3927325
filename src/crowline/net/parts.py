"""Unfinished files on the disk: found, claimed, made."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from crowline.net.directory import Directory, claim
from crowline.net.found_file import Found, Kind, is_ours
from crowline.transfer.names import private_name


def part_of(directory: Directory, path: str) -> Found | None:
    """What an earlier transfer left of the file that was offered as `path`, unless another one is at it."""
    descriptor = claimed_part(directory, private_name(path))
    if descriptor is None:
        return None
    size = os.fstat(descriptor).st_size
    os.close(descriptor)
    return Found(Kind.PART, size)


def own_file(directory: Directory, name: str, kind: Kind) -> Found | None:
    """A regular file under its own name. May raise `OSError`."""
    status = directory.status(name)
    return Found(kind, status.st_size) if stat.S_ISREG(status.st_mode) else None


def claimed_part(directory: Directory, part: str) -> int | None:
    """The unfinished file `part`, open and locked; ``None`` if there is none, or it is not ours or in use."""
    try:
        descriptor = directory.open_file(part, writable=True)
    except OSError:
        return None
    if is_ours(os.fstat(descriptor)) and _claim(directory, part, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def new_part(directory: Directory, part: str, entropy: Callable[[int], bytes]) -> tuple[int, str]:
    """A new file called `part`, or another private name if that is taken: its descriptor and its name.
    May raise `OSError`."""
    for name in (part, random_name(entropy)):
        try:
            descriptor = directory.create_file(name)
        except FileExistsError:
            continue
        if _claim(directory, name, descriptor):
            return descriptor, name
        # Another transfer has found it at once.
        os.close(descriptor)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def random_name(entropy: Callable[[int], bytes]) -> str:
    """A private name that no path leads to."""
    return f".crowline-{entropy(8).hex()}.part"


def _claim(directory: Directory, part: str, descriptor: int) -> bool:
    """Lock an open file that is called `part`. Whoever had it locked may have finished it just now: then it
    is somebody's file."""
    try:
        return claim(descriptor) and os.path.samestat(os.fstat(descriptor), directory.status(part))
    except OSError:
        return False
