"""Reads and hashes the files of an offer in threads, ahead of the event loop."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from msgspec import Struct

from crowline.net.found_file import Identity
from crowline.net.handoff import Handoff
from crowline.net.prefixes import Prefix, Prefixes
from crowline.net.source_tree import SourceTree
from crowline.transfer.chunks import DIGEST_BYTES, Comparison, Run, chunk_count, chunk_size
from crowline.transfer.messages import MAX_DATA_FRAME, MAX_RUN, MAX_SMALL
from crowline.transfer.sender import Wanted

READ_AHEAD = 1 << 20
"""Bytes read before they are asked for; as many again are on their way out meanwhile. A millisecond for each
chunk hides a slow disk's jitter."""

BATCH_BYTES = 128 << 10
"""Bytes of small files that are handed over together: waking the event loop costs more than reading one."""

HOLE_BYTES = 64 << 20
"""Bytes of a hole that are hashed, some 50 ms, before the other side hears of them and hashes them too."""

ITEM_COST = 512
"""Bytes that an item costs beside its data, so that small files count too."""

# Not following a link, and not waiting for the other end of a pipe that took the file's place.
_READ = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)
_READ |= getattr(os, "O_BINARY", 0)

_SEEK_DATA = getattr(os, "SEEK_DATA", None)
_ZEROS = bytes(MAX_DATA_FRAME)

_log = logging.getLogger(__name__)


class ReadChunk(Struct, frozen=True):
    """The next bytes of the current file, 1 to `MAX_DATA_FRAME`, in a buffer of their own."""

    data: bytes


class ReadHole(Struct, frozen=True):
    """The next bytes of the current file, 1 to `MAX_RUN`, are zero."""

    length: int


class ReadKeep(Struct, frozen=True):
    """The receiver has the next bytes of the current file, 1 to `MAX_RUN`."""

    length: int


class ReadSmall(Struct, frozen=True):
    """The current file, whole."""

    data: bytes
    sha256: bytes


class ReadDone(Struct, frozen=True):
    """The current file has been read, and did not change meanwhile."""

    sha256: bytes


class ReadFailed(Struct, frozen=True):
    """The current file is not what was offered. `sentence` says why, after the file's name."""

    sentence: str


ReadItem = ReadChunk | ReadHole | ReadKeep | ReadSmall | ReadDone | ReadFailed


class Digested(Struct, frozen=True):
    """The digests of the chunks of what is to be compared of a file."""

    index: int
    digests: bytes


class _Unfit(Exception):
    """The file is not what was offered; the text says why, after its name."""


class _Stopped(Exception):
    """Nobody wants the rest."""


