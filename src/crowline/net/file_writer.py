"""Writes, hashes, compares and verifies the files of an offer in a thread, behind the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from crowline.base.errors import LocalProblem
from crowline.base.machine import Buffer
from crowline.net.found_file import Found, Identity, Kind, Proof, compare, nothing
from crowline.net.handoff import Handoff
from crowline.net.incoming_file import IncomingFile
from crowline.net.safe_folder import SafeFolder
from crowline.transfer.chunks import comparable
from crowline.transfer.manifest import File
from crowline.transfer.names import split_path

WRITE_BEHIND = 1 << 20
"""Bytes that wait for the disk, beside as many that are being written: a few milliseconds of a fast path, so
that neither side idles."""

ITEM_COST = 512
"""Bytes that an item costs beside its data, so that small pieces count too."""

_UNBOUNDED = 1 << 62


class _Compare(Struct, frozen=True):
    index: int
    digests: bytes


class _Small(Struct, frozen=True):
    index: int
    sha256: bytes
    data: bytes


class _Begin(Struct, frozen=True):
    index: int


class _Hole(Struct, frozen=True):
    length: int


class _Keep(Struct, frozen=True):
    length: int


class _End(Struct, frozen=True):
    sha256: bytes


class _Drop(Struct, frozen=True):
    index: int


class _Settle(Struct, frozen=True):
    pass


_Order = _Compare | _Small | _Begin | _Hole | _Keep | _End | _Drop | _Settle | Buffer


class Compared(Struct, frozen=True):
    """Which chunks are needed of a file of which something was there: those whose bits are set."""

    index: int
    missing: int


class Stored(Struct, frozen=True):
    """A file was verified and is in its place, called `name`; `skipped`: it was there already."""

    index: int
    name: str
    sha256: bytes
    skipped: bool = False


class Mismatched(Struct, frozen=True):
    """What came of a file has another hash than what was sent. Nothing is left of it."""

    index: int


class Settled(Struct, frozen=True):
    """All is done. `names` gives for each top-level file and folder of the offer what it is called now."""

    names: Mapping[str, str]
    warnings: Sequence[str] = ()


class Failed(Struct, frozen=True):
    """This machine cannot go on. What is half-written is left under private names, to be resumed."""

    problem: LocalProblem


Outcome = Compared | Stored | Mismatched | Settled | Failed


class FileWriter:
    """Carries out orders one after the other. Data given to `write` must not change afterwards."""

    def __init__(
        self, folder: SafeFolder, files: Sequence[File], found: Mapping[int, Found] | None = None
    ) -> None:
        """`files` are what the indices are of, `found` what there is of them already. The writer closes
        `folder`, which has been prepared."""
        self._folder = folder
        self._files = files
        self._found = dict(found or {})
        self._proofs: dict[int, Proof] = {}
        self._orders: Handoff[_Order] = Handoff(WRITE_BEHIND)
        self._outcomes: Handoff[Outcome] = Handoff(_UNBOUNDED)
        self._file: IncomingFile | None = None
        self._index = 0
        # Bytes that were kept of a file before it was opened.
        self._passed = 0
        self._stopping = False
        # One waking of the event loop for all that was done at once.
        self._reports: list[tuple[Outcome, int]] = []
        executor = ThreadPoolExecutor(1, "crowline-write")
        self._finished = asyncio.get_running_loop().run_in_executor(executor, self._run)
        executor.shutdown(wait=False)

    async def compare(self, index: int, digests: bytes) -> None:
        """Look which chunks of a file are as these digests say: a `Compared` follows."""
        await self._orders.put(_Compare(index, digests), len(digests) + ITEM_COST)

    async def small(self, index: int, sha256: bytes, data: bytes) -> None:
        """A whole small file: a `Stored` or `Mismatched` follows."""
        await self._orders.put(_Small(index, sha256, data), len(data) + ITEM_COST)

    async def begin(self, index: int) -> None:
        """The next file, into the folder that was offered for it."""
        await self._orders.put(_Begin(index), ITEM_COST)

    async def write(self, data: Buffer) -> None:
        """The next bytes of the file; waits while too many others do."""
        await self._orders.put(data, len(data) + ITEM_COST)

    async def hole(self, length: int) -> None:
        """The next bytes of the file are zero."""
        await self._orders.put(_Hole(length), ITEM_COST)

    async def keep(self, length: int) -> None:
        """The next bytes of the file are those that were found in their place."""
        await self._orders.put(_Keep(length), ITEM_COST)

    async def end(self, sha256: bytes) -> None:
        """Keep the file if this is its hash: a `Stored` or `Mismatched` follows."""
        await self._orders.put(_End(sha256), ITEM_COST)

    async def drop(self, index: int) -> None:
        """A file will not come whole, or not at all."""
        await self._orders.put(_Drop(index), ITEM_COST)

    async def settle(self) -> None:
        """All files have come: a `Settled` follows."""
        await self._orders.put(_Settle(), ITEM_COST)

    async def next_outcome(self) -> Outcome:
        """What became of an order; after `Failed` nothing more."""
        outcome = await self._outcomes.get()
        assert outcome is not None, "the writer has been closed"
        return outcome

    async def next_outcomes(self) -> list[Outcome]:
        """All outcomes that wait, at least one."""
        outcomes = await self._outcomes.get_all()
        assert outcomes, "the writer has been closed"
        return outcomes

    async def close(self) -> None:
        """Write what has come, leave what is half-written under private names, and wait for the thread. The
        folder is closed too."""
        self._stopping = True
        self._orders.finish()
        await asyncio.shield(self._finished)

    def _run(self) -> None:
        try:
            while orders := self._orders.take_all():
                for order in orders:
                    if self._stopping and isinstance(order, _Compare | _Hole | _Keep | _Settle):
                        # What takes long, or nobody waits for, need not be done.
                        return
                    self._carry_out(order)
                self._tell()
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
        self._report(Failed(problem))
        self._tell()

    def _report(self, outcome: Outcome) -> None:
        self._reports.append((outcome, 1))

    def _tell(self) -> None:
        reports, self._reports = self._reports, []
        self._outcomes.give_all(reports)

    def _carry_out(self, order: _Order) -> None:
        match order:
            case _Compare(index, digests):
                self._compare(index, digests)
            case _Small(index, sha256, data):
                self._write_small(index, sha256, data)
            case _Begin(index):
                self._begin(index)
            case _Hole(length):
                self._current.hole(length, self._is_stopping)
            case _Keep(length):
                if self._file is None:
                    self._passed += length
                else:
                    self._file.keep(length, self._is_stopping)
            case _End(sha256):
                self._end(sha256)
            case _Drop(index):
                self._suspend()
                self._folder.lost(split_path(self._files[index].path))
            case _Settle():
                names = self._folder.settle(self._is_stopping)
                self._report(Settled(names, self._folder.warnings))
            case data:
                self._current.write(data)

    @property
    def _current(self) -> IncomingFile:
        """The file that is being written. One that is here whole is opened only if bytes of it come."""
        if self._file is None:
            file = self._files[self._index]
            self._file = self._folder.create_file(
                file.path, file.mode, self._found.get(self._index), self._proofs.get(self._index)
            )
            self._file.expect(file.size)
            self._file.keep(self._passed, self._is_stopping)
        return self._file

    def _is_stopping(self) -> bool:
        return self._stopping

    def _compare(self, index: int, digests: bytes) -> None:
        file, found = self._files[index], self._found[index]
        length = comparable(found.size, file.size) or 0
        try:
            descriptor = self._folder.open_found(file.path, found)
        except OSError:
            proof = nothing(file.size, length)
        else:
            try:
                proof = compare(descriptor, file.size, length, digests, self._is_stopping)
            except OSError:
                proof = nothing(file.size, length)
            finally:
                os.close(descriptor)
        self._proofs[index] = proof
        self._report(Compared(index, proof.comparison.missing))
        # The sender waits for it.
        self._tell()

    def _write_small(self, index: int, sha256: bytes, data: bytes) -> None:
        file = self._files[index]
        self._index, self._passed = index, 0
        if hashlib.sha256(data).digest() == sha256 and self._folder.write_small(file.path, file.mode, data):
            self._report(Stored(index, file.path.rpartition("/")[2], sha256))
            return
        self._proofs.pop(index, None)
        self._current.write(data)
        self._end(sha256)

    def _begin(self, index: int) -> None:
        self._index, self._passed = index, 0
        proof = self._proofs.get(index)
        if proof is None or not proof.comparison.is_whole or self._found[index].kind is Kind.PART:
            assert self._current is not None

    def _end(self, sha256: bytes) -> None:
        proof = self._proofs.pop(self._index, None)
        if self._file is None:
            self._keep_found(proof, sha256)
            return
        if self._file.sha256 != sha256:
            self._file.discard()
            self._file = None
            self._mismatch()
            return
        name = self._file.commit()
        self._file = None
        skipped = proof is not None and proof.comparison.is_whole
        self._report(Stored(self._index, name, sha256, skipped))

    def _keep_found(self, proof: Proof | None, sha256: bytes) -> None:
        """A file that is here whole, under its own name."""
        path, found = self._files[self._index].path, self._found[self._index]
        if proof is None or proof.digest is None or proof.digest.digest() != sha256:
            self._mismatch()
            return
        try:
            descriptor = self._folder.open_found(path, found)
        except OSError:
            self._mismatch()
            return
        identity = Identity.of(os.fstat(descriptor))
        os.close(descriptor)
        if identity != proof.identity or identity.size != proof.comparison.size:
            # What is longer is another file, of which this one is the beginning.
            self._copy_found(proof, sha256)
            return
        self._folder.is_there(path, found, sha256)
        self._report(Stored(self._index, path.rpartition("/")[2], sha256, skipped=True))

    def _mismatch(self) -> None:
        self._folder.lost(split_path(self._files[self._index].path))
        self._report(Mismatched(self._index))

    def _copy_found(self, proof: Proof, sha256: bytes) -> None:
        self._proofs[self._index] = proof
        assert self._current is not None
        self._end(sha256)

    def _suspend(self) -> None:
        if self._file is not None:
            self._file.suspend()
            self._file = None

    def _abandon(self) -> None:
        self._suspend()
        self._folder.give_up()
