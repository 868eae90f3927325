"""What the operating system says about files, as sentences for people."""

from __future__ import annotations

import errno
import os

from crowline.base.errors import LocalProblem
from crowline.transfer.names import display_name


class DiskFull(LocalProblem):
    """The disk is full."""


_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def local_problem(error: OSError, doing: str) -> LocalProblem:
    """The problem that `error` is. `doing` completes "could not", as in ``write notes.txt``."""
    if error.errno in _FULL:
        return DiskFull(
            f"The disk is full: could not {doing}.",
            hint="Free some space, or choose another folder with --out.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return LocalProblem(
            f"Could not {doing}: permission denied.", hint="Look at its owner and permissions."
        )
    if error.errno == errno.ENOENT:
        return LocalProblem(f"Could not {doing}: there is no such file or folder.")
    if error.errno == errno.EFBIG:
        return LocalProblem(f"Could not {doing}: this file system does not hold files as large as that.")
    if error.errno == errno.EROFS:
        return LocalProblem(f"Could not {doing}: the disk is read-only.")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return LocalProblem(f"Could not {doing}: {display_name(reason)}.")


def human_size(size: int) -> str:
    """`size` bytes for people, in powers of 1000: ``4.1 GB``."""
    if size < 1000:
        return f"{size} bytes"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} PB"