class FileReader:
    """Gives, for each of `wanted`, its pieces and then `ReadDone` or `ReadFailed`, or `ReadSmall`.

    Of files to compare it gives the digests meanwhile, and goes on with such a file after `compared`.
    """

    def __init__(self, tree: SourceTree, wanted: Sequence[Wanted]) -> None:
        self._tree = tree
        self._wanted = wanted
        self._items: Handoff[ReadItem] = Handoff(READ_AHEAD)
        self._digested: Handoff[Digested] = Handoff(READ_AHEAD)
        self._batch: list[tuple[ReadItem, int]] = []
        self._batched = 0
        self._prefixes = Prefixes()
        compare = [one for one in wanted if one.compare is not None]
        executor = ThreadPoolExecutor(2, "crowline-read")
        loop = asyncio.get_running_loop()
        self._finished = [loop.run_in_executor(executor, self._run)]
        if compare:
            self._finished.append(loop.run_in_executor(executor, self._digest_all, compare))
        executor.shutdown(wait=False)

    async def next(self) -> ReadItem:
        """The next item. Must not be called after the last file's end."""
        item = await self._items.get()
        assert item is not None, "the reader has been closed"
        return item

    async def next_items(self) -> list[ReadItem]:
        """All items that wait, at least one. Must not be called after the last file's end."""
        items = await self._items.get_all()
        assert items, "the reader has been closed"
        return items

    async def next_digests(self) -> Digested | None:
        """The digests of the next file to compare; ``None`` once the reader is closed."""
        return await self._digested.get()

    def compared(self, index: int, comparison: Comparison) -> None:
        """The receiver has looked at a file's digests."""
        self._prefixes.answer(index, comparison)

    async def close(self) -> None:
        """Stop reading, and wait for the threads."""
        self._items.close()
        self._digested.close()
        self._prefixes.close()
        for finished in self._finished:
            await asyncio.shield(finished)

    def _run(self) -> None:
        try:
            for wanted in self._wanted:
                self._give(self._end_of(lambda wanted=wanted: self._read(wanted)))  # type: ignore[misc]
            self._hand_over()
        except _Stopped:
            pass

    def _digest_all(self, wanted: Sequence[Wanted]) -> None:
        try:
            for one in wanted:
                failed = self._end_of(lambda one=one: self._digest(one))  # type: ignore[misc]
                if isinstance(failed, ReadFailed):
                    self._prefixes.put(one.index, failed.sentence)
        except _Stopped:
            pass

    def _end_of(self, read: Callable[[], ReadItem]) -> ReadItem:
        """What `read` gives, or why it could not."""
        try:
            return read()
        except _Unfit as unfit:
            return ReadFailed(str(unfit))
        except OSError as error:
            return ReadFailed(_reason(error))
        except _Stopped:
            raise
        except Exception:
            _log.debug("a file could not be read", exc_info=True)
            return ReadFailed("could not be read")

    def _digest(self, wanted: Wanted) -> ReadItem:
        """Hash what is to be compared of a file, chunk by chunk."""
        assert wanted.compare is not None
        with self._open(wanted) as (descriptor, size):
            identity = Identity.of(os.fstat(descriptor))
            whole, digests = hashlib.sha256(), bytearray()
            chunk = chunk_size(size)
            for number in range(chunk_count(wanted.compare, size)):
                digest = hashlib.sha256()
                left = min(chunk, wanted.compare - number * chunk)
                while left:
                    block = self._read_some(descriptor, left)
                    digest.update(block)
                    if size > chunk:
                        whole.update(block)
                    left -= len(block)
                    if self._digested.closed:
                        raise _Stopped
                digests += digest.digest()
                if size <= chunk:
                    whole = digest
        found = Digested(wanted.index, bytes(digests))
        # Before the receiver can have answered.
        if not self._prefixes.put(wanted.index, Prefix(identity, found.digests, whole)):
            raise _Stopped
        if not self._digested.give(found, len(digests) + ITEM_COST):
            raise _Stopped
        return ReadDone(b"")

    def _read(self, wanted: Wanted) -> ReadItem:
        prefix = comparison = None
        if wanted.compare is not None:
            if not self._prefixes.is_ready(wanted.index):
                self._hand_over()
            taken = self._prefixes.take(wanted.index)
            if taken is None:
                raise _Stopped
            if isinstance(taken, str):
                raise _Unfit(taken)
            prefix, comparison = taken
        with self._open(wanted) as (descriptor, size):
            before = os.fstat(descriptor)
            if prefix is not None and Identity.of(before) != prefix.identity:
                raise _Unfit("changed while it was sent")
            if size <= MAX_SMALL and (comparison is None or comparison.missing):
                end: ReadItem = self._read_small(descriptor, size)
            else:
                end = self._read_runs(descriptor, size, prefix, comparison)
            after = os.fstat(descriptor)
            if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
                raise _Unfit("changed while it was sent")
        return end

    def _read_small(self, descriptor: int, size: int) -> ReadSmall:
        data = os.read(descriptor, size + 1)
        if len(data) != size:
            raise _Unfit(f"became {'shorter' if len(data) < size else 'longer'} while it was sent")
        return ReadSmall(data, hashlib.sha256(data).digest())

    def _read_runs(
        self, descriptor: int, size: int, prefix: Prefix | None, comparison: Comparison | None
    ) -> ReadDone:
        whole = hashlib.sha256() if prefix is None else prefix.whole
        runs = comparison.runs() if comparison is not None else iter((Run(0, size, False),))
        for run in runs:
            if run.kept:
                for start in range(run.start, run.end, MAX_RUN):
                    self._give(ReadKeep(min(MAX_RUN, run.end - start)))
                continue
            compared = run.end if comparison is None else min(run.end, comparison.length)
            if prefix is not None and run.start < compared:
                self._read_missing(descriptor, Run(run.start, compared, False), size, prefix)
                run = Run(compared, run.end, False)
            self._read_run(descriptor, run, whole)
        os.lseek(descriptor, size, os.SEEK_SET)
        if os.read(descriptor, 1):
            raise _Unfit("became longer while it was sent")
        return ReadDone(whole.digest())

    def _read_run(self, descriptor: int, run: Run, whole: hashlib._Hash) -> None:
        """Bytes that are read for the first time."""
        status = os.fstat(descriptor)
        sparse = _SEEK_DATA is not None and getattr(status, "st_blocks", 1 << 62) * 512 < status.st_size
        position = run.start
        os.lseek(descriptor, position, os.SEEK_SET)
        while position < run.end:
            if sparse and (hole := min(_hole_at(descriptor, position), run.end - position)):
                position += hole
                self._skip(hole, whole)
                os.lseek(descriptor, position, os.SEEK_SET)
                continue
            block = self._read_some(descriptor, run.end - position)
            position += len(block)
            whole.update(block)
            self._give_block(block)

    def _skip(self, hole: int, whole: hashlib._Hash) -> None:
        for start in range(0, hole, HOLE_BYTES):
            run = min(HOLE_BYTES, hole - start)
            for done in range(0, run, MAX_DATA_FRAME):
                whole.update(_ZEROS[: min(MAX_DATA_FRAME, run - done)])
                if self._items.closed:
                    raise _Stopped
            self._give(ReadHole(run))
            if run == HOLE_BYTES:
                self._hand_over()

    def _read_missing(self, descriptor: int, run: Run, size: int, prefix: Prefix) -> None:
        """Chunks that were compared, and that the receiver needs: they are in the file's hash already."""
        chunk = chunk_size(size)
        os.lseek(descriptor, run.start, os.SEEK_SET)
        for start in range(run.start, run.end, chunk):
            digest = hashlib.sha256()
            left = min(chunk, run.end - start)
            while left:
                block = self._read_some(descriptor, left)
                digest.update(block)
                left -= len(block)
                self._give_block(block)
            place = start // chunk * DIGEST_BYTES
            if digest.digest() != prefix.digests[place : place + DIGEST_BYTES]:
                raise _Unfit("changed while it was sent")

    def _read_some(self, descriptor: int, limit: int) -> bytes:
        block = os.read(descriptor, min(MAX_DATA_FRAME, limit))
        if not block:
            raise _Unfit("became shorter while it was sent")
        return block

    def _give_block(self, block: bytes) -> None:
        # Comparing ends at the first byte that differs, so it costs nothing where it does not help.
        if len(block) == MAX_DATA_FRAME and block == _ZEROS:
            self._give(ReadHole(len(block)))
        else:
            self._give(ReadChunk(block))

    def _give(self, item: ReadItem) -> None:
        cost = len(item.data) if isinstance(item, ReadChunk | ReadSmall) else 0
        self._batch.append((item, cost + ITEM_COST))
        self._batched += cost + ITEM_COST
        if isinstance(item, ReadChunk) or self._batched >= BATCH_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        if not self._items.give_all(batch):
            raise _Stopped

    @contextmanager
    def _open(self, wanted: Wanted) -> Iterator[tuple[int, int]]:
        """The descriptor of a file that is as it was offered, and its size."""
        size = self._tree.manifest.files[wanted.index].size
        descriptor = os.open(self._tree.paths[wanted.index], _READ)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _Unfit("is not a file any more")
            if status.st_size != size:
                raise _Unfit("has another size now than when it was offered")
            yield descriptor, size
        finally:
            os.close(descriptor)


def _hole_at(descriptor: int, position: int) -> int:
    """How many bytes from `position` on the file system knows to be zero."""
    assert _SEEK_DATA is not None
    try:
        return os.lseek(descriptor, position, _SEEK_DATA) - position
    except OSError as error:
        # Nothing but a hole follows.
        return MAX_RUN if error.errno == errno.ENXIO else 0


def _reason(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "cannot be read: permission denied"
    if error.errno == errno.ENOENT:
        return "is not there any more"
    if error.errno == errno.ELOOP:
        return "has become a symbolic link"
    return f"cannot be read: {os.strerror(error.errno or 0)}"
