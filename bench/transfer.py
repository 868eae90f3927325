"""How fast files go through `send` and `receive_into` when the stream costs nothing, beside hashing alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from crowline.api.transfer import Decision, OfferMade, Summary, prepare, receive_into, send
from crowline.base.machine import Buffer

LARGE_BYTES = 1 << 30
SMALL_FILES = 10_000
SMALL_BYTES = 4096
ROOM = 4 << 20
ROUNDS = 3


class MemoryStream:
    """One end of a stream between two tasks, with back-pressure."""

    def __init__(self) -> None:
        self.peer: MemoryStream = self
        self._waiting: deque[memoryview] = deque()
        self._size = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def read(self, limit: int) -> bytes | memoryview:
        while not self._waiting and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if not self._waiting:
            return b""
        first = self._waiting.popleft()
        if len(first) > limit:
            self._waiting.appendleft(first[limit:])
            first = first[:limit]
        self._size -= len(first)
        self._changed.set()
        return first

    async def write(self, data: Buffer) -> None:
        peer = self.peer
        peer._waiting.append(memoryview(data))
        peer._size += len(data)
        peer._changed.set()
        while peer._size > ROOM:
            peer._changed.clear()
            await peer._changed.wait()

    async def close(self) -> None:
        self.peer._ended = True
        self.peer._changed.set()

    def abort(self) -> None:
        raise AssertionError("nothing goes wrong here")


def stream_pair() -> tuple[MemoryStream, MemoryStream]:
    one, other = MemoryStream(), MemoryStream()
    one.peer, other.peer = other, one
    return one, other


async def yes(offer: OfferMade) -> Decision:
    return Decision(accept=True)


def transfer(source: Path, target: Path) -> float:
    """Seconds for `source` to arrive in `target`."""

    async def both() -> tuple[Summary, Summary]:
        sending, receiving = stream_pair()
        return await asyncio.gather(
            send(sending, prepare([source])), receive_into(receiving, target, decide=yes)
        )

    return timed(lambda: asyncio.run(both()))


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def read_and_hash(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)


def write(path: Path) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb", buffering=0) as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(block)


def best(rates: list[float]) -> float:
    """The first round may be slow because the machine finds memory and disk blocks for it."""
    return max(rates)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        large = root / "large.bin"
        small = root / "small"
        small.mkdir()
        for number in range(SMALL_FILES):
            (small / f"{number}.txt").write_bytes(os.urandom(SMALL_BYTES))

        written = best([LARGE_BYTES / timed(lambda: write(large)) / 1e6 for _ in range(ROUNDS)])
        alone = best([LARGE_BYTES / timed(lambda: read_and_hash(large)) / 1e6 for _ in range(ROUNDS)])
        both = []
        for number in range(ROUNDS):
            target = root / str(number)
            both.append(LARGE_BYTES / transfer(large, target) / 1e6)
            again = LARGE_BYTES / transfer(large, target) / 1e6
            shutil.rmtree(target)
        together = best(both)
        files = best([SMALL_FILES / transfer(small, root / f"target-{n}") for n in range(ROUNDS)])
        skipped = SMALL_FILES / transfer(small, root / "target-0")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"write 1 GiB, one thread           {written:8.0f} MB/s")
        print(f"read and hash it, one thread      {alone:8.0f} MB/s")
        print(f"send and receive, both verified   {together:8.0f} MB/s   {together / alone:.2f} of that")
        print(f"the same again: all is there      {again:8.0f} MB/s")
        print(f"files of {SMALL_BYTES} bytes               {files:8.0f} files/s")
        print(f"the same again: all are there     {skipped:8.0f} files/s")
        print(f"peak memory                       {memory:8.0f} MiB")


if __name__ == "__main__":
    main()
