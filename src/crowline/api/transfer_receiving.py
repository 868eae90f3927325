"""Drives a `Receiver`: asks the user, hands bytes to the writing thread, and gives its verdicts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from crowline.api.transfer_conversation import ByteStream, Conversation, ended_early, together
from crowline.api.transfer_events import FileFinished, FileStarted, OfferMade, ProgressMeter, Warning
from crowline.api.transfer_terms import Clock, Decide, Decision, OnEvent, Summary
from crowline.base.errors import CrowlineError, IntegrityFailed
from crowline.base.machine import Buffer
from crowline.net.file_writer import Failed, Mismatched, Settled, Stored
from crowline.net.files import FileWriter, SafeFolder
from crowline.net.patience import within
from crowline.transfer.manifest import Manifest
from crowline.transfer.messages import MAX_DATA_FRAME, Reason
from crowline.transfer.names import display_name
from crowline.transfer.receiver import (
    AllArrived,
    DataArrived,
    FileBegan,
    FileEnded,
    FileLost,
    Offered,
    Receiver,
    ReceiverEvent,
)

GOODBYE_SECONDS = 5.0
"""How long a receiver that has everything waits for the sender to have heard so."""


class Receiving:
    """One transfer, from the offer to the last verdict."""

    def __init__(
        self, stream: ByteStream, folder: Path, decide: Decide, on_event: OnEvent, clock: Clock
    ) -> None:
        self._stream = stream
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
        self._failures: list[str] = []
        self._files = 0
        self._bytes = 0

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
        return Summary(self._files, self._bytes, self._clock() - started, saved)

    async def _accept(self, decision: Decision) -> None:
        """Make room for what is taken, and ask for it."""
        skip = set(decision.skip)
        unasked = set() if decision.take_unasked else set(self._manifest.unasked())
        for name in sorted(unasked):
            self._on_event(
                Warning(f"{display_name(name)} is not taken: programs obey a file of that name unasked.")
            )
        skip |= {i for i, file in enumerate(self._manifest.files) if _top(file.path) in unasked}
        folders = [folder for folder in self._manifest.folders if _top(folder.path) not in unasked]
        files = [file for i, file in enumerate(self._manifest.files) if i not in skip]
        wanted = Manifest(tuple(folders), tuple(files))
        await self._start_writer(decision.folder or self._target, wanted)
        self._meter = ProgressMeter(wanted.total, self._on_event, self._clock)
        self._machine.accept(skip)
        await self._flush()

    async def _start_writer(self, target: Path, wanted: Manifest) -> None:
        opening = asyncio.ensure_future(asyncio.to_thread(_open_with_room, target, wanted))
        try:
            folder = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on, and what it opens is nobody's.
            opening.add_done_callback(_close_opened)
            raise
        self._writer = FileWriter(folder, wanted.folders, self._manifest.files)

    async def _judge_all(self) -> tuple[str, ...]:
        """Give the writer's verdicts to the sender until all is in its place; the names there."""
        while True:
            match await self._orders.next_outcome():
                case Stored(index, name, sha256):
                    self._store(index, name, sha256)
                case Mismatched(index):
                    self._fail(index, Reason.INTEGRITY, "does not match its checksum")
                case Failed(problem):
                    raise problem
                case Settled(names):
                    self._warn_of_new_names(names)
                    return tuple(names.values())
            await self._flush()

    async def _listen(self) -> None:
        try:
            await self._read_all()
        except (CrowlineError, OSError):
            if not self._done:
                raise
        self._peer_ended.set()

    async def _read_all(self) -> None:
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
                file = self._manifest.files[index]
                self._current = file.path
                self._on_event(FileStarted(file.path, file.size))
                await self._orders.begin(index)
            case DataArrived(data):
                await self._orders.write(_lasting(data))
                self._meter.add(len(data), self._current)
            case FileEnded(_, sha256):
                await self._orders.end(sha256)
            case FileLost(index, sentence):
                await self._orders.drop()
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

    def _store(self, index: int, name: str, sha256: bytes) -> None:
        file = self._manifest.files[index]
        self._files += 1
        self._bytes += file.size
        self._machine.verdict(index, True)
        self._on_event(FileFinished(file.path, file.size, sha256))
        if name != file.path.rpartition("/")[2]:
            self._on_event(
                Warning(f"{display_name(file.path)} was there already: saved as {display_name(name)}.")
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


def _open_with_room(target: Path, wanted: Manifest) -> SafeFolder:
    folder = SafeFolder.open(target)
    try:
        folder.require_space(wanted.total, len(wanted.folders) + len(wanted.files))
    except BaseException:
        folder.close()
        raise
    return folder


def _close_opened(opening: asyncio.Future[SafeFolder]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _top(path: str) -> str:
    return path.partition("/")[0]


def _lasting(data: memoryview) -> Buffer:
    """`data`, or a copy if whoever owns it may change it."""
    return data if type(data.obj) is bytes else bytes(data)
