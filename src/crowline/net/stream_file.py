"""A file of unknown length that is being received: under a name of ours until all of it is there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from crowline.base.machine import Buffer
from crowline.net.incoming_file import IncomingFile
from crowline.net.safe_folder import SafeFolder

T = TypeVar("T")

_MODE = 0o644


class StreamFile:
    """A `Conduit` without input. Nothing is replaced: `name` is what the file is called after `end`, which is
    another one than `wanted` where that was taken.
    """

    def __init__(self, folder: SafeFolder, file: IncomingFile, name: str) -> None:
        self._folder = folder
        self._file = file
        self.name = self.wanted = name
        self._closed = False
        self._lock = threading.Lock()

    @classmethod
    async def create(cls, folder: Path, name: str) -> StreamFile:
        """In `folder`, which is made if it is not there. Raises `LocalProblem`, `UnsafeName`."""
        return await asyncio.to_thread(cls._create, folder, name)

    @classmethod
    def _create(cls, folder: Path, name: str) -> StreamFile:
        opened = SafeFolder.open(folder)
        try:
            return cls(opened, opened.create_file(name, _MODE), name)
        except BaseException:
            opened.close()
            raise

    async def read(self) -> bytes:
        return b""

    async def write(self, data: Buffer) -> None:
        await asyncio.to_thread(self._alone, lambda: self._file.write(data))

    async def end(self) -> None:
        self.name = await asyncio.to_thread(self._alone, self._file.commit)

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is left of a file that was not ended."""
        if not self._closed:
            self._closed = True
            self._alone(self._file.discard)
            self._folder.close()

    def _alone(self, work: Callable[[], T]) -> T:
        # A thread may still be writing for a task that was cancelled.
        with self._lock:
            return work()
