"""Drives a `Sender`: reads files ahead in a thread, writes frames, and listens for verdicts meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from crowline.api.transfer.conversation import ByteStream, Conversation, ended_early, stopped, together
from crowline.api.transfer.events import FileFinished, FileStarted, ProgressMeter, Warning
from crowline.api.transfer.terms import Clock, OnEvent, Prepared, Summary
from crowline.base.errors import IntegrityFailed, LocalProblem
from crowline.net.file_reader import (
    ReadChunk,
    ReadDone,
    ReadFailed,
    ReadHole,
    ReadItem,
    ReadKeep,
    ReadSmall,
)
from crowline.net.files import FileReader
from crowline.transfer.messages import Reason
from crowline.transfer.names import display_name
from crowline.transfer.sender import (
    Accepted,
    Compared,
    Completed,
    Judged,
    Rejected,
    Sender,
    SenderEvent,
    Wanted,
    wanted_bytes,
)

ANSWER_BYTES = 64 << 10
"""Bytes read at once: verdicts are small and few."""


class Sending:
    """One transfer, from the offer to the last verdict."""

    def __init__(self, stream: ByteStream, prepared: Prepared, on_event: OnEvent, clock: Clock) -> None:
        self._stream = stream
        self._tree = prepared.tree
        self._on_event = on_event
        self._clock = clock
        self._machine = Sender(prepared.manifest)
        self._conversation = Conversation(stream, self._machine)
        loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[tuple[Wanted, ...]] = loop.create_future()
        self._completed: asyncio.Future[None] = loop.create_future()
        self._reader: FileReader | None = None
        self._meter = ProgressMeter(0, on_event, clock)
        self._hashes: dict[int, bytes] = {}
        # Of the file that is being sent: bytes that the receiver had.
        self._kept_of_file = 0
        self._kept_of: dict[int, int] = {}
        self._unreadable: list[str] = []
        self._damaged: list[str] = []
        self._files = 0
        self._bytes = 0
        self._skipped = 0
        self._kept = 0

    async def run(self) -> Summary:
        try:
            seconds = await together(self._send(), self._listen())
            await self._stream.close()
        except BaseException as problem:
            await self._conversation.farewell(problem)
            raise
        self._raise_failures()
        return Summary(self._files, self._bytes, seconds, skipped=self._skipped, kept=self._kept)

    async def _send(self) -> float:
        """Seconds from the acceptance to the last verdict."""
        for text in self._tree.warnings:
            self._on_event(Warning(text))
        await self._conversation.flush()
        wanted = await self._accepted
        started = self._clock()
        self._warn_of_skipped(wanted)
        self._meter = ProgressMeter(wanted_bytes(self._tree.manifest, wanted), self._on_event, self._clock)
        reader = self._reader = FileReader(self._tree, wanted)
        try:
            await together(self._send_files(reader, wanted), self._send_digests(reader, wanted))
        finally:
            await reader.close()
        await self._conversation.flush()
        self._meter.finish()
        await self._completed
        return self._clock() - started

    async def _send_digests(self, reader: FileReader, wanted: Sequence[Wanted]) -> None:
        """Let the receiver know what the files are like of which it has something."""
        if not any(one.compare is not None for one in wanted):
            return
        while (found := await reader.next_digests()) is not None:
            self._machine.digests(found.index, found.digests)
            await self._conversation.flush()

    async def _send_files(self, reader: FileReader, wanted: Sequence[Wanted]) -> None:
        items: deque[ReadItem] = deque()
        for one in wanted:
            file = self._tree.manifest.files[one.index]
            self._on_event(FileStarted(file.path, file.size))
            self._kept_of_file = 0
            while True:
                if not items:
                    # Small pieces are joined as long as there are any.
                    await self._conversation.flush()
                    items.extend(await reader.next_items())
                if await self._send_item(one.index, items.popleft()):
                    break
            if self._kept_of_file or one.compare == 0:
                self._kept_of[one.index] = self._kept_of_file

    async def _send_item(self, index: int, item: ReadItem) -> bool:
        """Whether that was the end of the file."""
        path = self._tree.manifest.files[index].path
        match item:
            case ReadChunk(data):
                self._machine.send(data)
                await self._conversation.flush()
                self._meter.add(len(data), path)
                return False
            case ReadHole(length):
                self._machine.hole(length)
                self._meter.add(length, path)
                return False
            case ReadKeep(length):
                self._machine.keep(length)
                self._kept_of_file += length
                self._meter.add(length, path, kept=True)
                return False
            case ReadSmall(data, sha256):
                self._hashes[index] = sha256
                self._machine.small(data, sha256)
                self._meter.add(len(data), path)
            case ReadDone(sha256):
                self._hashes[index] = sha256
                self._machine.file_done(sha256)
            case ReadFailed(sentence):
                self._machine.file_failed(f"The file {sentence}.")
                self._unreadable.append(f"{display_name(path)} {sentence}")
                self._on_event(Warning(f"{self._unreadable[-1]}: it was not sent."))
        return True

    async def _listen(self) -> None:
        while not self._completed.done():
            await self._conversation.hear(ANSWER_BYTES)
            while (event := self._machine.next_event()) is not None:
                self._handle(event)

    def _handle(self, event: SenderEvent) -> None:
        match event:
            case Accepted(files):
                self._accepted.set_result(files)
            case Compared(index, comparison):
                assert self._reader is not None, "only digests that were read are compared"
                self._reader.compared(index, comparison)
            case Judged():
                self._judge(event)
            case Completed():
                self._completed.set_result(None)
            case Rejected(reason, sentence):
                raise stopped(reason, sentence)
            case _:
                raise ended_early(event)

    def _judge(self, judged: Judged) -> None:
        file = self._tree.manifest.files[judged.index]
        sha256 = self._hashes.pop(judged.index, None)
        if sha256 is None:
            return  # It was given up here, and said so.
        kept = self._kept_of.pop(judged.index, None)
        if judged.ok:
            self._files += 1
            self._bytes += file.size
            self._kept += kept or 0
            self._skipped += kept == file.size
            self._on_event(FileFinished(file.path, file.size, sha256, skipped=kept == file.size))
            return
        shown = display_name(file.path)
        self._damaged.append(shown)
        why = "it arrived damaged" if judged.reason is Reason.INTEGRITY else display_name(judged.sentence)
        self._on_event(Warning(f"The other side did not keep {shown}: {why}."))

    def _warn_of_skipped(self, wanted: tuple[Wanted, ...]) -> None:
        taken = {one.index for one in wanted}
        for index, file in enumerate(self._tree.manifest.files):
            if index not in taken:
                self._on_event(Warning(f"The other side does not take {display_name(file.path)}."))

    def _raise_failures(self) -> None:
        if self._damaged:
            raise IntegrityFailed(
                f"{_first_of(self._damaged)} did not arrive as sent.", hint="Send it again."
            )
        if self._unreadable:
            raise LocalProblem(
                f"Not sent: {_first_of(self._unreadable)}.", hint="Send it again when it is at rest."
            )


def _first_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
