"""A file that is being received, under a private name, until it is verified."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Protocol

from msgspec import Struct

from crowline.base.errors import LocalProblem
from crowline.base.machine import Buffer
from crowline.net.directory import Directory, claimed_still
from crowline.net.file_problems import local_problem
from crowline.net.found_file import BLOCK, Identity, Proof
from crowline.net.room_ahead import RoomAhead
from crowline.transfer.chunks import MIN_CHUNK
from crowline.transfer.names import display_name, numbered

KEPT_PERMISSIONS = 0o755
"""The mode bits that arrive. Letting others write is the receiver's decision, not the sender's."""

MAX_NUMBER = 10_000
"""Names tried before giving up: a folder with as many copies of one name needs a person."""

WORTH_KEEPING = MIN_CHUNK
"""Bytes of an unfinished file below which there is nothing to resume, so that nothing is left of it."""

_ZEROS = bytes(BLOCK)


class Home(Protocol):
    """What a file tells the folder that it belongs to."""

    def stored(self, parts: tuple[str, ...], name: str) -> None: ...

    def lost(self, parts: tuple[str, ...]) -> None: ...


class Place(Struct, frozen=True):
    """Where a file is: `directory` is open, and the file's to close; `part` is its private name there."""

    directory: Directory
    part: str
    parts: tuple[str, ...]
    replaces: bool = False
    """It takes the name of an older one of ours."""


