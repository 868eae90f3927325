"""Work done inside a network namespace without moving the calling process there.

A namespace belongs to a thread, not to a process: a short-lived thread enters, does the work and ends. What
it opened there (sockets, tunnel devices) stays in that namespace for good.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NAMESPACES = Path("/run/netns")  # where iproute2 keeps the named ones
CLONE_NEWNET = 0x40000000  # sched.h: setns(2) refuses a descriptor of any other kind


def inside(namespace: str | int, work: Callable[[], T]) -> T:
    """Run `work` in the network namespace of that name or of the process with that id; give its result.

    Raises `OSError` where the namespace does not exist or may not be entered, and whatever `work` raises.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _enter(namespace)
            results.append(work())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name=f"inside {namespace}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _enter(namespace: str | int) -> None:
    path = f"/proc/{namespace}/ns/net" if isinstance(namespace, int) else NAMESPACES / namespace
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # os.setns came with Python 3.12.
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(descriptor, CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
    finally:
        os.close(descriptor)
