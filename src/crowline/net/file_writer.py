"""Writes, hashes and verifies the files of an offer in a thread, behind the event loop."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crowline.base.errors import LocalProblem
from crowline.base.machine import Buffer
from crowline.net.handoff import Handoff
from crowline.net.safe_folder import IncomingFile, SafeFolder
from crowline.transfer.manifest import File, Folder

WRITE_BEHIND = 8 << 20
"""Bytes that wait for the disk: a few milliseconds of a fast path, so that neither side idles."""

ITEM_COST = 512
"""Bytes that an item costs beside its data, so that small pieces count too."""

_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True)
class _Begin:
    index: int


@dataclass(frozen=True, slots=True)
class _End:
    sha256: bytes


@dataclass(frozen=True, slots=True)
class _Drop:
    pass


@dataclass(frozen=True, slots=True)
class _Settle:
    pass


_Order = _Begin | _End | _Drop | _Settle | Buffer


@dataclass(frozen=True, slots=True)
class Stored:
    """A file was verified and is in its place, called `name`."""

    index: int
    name: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Mismatched:
    """What came of a file has another hash than what was sent. Nothing is left of it."""

    index: int


@dataclass(frozen=True, slots=True)
class Settled:
    """All is done. `names` gives for each top-level file and folder of the offer what it is called now."""

    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """This machine cannot go on. Nothing half-written is left."""

    problem: LocalProblem


Outcome = Stored | Mismatched | Settled | Failed


class FileWriter:
    """Carries out orders one after the other. Data given to `write` must not change afterwards."""

    def __init__(self, folder: SafeFolder, folders: Sequence[Folder], files: Sequence[File]) -> None:
        """Make `folders` at once. `files` are what the indices are of. The writer closes `folder`."""
        self._folder = folder
        self._folders = folders
        self._files = files
        self._orders: Handoff[_Order] = Handoff(WRITE_BEHIND)
        self._outcomes: Handoff[Outcome] = Handoff(_UNBOUNDED)
        self._file: IncomingFile | None = None
        self._index = 0
        self._digest = hashlib.sha256()
        executor = ThreadPoolExecutor(1, "crowline-write")
        self._finished = asyncio.get_running_loop().run_in_executor(executor, self._run)
        executor.shutdown(wait=False)

    async def begin(self, index: int) -> None:
        """The next file, into the folder that was offered for it."""
        await self._orders.put(_Begin(index), ITEM_COST)

    async def write(self, data: Buffer) -> None:
        """The next bytes of the file; waits while too many others do."""
        await self._orders.put(data, len(data) + ITEM_COST)

    async def end(self, sha256: bytes) -> None:
        """Keep the file if this is its hash: a `Stored` or `Mismatched` follows."""
        await self._orders.put(_End(sha256), ITEM_COST)

    async def drop(self) -> None:
        """Forget the file."""
        await self._orders.put(_Drop(), ITEM_COST)

    async def settle(self) -> None:
        """All files have come: a `Settled` follows."""
        await self._orders.put(_Settle(), ITEM_COST)

    async def next_outcome(self) -> Outcome:
        """What became of an order; after `Failed` nothing more."""
        outcome = await self._outcomes.get()
        assert outcome is not None, "the writer has been closed"
        return outcome

    async def close(self) -> None:
        """Stop, remove what is half-written, and wait for the thread. The folder is closed too."""
        self._orders.close()
        await asyncio.shield(self._finished)

    def _run(self) -> None:
        try:
            self._folder.create_folders(self._folders)
            while (order := self._orders.take()) is not None:
                self._carry_out(order)
        except LocalProblem as problem:
            self._fail(problem)
        except Exception as fault:
            # Whoever waits for an outcome must hear of faults of ours too.
            unforeseen = LocalProblem("Something went wrong while writing.")
            unforeseen.__cause__ = fault
            self._fail(unforeseen)
        finally:
            self._abandon()
            self._folder.close()

    def _fail(self, problem: LocalProblem) -> None:
        self._abandon()
        self._orders.close()
        self._outcomes.give(Failed(problem))

    def _carry_out(self, order: _Order) -> None:
        match order:
            case _Begin(index):
                file = self._files[index]
                self._index = index
                self._file = self._folder.create_file(file.path, file.mode)
                self._digest = hashlib.sha256()
            case _End(sha256):
                self._end(sha256)
            case _Drop():
                self._discard()
            case _Settle():
                self._outcomes.give(Settled(self._folder.settle()))
            case data:
                assert self._file is not None
                self._file.write(data)
                self._digest.update(data)

    def _end(self, sha256: bytes) -> None:
        if self._digest.digest() != sha256:
            self._discard()
            self._outcomes.give(Mismatched(self._index))
            return
        assert self._file is not None
        name = self._file.commit()
        self._file = None
        self._outcomes.give(Stored(self._index, name, sha256))

    def _discard(self) -> None:
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _abandon(self) -> None:
        self._discard()
        self._folder.give_up()
