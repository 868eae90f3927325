"""A byte stream between two tasks, with back-pressure, odd pieces and faults."""

from __future__ import annotations

import asyncio
from pathlib import Path

from crowline.base.errors import CrowlineError
from crowline.base.machine import Buffer

ROOM = 1 << 20


class MemoryStream:
    """One end. `piece` limits what one read gives; `cut_after` ends this direction after so many bytes."""

    def __init__(self, *, piece: int = 1 << 20, cut_after: int | None = None) -> None:
        self.peer: MemoryStream = self
        self.written = bytearray()
        self.keep = False
        self.aborted = False
        self._piece = piece
        self._cut_after = cut_after
        self._incoming = bytearray()
        self._sent = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def read(self, limit: int) -> bytes | memoryview:
        await self._until(lambda: bool(self._incoming) or self._ended)
        if not self._incoming:
            return b""
        count = min(limit, self._piece)
        data, self._incoming = bytes(self._incoming[:count]), self._incoming[count:]
        self._changed.set()
        return data

    async def write(self, data: Buffer) -> None:
        if self.keep:
            self.written += data
        if self._cut_after is not None:
            data = bytes(data)[: max(0, self._cut_after - self._sent)]
        self._sent += len(data)
        self.peer._incoming += data
        if self._cut_after is not None and self._sent >= self._cut_after:
            self.peer._ended = True
        self.peer._changed.set()
        await self.peer._until(lambda: len(self.peer._incoming) <= ROOM or self.peer._ended, who=self)

    async def close(self) -> None:
        self.peer._ended = True
        self.peer._changed.set()

    def abort(self) -> None:
        for end in (self, self.peer):
            end.aborted = True
            end._changed.set()

    async def _until(self, condition: object, who: MemoryStream | None = None) -> None:
        assert callable(condition)
        while not condition():
            if self.aborted:
                raise CrowlineError("The stream was given up.")
            self._changed.clear()
            await self._changed.wait()


class RecordedStream:
    """Says what it was given, then ends. After `pause` bytes it waits until it is spoken to."""

    def __init__(self, said: bytes, *, piece: int = 1 << 20, pause: int | None = None) -> None:
        self._parts = [memoryview(said[:pause]), memoryview(said[pause:] if pause is not None else b"")]
        self._piece = piece
        self._spoken_to = asyncio.Event()
        self._given = bytearray()
        self.heard = bytearray()

    async def read(self, limit: int) -> bytes | memoryview:
        count = min(limit, self._piece)
        if not self._parts[0] and self._parts[1]:
            await self._spoken_to.wait()
            self._parts.reverse()
        piece, self._parts[0] = self._parts[0][:count], self._parts[0][count:]
        # A stream may reuse what it gave for the next piece, so this one spoils it.
        self._given[:] = b"?" * len(self._given)
        self._given = bytearray(piece)
        return memoryview(self._given) if piece else b""

    async def write(self, data: Buffer) -> None:
        self.heard += data
        self._spoken_to.set()

    async def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def stream_pair(
    *, piece: int = 1 << 20, cut_first: int | None = None, cut_second: int | None = None
) -> tuple[MemoryStream, MemoryStream]:
    """Two ends; what each says may be cut after some bytes."""
    one, other = (
        MemoryStream(piece=piece, cut_after=cut_first),
        MemoryStream(piece=piece, cut_after=cut_second),
    )
    one.peer, other.peer = other, one
    return one, other


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`: contents of files, ``None`` for folders, links as text."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = b"-> " + str(path.readlink()).encode()
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found
