"""Streams of unknown length between two tasks: what goes in comes out, and every end is told to both."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from crowline.api.flow import FLOW, Sink, StreamFile, receive_flow, send_flow
from crowline.api.transfer import ByteStream, Summary
from crowline.base.errors import CrowlineError, Declined, Interrupted, LocalProblem, Refused
from crowline.base.machine import Buffer
from memory_stream import stream_pair, tree

LARGE = 3_000_000


class Source:
    """Gives these bytes in pieces; after them `fault`, or waits for ever."""

    def __init__(self, data: bytes, *, fault: OSError | None = None, waits: bool = False) -> None:
        self._data = data
        self._fault = fault
        self._waits = waits
        self.closed = False

    async def read(self) -> bytes:
        piece, self._data = self._data[:100_000], self._data[100_000:]
        if not piece and self._fault is not None:
            raise self._fault
        if not piece and self._waits:
            await asyncio.Event().wait()
        return piece

    async def write(self, data: Buffer) -> None:
        raise AssertionError

    async def end(self) -> None:
        raise AssertionError

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True


class Kept:
    """Keeps what it gets; after `room` bytes it raises `fault`."""

    def __init__(self, *, room: int = 1 << 40, fault: Exception | None = None) -> None:
        self.data = bytearray()
        self.fed = asyncio.Event()
        self.ended = self.aborted = self.closed = False
        self._room = room
        self._fault = fault

    async def read(self) -> bytes:
        raise AssertionError

    async def write(self, data: Buffer) -> None:
        self.data += data
        self.fed.set()
        if len(self.data) > self._room and self._fault is not None:
            raise self._fault

    async def end(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True


def frame(kind: int, fields: object) -> bytes:
    payload = fields if isinstance(fields, bytes) else msgspec.msgpack.encode(fields)
    return bytes((kind,)) + len(payload).to_bytes(4, "big") + payload


async def receive(stream: ByteStream, sink: Sink | str) -> Summary:
    assert await stream.read(len(FLOW.line)) == FLOW.line

    async def take(name: str) -> Sink | str:
        assert name == "a.log"
        return sink

    return await receive_flow(stream, take=take)


async def both(
    source: Source, sink: Sink | str, *, cut_first: int | None = None
) -> tuple[Summary | BaseException, Summary | BaseException]:
    one, other = stream_pair(cut_first=cut_first)
    async with asyncio.timeout(30):
        sent, received = await asyncio.gather(
            send_flow(one, source, "a.log"), receive(other, sink), return_exceptions=True
        )
    assert source.closed
    return sent, received


async def test_what_goes_in_comes_out() -> None:
    """All of it, in order; both sides count the same, and the output was ended before the sender went."""
    data = os.urandom(LARGE)
    sink = Kept()
    sent, received = await both(Source(data), sink)
    assert isinstance(sent, Summary) and isinstance(received, Summary)
    assert bytes(sink.data) == data and sink.ended and sink.closed and not sink.aborted
    assert sent.bytes == received.bytes == LARGE


async def test_a_file_gets_its_name_at_the_end(tmp_path: Path) -> None:
    """Or the next free one, and nothing is replaced."""
    (tmp_path / "a.log").write_text("old")
    file = await StreamFile.create(tmp_path, "a.log")
    await both(Source(b"new" * 100_000), file)
    assert file.name == "a (1).log"
    assert (tmp_path / file.name).read_bytes() == b"new" * 100_000
    assert (tmp_path / "a.log").read_text() == "old"
    assert len(tree(tmp_path)) == 2


async def test_whoever_does_not_want_it_says_why() -> None:
    """The input is not read, and neither side has an error that it did not cause."""
    source = Source(b"x", fault=OSError("read although nobody wants it"))
    sent, received = await both(source, "No room for that.")
    assert isinstance(sent, Declined) and "No room for that." in sent.message
    assert isinstance(received, Summary) and received.declined


async def test_input_that_breaks_is_a_local_problem_here_and_a_refusal_there(tmp_path: Path) -> None:
    """Nothing of it is kept."""
    file = await StreamFile.create(tmp_path, "a.log")
    sent, received = await both(Source(b"x" * LARGE, fault=OSError(5, "Input/output error")), file)
    assert isinstance(sent, LocalProblem) and "Input/output error" in sent.message
    assert isinstance(received, Refused)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), LocalProblem("Nobody reads.")])
async def test_output_that_breaks_stops_the_sender(fault: Exception) -> None:
    """Also one whose input never ends."""
    sink = Kept(room=LARGE // 2, fault=fault)
    sent, received = await both(Source(b"x" * LARGE, waits=True), sink)
    assert isinstance(received, LocalProblem) and isinstance(sent, Refused)
    assert sink.aborted and sink.closed and not sink.ended


@pytest.mark.parametrize("after", [0, 10, 50, 1_000_000])
async def test_a_sender_that_goes_away_leaves_nothing_that_looks_whole(tmp_path: Path, after: int) -> None:
    """The stream just ends, at any place."""
    file = await StreamFile.create(tmp_path, "a.log")
    one, other = stream_pair(cut_first=after + len(FLOW.line))
    sending = asyncio.ensure_future(send_flow(one, Source(b"x" * LARGE), "a.log"))
    async with asyncio.timeout(30):
        with pytest.raises(Interrupted):
            await receive(other, file)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    file.close()
    assert tree(tmp_path) == {}


async def test_stopping_the_sender_is_told_to_the_receiver() -> None:
    """Ctrl-C while the input is silent."""
    sink = Kept()
    one, other = stream_pair()
    sending = asyncio.ensure_future(send_flow(one, Source(b"x", waits=True), "a.log"))
    receiving = asyncio.ensure_future(receive(other, sink))
    async with asyncio.timeout(30):
        await sink.fed.wait()
        sending.cancel()
        with pytest.raises(Interrupted, match="stopped the transfer") as caught:
            await receiving
    assert "Nothing of a stream is kept" in caught.value.hint
    assert sink.aborted
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_a_receiver_that_was_lied_to_keeps_nothing(tmp_path: Path) -> None:
    """A hash that does not fit: exit code 9 on both sides."""
    file = await StreamFile.create(tmp_path, "a.log")
    one, other = stream_pair()
    receiving = asyncio.ensure_future(receive(other, file))
    offer, end = {"name": "a.log"}, {"size": 3, "sha256": bytes(32)}
    await one.write(FLOW.line + frame(1, offer) + frame(3, b"abc") + frame(4, end))
    async with asyncio.timeout(30):
        with pytest.raises(CrowlineError) as told:
            await receiving
    assert told.value.exit_code == 9
    assert tree(tmp_path) == {}
