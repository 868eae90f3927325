"""A stream of unknown length to the other side: what a program writes here comes out there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from crowline.api.service import Service
from crowline.api.transfer import ByteStream, Summary
from crowline.api.transfer.conversation import Conversation, ended_early, together
from crowline.api.transfer.events import ProgressMeter
from crowline.api.transfer.terms import Clock, OnEvent
from crowline.base.errors import (
    CrowlineError,
    IntegrityFailed,
    Interrupted,
    LocalProblem,
    Refused,
    UsageError,
)
from crowline.base.machine import Buffer
from crowline.net.standard_streams import StandardInput, StandardStreams
from crowline.net.stream_file import StreamFile
from crowline.transfer import flow
from crowline.transfer.endings import PeerStopped
from crowline.transfer.flow import (
    FlowAccepted,
    FlowDamaged,
    FlowData,
    FlowEnded,
    FlowEvent,
    FlowKept,
    FlowOffered,
    FlowReceiver,
    FlowSender,
)
from crowline.transfer.messages import Reason
from crowline.transfer.names import UnsafeName, acts_unasked, check_component, display_name

__all__ = [
    "FLOW",
    "Sink",
    "Source",
    "StandardInput",
    "StandardStreams",
    "StreamFile",
    "TakeFlow",
    "acts_unasked",
    "check_name",
    "receive_flow",
    "send_flow",
]

FLOW = Service(flow.SERVICE, flow.VERSION)
"""The first line of the stream, by which a receiver knows what comes."""

ANSWER_BYTES = 4096


class Source(Protocol):
    """Where bytes come from."""

    async def read(self) -> bytes:
        """Some bytes as soon as there are any; ``b""`` at the end. Raises `OSError`."""

    def close(self) -> None: ...


class Sink(Protocol):
    """Where bytes go. Whatever fails raises `OSError` or `LocalProblem`."""

    async def write(self, data: Buffer) -> None:
        """Take `data`, which does not change afterwards; waits while too much has not been written."""

    async def end(self) -> None:
        """That was all, and it is where it should be when this returns."""

    def abort(self) -> None:
        """No more comes, and it was not all."""

    def close(self) -> None:
        """Release what is held; safe at any time, and twice."""


TakeFlow = Callable[[str], Awaitable[Sink | str]]
"""Gives where the bytes of that name go, or in a sentence why nowhere."""


def check_name(name: str) -> None:
    """Raises `UsageError` for a name that no file may have everywhere."""
    try:
        check_component(name)
    except UnsafeName as problem:
        raise UsageError(f"{display_name(name)} cannot be the name of a file.") from problem


async def send_flow(
    stream: ByteStream,
    source: Source,
    name: str,
    *,
    on_event: OnEvent = lambda event: None,
    clock: Clock = time.monotonic,
) -> Summary:
    """Send what `source` gives until its end; returns when the other side has all of it in its place.

    `name` is what a file of it may be called. The stream is ended in any case, `source` closed. Raises
    `Refused`: the other side declined or had to stop; `LocalProblem`: `source` cannot be read;
    `Interrupted`; `ProtocolViolation`.
    """
    return await _Outgoing(stream, source, name, on_event, clock).run()


async def receive_flow(
    stream: ByteStream,
    *,
    take: TakeFlow,
    on_event: OnEvent = lambda event: None,
    clock: Clock = time.monotonic,
) -> Summary:
    """Read an offer, of which the line `FLOW` has been read already, and give the bytes to what `take` says.

    It is ended where everything came, else aborted. The stream is ended in any case. Raises `LocalProblem`:
    the bytes cannot be written; `IntegrityFailed`; `Refused`: the sender had to stop; `Interrupted`;
    `ProtocolViolation`.
    """
    return await _Incoming(stream, take, on_event, clock).run()


class _Outgoing:
    def __init__(
        self, stream: ByteStream, source: Source, name: str, on_event: OnEvent, clock: Clock
    ) -> None:
        self._stream = stream
        self._source = source
        self._name = name
        self._clock = clock
        self._machine = FlowSender(name)
        self._conversation = Conversation(stream, self._machine)
        self._meter = ProgressMeter(0, on_event, clock)
        self._accepted = asyncio.Event()
        self._kept = asyncio.Event()

    async def run(self) -> Summary:
        try:
            seconds = await together(self._send(), self._listen())
            await self._stream.close()
        except BaseException as problem:
            await self._conversation.farewell(problem)
            raise
        finally:
            self._source.close()
        return Summary(1, self._machine.size, seconds)

    async def _send(self) -> float:
        """Seconds from the acceptance to the other side's confirmation."""
        await self._stream.write(FLOW.line)
        await self._conversation.flush()
        await self._accepted.wait()
        started = self._clock()
        while data := await self._read():
            self._machine.send(data)
            await self._conversation.flush()
            self._meter.add(len(data), self._name)
        self._machine.finish()
        await self._conversation.flush()
        self._meter.finish()
        await self._kept.wait()
        return self._clock() - started

    async def _read(self) -> bytes:
        try:
            return await self._source.read()
        except OSError as error:
            raise LocalProblem(f"The input cannot be read: {error.strerror or error}.") from error

    async def _listen(self) -> None:
        while not self._kept.is_set():
            await self._conversation.hear(ANSWER_BYTES)
            while (event := self._machine.next_event()) is not None:
                self._handle(event)

    def _handle(self, event: FlowEvent) -> None:
        match event:
            case FlowAccepted():
                self._accepted.set()
            case FlowKept():
                self._kept.set()
            case _:
                raise _ended_early(event)