class IncomingFile:
    """Takes the bytes of a file from the first to the last. End it with `commit`, `suspend` or `discard`."""

    def __init__(self, home: Home, place: Place, descriptor: int, mode: int) -> None:
        self._home = home
        self._place = place
        self._descriptor = descriptor
        self._mode = mode & KEPT_PERMISSIONS
        self._digest = hashlib.sha256()
        self._position = 0
        # Where the bytes to keep are, if not in this file itself.
        self._source = -1
        self._proof: Proof | None = None
        self._old_size = 0
        self._room = RoomAhead(0)
        self._open = True

    def expect(self, size: int) -> None:
        """The file is going to have so many bytes."""
        self._room = RoomAhead(size)

    def build_on(self, proof: Proof, source: int = -1) -> None:
        """What is to be kept is in this file, or in the open file `source`, which is this one's to close."""
        self._source = source
        if source >= 0:
            return
        with self._problems("write"):
            status = os.fstat(self._descriptor)
            if proof.digest is not None and proof.identity == Identity.of(status):
                self._proof = proof
            self._old_size = proof.comparison.length
            if status.st_size > self._old_size:
                os.ftruncate(self._descriptor, self._old_size)

    @property
    def sha256(self) -> bytes:
        """Of all bytes so far."""
        return self._digest.digest()

    def write(self, data: Buffer) -> None:
        """The next bytes. Raises `LocalProblem`, `DiskFull` if it is that; then `suspend` the file."""
        self._trust_no_longer()
        self._put(data)
        self._digest.update(data)

    def hole(self, length: int, stop: Callable[[], bool]) -> None:
        """The next `length` bytes are zero; where nothing was before, they take no room. Ends early when
        `stop` says so."""
        self._trust_no_longer()
        for start in range(0, length, BLOCK):
            if stop():
                break
            size = min(BLOCK, length - start)
            self._digest.update(_ZEROS[:size])
            if self._position < self._old_size:
                self._put(_ZEROS[:size])
            else:
                with self._problems("write"):
                    self._room.release(self._descriptor, self._position)
                self._position += size
        self._seek(self._position)

    def keep(self, length: int, stop: Callable[[], bool]) -> None:
        """The next `length` bytes are those that were found. Ends early when `stop` says so."""
        if self._proof is not None and self._proof.digest is not None:
            # All that was compared is as it should be, and its hash is known.
            self._seek(self._position + length)
            if self._position == self._proof.comparison.length:
                self._digest, self._proof = self._proof.digest.copy(), None
            return
        with self._problems("read what there is of"):
            self._read_again(length, stop)

    def commit(self) -> str:
        """Give the file its permissions and its name, or the next free one, which is returned.

        Raises `LocalProblem`; then the file is suspended.
        """
        try:
            with self._problems("keep"):
                return self._commit()
        finally:
            self.suspend()

    def suspend(self) -> None:
        """Leave what there is for a later transfer, if it is worth it. Does nothing after `commit`."""
        if self._open and max(self._position, self._old_size) >= WORTH_KEEPING:
            with contextlib.suppress(OSError):
                # What a hole at the end stands for has come too.
                os.ftruncate(self._descriptor, max(self._position, self._old_size))
            self._home.lost(self._place.parts)
            self._end()
        self.discard()

    def discard(self) -> None:
        """Leave nothing of the file. Does nothing after `commit` or `suspend`."""
        if not self._open:
            return
        self._home.lost(self._place.parts)
        # Gone already, or the disk is: nothing under the file's own name can be left.
        with contextlib.suppress(OSError):
            self._place.directory.remove_file(self._place.part)
        self._end()

    def _commit(self) -> str:
        os.ftruncate(self._descriptor, self._position)
        if hasattr(os, "fchmod"):
            os.fchmod(self._descriptor, self._mode)
        written = os.fstat(self._descriptor)
        # Until it has its name, another transfer would take it for a part of its own.
        with claimed_still(self._descriptor):
            # Closed before it gets its name: some network file systems say only now that the disk is full.
            self._close_descriptor()
            placed = self._rename()
        found = self._place.directory.status(placed)
        if (found.st_dev, found.st_ino) != (written.st_dev, written.st_ino):
            raise LocalProblem(f"Could not keep {self._shown}: another program put something in its place.")
        self._end()
        self._home.stored(self._place.parts, placed)
        return placed

    def _rename(self) -> str:
        directory, part, name = self._place.directory, self._place.part, self._place.parts[-1]
        if self._place.replaces:
            directory.replace_file(part, name)
            return name
        return first_free(lambda new: directory.rename_file(part, new), name)

    def _trust_no_longer(self) -> None:
        """Other bytes come where what is there would do: hash what is kept before them."""
        if self._proof is None:
            return
        length, self._proof = self._position, None
        self._position = 0
        with self._problems("read what there is of"):
            self._read_again(length, lambda: False)

    def _read_again(self, length: int, stop: Callable[[], bool]) -> None:
        descriptor = self._descriptor if self._source < 0 else self._source
        os.lseek(descriptor, self._position, os.SEEK_SET)
        while length and not stop():
            block = os.read(descriptor, min(BLOCK, length))
            if not block:
                raise LocalProblem(f"{self._shown} became shorter while it was received.")
            length -= len(block)
            self._digest.update(block)
            if self._source >= 0:
                self._put(block)
            else:
                self._position += len(block)

    def _put(self, data: Buffer) -> None:
        view = memoryview(data)
        if self._position >= self._old_size:
            self._room.take(self._descriptor, self._position, self._position + len(view))
        with self._problems("write"):
            while view:
                written = os.write(self._descriptor, view)
                self._position += written
                view = view[written:]

    def _seek(self, position: int) -> None:
        self._position = position
        with self._problems("write"):
            os.lseek(self._descriptor, position, os.SEEK_SET)

    def _close_descriptor(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _end(self) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            self._close_descriptor()
        if self._source >= 0:
            os.close(self._source)
        self._place.directory.close()

    @contextlib.contextmanager
    def _problems(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise local_problem(error, f"{doing} {self._shown}") from error

    @property
    def _shown(self) -> str:
        return display_name("/".join(self._place.parts))


def first_free(rename: Callable[[str], None], name: str, *, folder: bool = False) -> str:
    """Call `rename` with `name`, ``name (1)`` … until one is free; that one is returned."""
    for number in range(MAX_NUMBER):
        candidate = numbered(name, number, folder=folder) if number else name
        try:
            rename(candidate)
        except FileExistsError:
            continue
        return candidate
    raise LocalProblem(f"There are too many files called {display_name(name)} already.")
