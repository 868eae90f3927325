"""What a test may need from the machine: it skips without it, or fails where skips are forbidden."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

NO_SKIP = os.environ.get("CROWLINE_TEST_NO_SKIP") == "1"


def missing(reason: str) -> NoReturn:
    """Skip with `reason`, or fail where `CROWLINE_TEST_NO_SKIP=1` forbids skips."""
    if NO_SKIP:
        pytest.fail(f"skips are forbidden here, and {reason}")
    pytest.skip(reason)


def needs_program(*names: str) -> str:
    """The path of the first of `names` that is installed."""
    for name in names:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
        if path:
            return path
    return missing(f"{' or '.join(names)} is not installed")


def needs_root() -> None:
    """Root, `ip` and a kernel with TUN: what a network namespace test needs."""
    if os.geteuid() != 0:
        missing("network namespaces need root")
    needs_program("ip")
    if not Path("/dev/net/tun").exists():
        missing("this kernel has no TUN")
