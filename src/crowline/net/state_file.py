"""A small file of the user's state folder: read whole, and replaced whole."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from pathlib import Path

SECRET_BYTES = 32  # of the secret of this machine that names in such a file are hashed with
_KEY_DIGITS = 32  # hexadecimal: 128 bits


def hashed(name: bytes, secret: bytes) -> str:
    """What stands for `name` in a file: it means nothing on another machine."""
    return hmac.digest(secret, name, "sha256").hex()[:_KEY_DIGITS]


def state_folder() -> Path:
    """Where this program keeps what it has learnt; the folder may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_state_dir("crowline", appauthor=False))


def read_state(path: Path, most: int) -> bytes:
    """The file's bytes; empty where it cannot be read, or has more than `most`."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError:
        return b""
    return data if len(data) <= most else b""


def replace_state(
    path: Path, data: bytes, entropy: Callable[[int], bytes] = os.urandom, *, lasting: bool = False
) -> None:
    """Whole or not at all, also when two programs write at once; readable by this user alone.

    `lasting`: wait for the disk, so that a file without its bytes is not what a power failure leaves. Raises
    `OSError`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{entropy(8).hex()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if lasting:
                file.flush()
                os.fsync(descriptor)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
