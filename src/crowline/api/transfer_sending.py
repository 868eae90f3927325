"""Drives a `Sender`: reads files ahead in a thread, writes frames, and listens for verdicts meanwhile."""

from __future__ import annotations

import asyncio

from crowline.api.transfer_conversation import ByteStream, Conversation, ended_early, stopped, together
from crowline.api.transfer_events import FileFinished, FileStarted, ProgressMeter, Warning
from crowline.api.transfer_terms import Clock, OnEvent, Prepared, Summary
from crowline.base.errors import IntegrityFailed, LocalProblem
from crowline.net.file_reader import ReadChunk, ReadDone, ReadFailed
from crowline.net.files import FileReader
from crowline.transfer.messages import Reason
from crowline.transfer.names import display_name
from crowline.transfer.sender import (
    Accepted,
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
        self._hashes: dict[int, bytes] = {}
        self._unreadable: list[str] = []
        self._damaged: list[str] = []
        self._files = 0
        self._bytes = 0

    async def run(self) -> Summary:
        try:
            seconds = await together(self._send(), self._listen())
            await self._stream.close()
        except BaseException as problem:
            await self._conversation.farewell(problem)
            raise
        self._raise_failures()
        return Summary(self._files, self._bytes, seconds)

    async def _send(self) -> float:
        """Seconds from the acceptance to the last verdict."""
        for text in self._tree.warnings:
            self._on_event(Warning(text))
        await self._conversation.flush()
        wanted = await self._accepted
        started = self._clock()
        self._warn_of_skipped(wanted)
        meter = ProgressMeter(wanted_bytes(self._tree.manifest, wanted), self._on_event, self._clock)
        reader = FileReader(self._tree, wanted)
        try:
            for one in wanted:
                await self._send_file(one.index, reader, meter)
        finally:
            await reader.close()
        await self._conversation.flush()
        meter.finish()
        await self._completed
        return self._clock() - started

    async def _send_file(self, index: int, reader: FileReader, meter: ProgressMeter) -> None:
        file = self._tree.manifest.files[index]
        self._on_event(FileStarted(file.path, file.size))
        while True:
            match await reader.next():
                case ReadChunk(data):
                    self._machine.send(data)
                    await self._conversation.flush()
                    meter.add(len(data), file.path)
                case ReadDone(sha256):
                    self._hashes[index] = sha256
                    self._machine.file_done(sha256)
                    return
                case ReadFailed(sentence):
                    self._machine.file_failed(f"The file {sentence}.")
                    self._unreadable.append(f"{display_name(file.path)} {sentence}")
                    self._on_event(Warning(f"{self._unreadable[-1]}: it was not sent."))
                    return

    async def _listen(self) -> None:
        while not self._completed.done():
            data = await self._stream.read(ANSWER_BYTES)
            if data:
                self._machine.receive(data)
            else:
                self._machine.receive_end()
            while (event := self._machine.next_event()) is not None:
                self._handle(event)

    def _handle(self, event: SenderEvent) -> None:
        match event:
            case Accepted(files):
                self._accepted.set_result(files)
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
        if judged.ok:
            self._files += 1
            self._bytes += file.size
            self._on_event(FileFinished(file.path, file.size, sha256))
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