class _Incoming:
    def __init__(self, stream: ByteStream, take: TakeFlow, on_event: OnEvent, clock: Clock) -> None:
        self._stream = stream
        self._take = take
        self._clock = clock
        self._machine = FlowReceiver()
        self._conversation = Conversation(stream, self._machine)
        self._meter = ProgressMeter(0, on_event, clock)
        self._sink: Sink | None = None
        self._declined = False
        self._name = ""
        self._started = clock()

    async def run(self) -> Summary:
        try:
            await self._receive()
            await self._conversation.flush()
            await self._stream.close()
        except BaseException as problem:
            if self._sink is not None:
                self._sink.abort()
            await self._conversation.farewell(problem)
            raise
        finally:
            if self._sink is not None:
                self._sink.close()
        if self._declined:
            return Summary(0, 0, 0.0, declined=True)
        self._meter.finish()
        return Summary(1, self._machine.size, self._clock() - self._started)

    async def _receive(self) -> None:
        while not self._machine.over:
            await self._conversation.hear(flow.MAX_DATA)
            while (event := self._machine.next_event()) is not None:
                await self._handle(event)

    async def _handle(self, event: FlowEvent) -> None:
        match event:
            case FlowOffered(name):
                await self._choose(name)
            case FlowData(data):
                await self._write(data)
                self._meter.add(len(data), self._name)
            case FlowEnded():
                await self._settle()
            case FlowDamaged():
                raise IntegrityFailed("What arrived is not what was sent.", hint="Ask for it again.")
            case _:
                raise _ended_early(event)

    async def _choose(self, name: str) -> None:
        taken = await self._take(name)
        if isinstance(taken, str):
            self._declined = True
            self._machine.abort(Reason.DECLINED, taken)
            return
        self._sink, self._name = taken, name
        self._machine.accept()
        self._started = self._clock()
        await self._conversation.flush()

    async def _write(self, data: memoryview) -> None:
        assert self._sink is not None, "bytes come only after they were accepted"
        try:
            await self._sink.write(data if type(data.obj) is bytes else bytes(data))
        except OSError as error:
            raise LocalProblem(f"The output cannot be written: {error.strerror or error}.") from error

    async def _settle(self) -> None:
        assert self._sink is not None, "bytes come only after they were accepted"
        try:
            await self._sink.end()
        except OSError as error:
            raise LocalProblem(f"The output cannot be written: {error.strerror or error}.") from error
        self._machine.keep()


def _ended_early(event: FlowEvent) -> CrowlineError:
    if isinstance(event, PeerStopped) and event.reason is Reason.INTEGRITY:
        return IntegrityFailed("The other side found that what arrived is not what was sent.")
    error = ended_early(event)  # type: ignore[arg-type]
    if error.hint and isinstance(error, Interrupted | Refused):
        error.hint = "Nothing of a stream is kept: send it from its beginning."
    return error
