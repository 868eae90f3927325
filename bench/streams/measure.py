"""What every program of this folder measures and how two of them find each other: by files in a folder.

They are started as ``PROGRAM receive FOLDER`` and ``PROGRAM send FOLDER BYTES``. The receiver writes to
``FOLDER/where`` where it is; each prints one JSON object at its end. Seconds count from the first byte of
payload that arrives to the last, CPU time of the whole process from the same moment, or from the first byte
written.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

# What is written at once, by each program alike.
PIECE = 256 * 1024


class Meter:
    """Counts one side's payload."""

    def __init__(self) -> None:
        self.bytes = 0
        self._began = self._cpu = 0.0

    def add(self, count: int) -> None:
        if not self.bytes:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        self.bytes += count

    def tell(self, **more: Any) -> None:
        """Print what was measured."""
        result = {
            "bytes": self.bytes,
            "seconds": time.perf_counter() - self._began,
            "cpu": time.process_time() - self._cpu,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(json.dumps(result | more), flush=True)


def say_where(folder: Path, where: object) -> None:
    """The receiver is there."""
    leave(folder / "where", where)


def leave(path: Path, what: object) -> None:
    """Write a file that is there as a whole or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(what))
    unfinished.rename(path)


async def find(folder: Path) -> Any:
    """Where the receiver is, as soon as it says so."""
    return json.loads(await content(folder / "where"))


async def content(path: Path) -> str:
    """Of a file that another process writes, once it is there."""
    while not await asyncio.to_thread(path.exists):  # noqa: ASYNC110 - nothing in this process makes it
        await asyncio.sleep(0.02)
    return await asyncio.to_thread(path.read_text)


def pieces(size: int) -> list[memoryview]:
    """The payload: one buffer, so that making it costs nobody anything."""
    block = memoryview(bytes(range(256)) * (PIECE // 256))
    return [block[: min(PIECE, size - at)] for at in range(0, size, PIECE)]


def run(
    receive: Callable[[Path, list[str]], Coroutine[Any, Any, None]],
    send: Callable[[Path, int, list[str]], Coroutine[Any, Any, None]],
) -> None:
    """The program's two roles; what follows on the command line is its own."""
    role, folder, *rest = sys.argv[1:]
    if role == "receive":
        asyncio.run(receive(Path(folder), rest))
    else:
        asyncio.run(send(Path(folder), int(rest[0]), rest[1:]))
