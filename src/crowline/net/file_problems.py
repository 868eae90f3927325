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
    elsewhere = "Choose another folder with --out."
    if error.errno in _FULL:
        return DiskFull(f"The disk is full: could not {doing}.", hint=f"Free some space. {elsewhere}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return LocalProblem(
            f"Could not {doing}: permission denied.", hint="Look at its owner and permissions."
        )
    if error.errno == errno.ENOENT:
        return LocalProblem(
            f"Could not {doing}: there is no such file or folder.", hint="Check the spelling."
        )
    if error.errno == errno.EFBIG:
        return LocalProblem(f"Could not {doing}: too large for this file system.", hint=elsewhere)
    if error.errno == errno.EROFS:
        return LocalProblem(f"Could not {doing}: the disk is read-only.", hint=elsewhere)
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
