"""Reads and hashes the files of an offer in a thread, ahead of the event loop."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crowline.net.handoff import Handoff
from crowline.net.source_tree import SourceTree
from crowline.transfer.messages import MAX_DATA_FRAME
from crowline.transfer.sender import Wanted

READ_AHEAD = 4 << 20
"""Bytes read before they are asked for: four chunks, a millisecond each, hide a slow disk's jitter."""

ITEM_COST = 512
"""Bytes that an item costs beside its data, so that small files count too."""

# Not following a link, and not waiting for the other end of a pipe that took the file's place.
_READ = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)
_READ |= getattr(os, "O_BINARY", 0)


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """The next bytes of the current file, 1 to `MAX_DATA_FRAME`, in a buffer of their own."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ReadDone:
    """The current file has been read, and did not change meanwhile."""

    sha256: bytes


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """The current file is not what was offered. `sentence` says why, after the file's name."""

    sentence: str


ReadItem = ReadChunk | ReadDone | ReadFailed


class FileReader:
    """Gives, for each of `wanted` in turn, its chunks and then one `ReadDone` or `ReadFailed`."""

    def __init__(self, tree: SourceTree, wanted: Sequence[Wanted]) -> None:
        self._tree = tree
        self._wanted = wanted
        self._items: Handoff[ReadItem] = Handoff(READ_AHEAD)
        executor = ThreadPoolExecutor(1, "crowline-read")
        self._finished = asyncio.get_running_loop().run_in_executor(executor, self._run)
        executor.shutdown(wait=False)

    async def next(self) -> ReadItem:
        """The next item. Must not be called after the last file's end."""
        item = await self._items.get()
        assert item is not None, "the reader has been closed"
        return item

    async def close(self) -> None:
        """Stop reading, and wait for the thread."""
        self._items.close()
        await asyncio.shield(self._finished)

    def _run(self) -> None:
        for wanted in self._wanted:
            try:
                end = self._read(wanted)
            except OSError as error:
                end = ReadFailed(_reason(error))
            except Exception:
                _log.debug("a file could not be read", exc_info=True)
                end = ReadFailed("could not be read")
            if end is None or not self._items.give(end, ITEM_COST):
                return

    def _read(self, wanted: Wanted) -> ReadDone | ReadFailed | None:
        """Read one file; ``None`` if nobody wants it any more."""
        descriptor = os.open(self._tree.paths[wanted.index], _READ)
        try:
            return self._read_open(descriptor, wanted)
        finally:
            os.close(descriptor)

    def _read_open(self, descriptor: int, wanted: Wanted) -> ReadDone | ReadFailed | None:
        size = self._tree.manifest.files[wanted.index].size
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return ReadFailed("is not a file any more")
        if before.st_size != size:
            return ReadFailed("has another size now than when it was offered")
        digest = hashlib.sha256()
        position = 0
        while position < size:
            chunk = os.read(descriptor, min(MAX_DATA_FRAME, size - position))
            if not chunk:
                return ReadFailed("became shorter while it was sent")
            digest.update(chunk)
            fresh = chunk[max(0, wanted.offset - position) :]
            position += len(chunk)
            if fresh and not self._items.give(ReadChunk(fresh), len(fresh) + ITEM_COST):
                return None
        if os.read(descriptor, 1):
            return ReadFailed("became longer while it was sent")
        after = os.fstat(descriptor)
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            return ReadFailed("changed while it was sent")
        return ReadDone(digest.digest())


def _reason(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "cannot be read: permission denied"
    if error.errno == errno.ENOENT:
        return "is not there any more"
    if error.errno == errno.ELOOP:
        return "has become a symbolic link"
    return f"cannot be read: {os.strerror(error.errno or 0)}"
