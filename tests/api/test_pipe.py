"""A pipe between two peers in one process: both directions, half-close, back-pressure, and how it fails."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path

import pytest

from crowline.api.pipe import pipe
from crowline.api.service import Service, agreed_stream
from crowline.base.errors import CrowlineError, ProtocolViolation
from crowline.base.machine import Buffer
from crowline.net.conduit import CHUNK
from crowline.net.standard_streams import StandardInput, StandardStreams
from two_peers import two_peers
from waiting import until


class Program:
    """A conduit with given input; `takes` is set while it takes output."""

    def __init__(self, given: bytes = b"", *, ends: bool = True) -> None:
        self._left = memoryview(given)
        self._ends = ends
        self.taken = bytearray()
        self.given = self.offered = self.reads = 0
        self.takes = asyncio.Event()
        self.takes.set()
        self.is_ended = self.is_aborted = self.is_closed = False

    async def read(self) -> bytes:
        self.reads += 1
        piece, self._left = bytes(self._left[:CHUNK]), self._left[CHUNK:]
        if not piece and not self._ends:
            await asyncio.Event().wait()
        self.given += len(piece)
        return piece

    async def write(self, data: Buffer) -> None:
        self.offered += len(data)
        await self.takes.wait()
        self.taken += data

    async def end(self) -> None:
        self.is_ended = True

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_closed = True


async def test_both_directions_at_once() -> None:
    """Every byte, both ends, and the count of each direction."""
    async with two_peers() as (here, there):
        one, other = Program(os.urandom(5_000_000)), Program(os.urandom(3_000_001))
        given = [bytes(each._left) for each in (one, other)]
        results = await asyncio.gather(pipe(here, one), pipe(there, other))
    assert [bytes(other.taken), bytes(one.taken)] == given
    assert [(each.sent, each.received) for each in results] == [
        (5_000_000, 3_000_001),
        (3_000_001, 5_000_000),
    ]
    for program in (one, other):
        assert program.is_ended and program.is_closed and not program.is_aborted


async def test_who_takes_nothing_stops_who_gives() -> None:
    """What waits in between is bounded, however much there is to send."""
    async with two_peers() as (here, there):
        one, other = Program(bytes(80_000_000)), Program()
        other.takes.clear()
        task = asyncio.ensure_future(asyncio.gather(pipe(here, one), pipe(there, other)))
        await until(lambda: one.given > 1_000_000)
        seen = -1
        while seen != one.given:
            seen = one.given
            await asyncio.sleep(0.3)
        assert one.given < 60_000_000
        other.takes.set()
        await task
    assert len(other.taken) == 80_000_000


async def test_a_mismatch_is_a_sentence_on_both_sides() -> None:
    """The verb that the other side runs is named."""
    async with two_peers() as (here, there):
        found = await asyncio.gather(
            pipe(here, Program()), agreed_stream(there, Service("chat")), return_exceptions=True
        )
    assert all(isinstance(error, ProtocolViolation) for error in found)
    assert [error.message for error in found] == [  # type: ignore[union-attr]
        "The other side runs `crowline chat`.",
        "The other side runs `crowline pipe`.",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"crowline/pipe 2\n", "another version"),
        (b"crowline/\x1b[2J 1\n", "does not run"),
        (b"GET / HTTP/1.1\r\n", "does not run"),
        (b"", "does not run"),
        (b"crowline/pipe 1", "does not run"),
    ],
)
def test_a_strange_line_is_not_repeated(line: bytes, said: str) -> None:
    """Nothing of it reaches the terminal."""
    with pytest.raises(ProtocolViolation) as caught:
        Service("pipe").check(line)
    assert said in caught.value.message and "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("line", "command"), [(b"crowline/send 2\n", "send"), (b"crowline/send-stream 1\n", "send -")]
)
def test_who_meets_a_sender_is_told_of_the_command_that_goes_with_it(line: bytes, command: str) -> None:
    """The same one would not help: a sender needs a receiver."""
    with pytest.raises(ProtocolViolation) as caught:
        Service("pipe").check(line)
    assert caught.value.message == f"The other side runs `crowline {command}`."
    assert "crowline receive" in caught.value.hint


async def test_the_end_of_the_connection_ends_the_pipe() -> None:
    """With its error, and the program here is told that this is no proper end."""
    async with two_peers() as (here, there):
        one = Program(ends=False)
        task = asyncio.ensure_future(pipe(here, one))
        await agreed_stream(there, Service("pipe"))
        await there.close(10, "it was stopped")
        with pytest.raises(CrowlineError, match="it was stopped"):
            await task
    assert one.is_aborted and not one.is_ended


async def test_who_cancels_again_and_again_leaves_nothing_open() -> None:
    """What is wound down may be told to end once more."""
    async with two_peers() as (here, there):
        one = Program(ends=False)
        task = asyncio.ensure_future(pipe(here, one))
        await agreed_stream(there, Service("pipe"))
        await until(lambda: one.reads == 1)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
    assert one.is_aborted and one.is_closed


async def test_a_stream_given_up_ends_the_pipe_though_nobody_takes_what_came() -> None:
    """A program that does not read holds nothing up that is over."""
    async with two_peers() as (here, there):
        one = Program()
        one.takes.clear()
        task = asyncio.ensure_future(pipe(here, one))
        stream = await agreed_stream(there, Service("pipe"))
        await stream.write(b"x")
        await until(lambda: one.offered == 1)
        stream.abort()
        await until(task.done)
        with pytest.raises(CrowlineError, match="gave the stream up"):
            await task
    assert one.is_aborted and one.is_closed


async def test_output_that_another_process_made_non_blocking_takes_everything() -> None:
    """Standard output may be shared, and a flag of it is everybody's."""
    out, sink = os.pipe()
    try:
        os.set_blocking(sink, False)
        streams = StandardStreams(takes_input=False, stdout=sink)
        await streams.write(bytes(300_000))
        # The pipe is full after the first of several pieces.
        await until(lambda: bool(select.select([out], [], [], 0)[0]))
        taking, taken = StandardInput(out), 0
        async with asyncio.timeout(30):
            while taken < 300_000:
                taken += len(await taking.read())
            await streams.end()
        streams.close()
    finally:
        os.close(out)
        os.close(sink)


async def test_standard_streams_of_pipes_and_files(tmp_path: Path) -> None:
    """A pipe is waited for by the event loop, a file is read by a thread; output is whole at `end`."""
    data = os.urandom(700_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    source, (out, sink) = os.open(path, os.O_RDONLY), os.pipe()
    try:
        from_file = StandardStreams(stdin=source, stdout=sink)
        to_pipe = StandardStreams(stdin=out, stdout=source)
        read = bytearray()

        async def consume() -> None:
            while len(read) < len(data):
                read.extend(await to_pipe.read())

        consuming = asyncio.ensure_future(consume())
        while piece := await from_file.read():
            await from_file.write(piece)
        await from_file.end()
        await consuming
        assert bytes(read) == data
        assert await from_file.read() == b""
        from_file.close()
        to_pipe.close()
    finally:
        for number in (source, out, sink):
            os.close(number)
