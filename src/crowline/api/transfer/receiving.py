"""Drives a `Receiver`: asks the user, hands bytes to the writing thread, and gives its verdicts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from crowline.api.transfer.conversation import ByteStream, Conversation, ended_early, together
from crowline.api.transfer.events import FileFinished, FileStarted, OfferMade, ProgressMeter, Warning
from crowline.api.transfer.terms import Clock, Decide, Decision, OnEvent, Summary
from crowline.base.errors import CrowlineError, IntegrityFailed
from crowline.base.machine import Buffer
from crowline.net.file_writer import Compared, Failed, Mismatched, Outcome, Settled, Stored
from crowline.net.files import FileWriter, Found, SafeFolder
from crowline.net.patience import within
from crowline.transfer.chunks import comparable
from crowline.transfer.manifest import Manifest
from crowline.transfer.messages import MAX_DATA_FRAME, Reason
from crowline.transfer.names import display_name
from crowline.transfer.receiver import (
    AllArrived,
    DataArrived,
    DigestsArrived,
    FileBegan,
    FileEnded,
    FileLost,
    HoleArrived,
    KeepArrived,
    Offered,
    Receiver,
    ReceiverEvent,
    SmallArrived,
)

OPENING_SECONDS = 2.0
"""How long a receiver that is stopped waits for the folder to be open, to leave nothing in it."""

GOODBYE_SECONDS = 5.0
"""How long a receiver that has everything waits for the sender to have heard so."""


class Receiving:
    """One transfer, from the offer to the last verdict."""

    def __init__(
        self,
        stream: ByteStream,
        folder: Path,
        decide: Decide,
        on_event: OnEvent,
        clock: Clock,
        begun: bytes = b"",
    ) -> None:
        self._stream = stream
        self._begun = begun
        self._target = folder
        self._decide = decide
        self._on_event = on_event
        self._clock = clock
        self._machine = Receiver()
        self._conversation = Conversation(stream, self._machine)
        # Nothing more is needed of the stream: what becomes of it no longer matters to this side.
        self._done = False
        self._peer_ended = asyncio.Event()
        self._offered: asyncio.Future[Manifest] = asyncio.get_running_loop().create_future()
        self._manifest = Manifest((), ())
        self._writer: FileWriter | None = None
        self._meter = ProgressMeter(0, on_event, clock)
        self._current = ""
        self._index = 0
        self._failures: list[str] = []
        self._files = 0
        self._bytes = 0
        self._skipped = 0
        self._kept = 0
        self._kept_of: dict[int, int] = {}

    async def run(self) -> Summary:
        try:
            summary = await together(self._receive(), self._listen())
        except BaseException as problem:
            await self._clean_up()
            await self._conversation.farewell(problem)
            raise
        await self._clean_up()
        self._raise_failures()
        return summary

    async def _receive(self) -> Summary:
        self._manifest = await self._offered
        offer = OfferMade(self._manifest)
        self._on_event(offer)
        decision = await self._decide(offer)
        if not decision.accept:
            self._machine.reject(Reason.DECLINED, decision.reason)
            await self._end()
            return Summary(0, 0, 0.0, declined=True)
        started = self._clock()
        await self._accept(decision)
        saved = await self._judge_all()
        self._meter.finish()
        self._machine.finish()
        await self._end()
        return Summary(
            self._files,
            self._bytes,
            self._clock() - started,
            saved,
            skipped=self._skipped,
            kept=self._kept,
        )

    async def _accept(self, decision: Decision) -> None:
        """Make room for what is taken, and ask for it."""
        skip = set(decision.skip)
        unasked = set() if decision.take_unasked else set(self._manifest.unasked())
        for name in sorted(unasked):
            self._on_event(
                Warning(f"{display_name(name)} is not taken: programs obey a file of that name unasked.")
            )
        skip |= {i for i, file in enumerate(self._manifest.files) if _top(file.path) in unasked}
        manifest = self._manifest
        wanted = Manifest(
            tuple(folder for folder in manifest.folders if _top(folder.path) not in unasked),
            tuple(file for i, file in enumerate(manifest.files) if i not in skip),
            tuple(link for link in manifest.links if _top(link.path) not in unasked),
        )
        found = await self._start_writer(decision.folder or self._target, wanted, decision.merge)
        self._meter = ProgressMeter(wanted.total, self._on_event, self._clock)
        compare: dict[int, int] = {}
        for i, one in found.items():
            length = comparable(one.size, manifest.files[i].size)
            if length is not None:
                compare[i] = length
        self._machine.accept(skip, compare)
        await self._flush()

    async def _start_writer(self, target: Path, wanted: Manifest, merge: bool) -> dict[int, Found]:
        """What there is of the offered files already."""
        opening = asyncio.ensure_future(asyncio.to_thread(_open_with_room, target, wanted, merge))
        try:
            folder, found = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on, and what it opens is nobody's.
            opening.add_done_callback(_close_opened)
            await within(OPENING_SECONDS, asyncio.wait({opening}))
            raise
        by_index = {i: found[file.path] for i, file in enumerate(self._manifest.files) if file.path in found}
        self._writer = FileWriter(folder, self._manifest.files, by_index)
        return by_index

    async def _judge_all(self) -> tuple[str, ...]:
        """Give the writer's verdicts to the sender until all is in its place; the names there."""
        while True:
            for outcome in await self._orders.next_outcomes():
                names = self._judge(outcome)
                if names is not None:
                    return names
            await self._flush()

    def _judge(self, outcome: Outcome) -> tuple[str, ...] | None:
        match outcome:
            case Compared(index, missing):
                self._machine.want(index, missing)
            case Stored():
                self._store(outcome)
            case Mismatched(index):
                self._fail(index, Reason.INTEGRITY, "does not match its checksum")
            case Failed(problem):
                raise problem
            case Settled(names, warnings):
                for text in warnings:
                    self._on_event(Warning(text))
                self._warn_of_new_names(names)
                return tuple(names.values())
        return None

    async def _listen(self) -> None:
        try:
            await self._read_all()
        except (CrowlineError, OSError):
            if not self._done:
                raise
        self._peer_ended.set()

    async def _read_all(self) -> None:
        if self._begun:
            self._machine.receive(self._begun)
            await self._handle_events()
        while data := await self._stream.read(MAX_DATA_FRAME):
            self._machine.receive(data)
            await self._handle_events()
        self._machine.receive_end()
        await self._handle_events()

    async def _handle_events(self) -> None:
        while (event := self._machine.next_event()) is not None:
            await self._handle(event)

    async def _handle(self, event: ReceiverEvent) -> None:
        match event:
            case Offered(manifest):
                self._offered.set_result(manifest)
            case FileBegan(index):
                self._start(index)
                await self._orders.begin(index)
            case DataArrived(data):
                await self._orders.write(_lasting(data))
                self._meter.add(len(data), self._current)
            case HoleArrived(length):
                await self._orders.hole(length)
                self._meter.add(length, self._current)
            case KeepArrived(length):
                await self._orders.keep(length)
                self._kept_of[self._index] = self._kept_of.get(self._index, 0) + length
                self._meter.add(length, self._current, kept=True)
            case DigestsArrived(index, digests):
                await self._orders.compare(index, digests)
            case SmallArrived(index, sha256, data):
                self._start(index)
                await self._orders.small(index, sha256, data)
                self._meter.add(len(data), self._current)
            case FileEnded(_, sha256):
                await self._orders.end(sha256)
            case FileLost(index, sentence):
                await self._orders.drop(index)
                self._fail(index, Reason.LOCAL, f"could not be sent: {display_name(sentence)}")
                await self._flush()
            case AllArrived():
                self._done = True
                await self._orders.settle()
            case _:
                if not self._done:
                    raise ended_early(event)

    async def _flush(self) -> None:
        try:
            await self._conversation.flush()
        except (CrowlineError, OSError):
            if not self._done:
                raise

    def _start(self, index: int) -> None:
        file = self._manifest.files[index]
        self._index, self._current = index, file.path
        self._on_event(FileStarted(file.path, file.size))

    def _store(self, stored: Stored) -> None:
        file = self._manifest.files[stored.index]
        self._files += 1
        self._bytes += file.size
        self._kept += self._kept_of.pop(stored.index, 0)
        self._skipped += stored.skipped
        self._machine.verdict(stored.index, True)
        self._on_event(FileFinished(file.path, file.size, stored.sha256, stored.skipped))
        if stored.name != file.path.rpartition("/")[2]:
            self._on_event(
                Warning(f"{display_name(file.path)} was there already: saved as {display_name(stored.name)}.")
            )

    def _fail(self, index: int, reason: Reason, sentence: str) -> None:
        self._failures.append(f"{display_name(self._manifest.files[index].path)} {sentence}")
        self._machine.verdict(index, False, reason, sentence)
        self._on_event(Warning(f"{self._failures[-1]}. It was not kept."))

    def _warn_of_new_names(self, names: Mapping[str, str]) -> None:
        for item in self._manifest.items():
            saved = names.get(item.name, item.name)
            if item.is_folder and saved != item.name:
                self._on_event(Warning(f"{display_name(item.name)} is saved as {display_name(saved)}."))

    async def _end(self) -> None:
        """Say the last word, and give the sender time to hear it."""
        self._done = True
        with contextlib.suppress(CrowlineError, OSError):
            await within(GOODBYE_SECONDS, self._say_goodbye())

    async def _say_goodbye(self) -> None:
        await self._conversation.flush()
        await self._stream.close()
        await self._peer_ended.wait()

    async def _clean_up(self) -> None:
        if self._writer is not None:
            await self._writer.close()

    def _raise_failures(self) -> None:
        if self._failures:
            more = f" (and {len(self._failures) - 1} more)" if len(self._failures) > 1 else ""
            raise IntegrityFailed(f"{self._failures[0]}{more}.", hint="Ask for it again.")

    @property
    def _orders(self) -> FileWriter:
        assert self._writer is not None, "data comes only after the offer was accepted"
        return self._writer


def _open_with_room(target: Path, wanted: Manifest, merge: bool) -> tuple[SafeFolder, dict[str, Found]]:
    """The folder, ready for what is wanted, and what there is already of each file."""
    folder = SafeFolder.open(target)
    try:
        folder.prepare(wanted, merged=merge)
        found = {file.path: one for file in wanted.files if (one := folder.find(file.path)) is not None}
        there = sum(min(file.size, found[file.path].size) for file in wanted.files if file.path in found)
        folder.require_space(wanted.total - there, len(wanted.folders) + len(wanted.files))
    except BaseException:
        folder.give_up()
        folder.close()
        raise
    return folder, found


def _close_opened(opening: asyncio.Future[tuple[SafeFolder, dict[str, Found]]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        folder, _ = opening.result()
        folder.give_up()
        folder.close()


def _top(path: str) -> str:
    return path.partition("/")[0]


def _lasting(data: memoryview) -> Buffer:
    """`data`, or a copy if whoever owns it may change it."""
    return data if type(data.obj) is bytes else bytes(data)
