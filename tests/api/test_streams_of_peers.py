"""Streams as an application uses them: limits, ends, and what is left of them afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import crowline
from crowline.api import connection as connections
from crowline.session.streams import MAX_STREAMS
from serving import serving


@asynccontextmanager
async def two_peers() -> AsyncIterator[tuple[crowline.Peer, crowline.Peer]]:
    async with (
        serving() as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as there,
    ):
        yield await room.peer(), there


async def until(condition: Callable[[], bool], pause: float = 0.005) -> None:
    """Wait until `condition()` holds."""
    deadline = asyncio.get_running_loop().time() + 30
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "that did not happen in time"
        await asyncio.sleep(pause)


async def test_streams_that_were_opened_and_reset_leave_nothing_behind() -> None:
    """Neither do those that ended in both directions: a long connection costs what is open now."""
    async with two_peers() as (here, there):
        for _ in range(2 * MAX_STREAMS):
            stream = await here.open_stream()
            await stream.write(b"x")
            stream.abort()
            await until(lambda: not here._connection.session._table.resets, pause=0)
        for _ in range(2 * MAX_STREAMS):
            stream = await here.open_stream()
            await stream.write(b"x")
            await stream.close()
            other = await there.accept_stream()
            assert await other.read() == b"x"
            assert await other.read() == b""
            await other.close()
            assert await stream.read() == b""
            await other.delivered()
        await until(lambda: not any(p._connection.observers.streams or p._open for p in (here, there)))
        assert not there._waiting


async def test_streams_that_arrived_before_the_end_can_still_be_accepted_and_read() -> None:
    """The other side opened, wrote and left while this one was busy."""
    async with serving() as server, crowline.host(server.url) as room:
        async with crowline.join(room.code, server.url) as there:
            here = await room.peer()
            for text in (b"one", b"two"):
                stream = await there.open_stream()
                await stream.write(text)
                await stream.close()
        await asyncio.shield(here._connection.ended)
        assert [await stream.read() async for stream in here.streams()] == [b"one", b"two"]


async def test_a_cancelled_accept_loses_no_stream() -> None:
    """The stream goes to whoever accepts next."""
    async with two_peers() as (here, there):
        for _ in range(20):
            accepting = asyncio.create_task(there.accept_stream())
            await asyncio.sleep(0)
            stream = await here.open_stream()
            await stream.write(b"x")
            await until(lambda: bool(list(there._connection.session._table)), pause=0)
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            if accepting.cancelled():
                async with asyncio.timeout(30):
                    await there.accept_stream()
            stream.abort()
            await until(lambda: not list(there._connection.session._table))


async def test_a_writer_hears_why_the_other_side_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the moment between the other side's last word and the end of the connection."""
    monkeypatch.setattr(connections, "_LINGER", 1.0)
    async with two_peers() as (here, there):
        stream = await here.open_stream()
        closing = asyncio.create_task(there.close(8, "the disk is full"))
        with pytest.raises(crowline.Refused, match="the disk is full"):
            async with asyncio.timeout(30):
                while True:
                    await stream.write(b"more")
                    await asyncio.sleep(0.001)
        with pytest.raises(crowline.Refused):
            await here.open_stream()
        await closing


async def test_a_cancelled_readexactly_or_readline_keeps_what_it_had() -> None:
    """The bytes are there for the next read."""
    async with two_peers() as (here, there):
        stream = await here.open_stream()
        await stream.write(b"half")
        other = await there.accept_stream()
        for reading in (other.readexactly(8), other.readline()):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reading
        await stream.write(b" and half\n")
        assert await other.readexactly(4) == b"half"
        assert await other.readline() == b" and half\n"


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_read_of_nothing_is_misuse(limit: int) -> None:
    """It would wait for ever, or give bytes in the wrong order."""
    async with two_peers() as (here, _):
        stream = await here.open_stream()
        with pytest.raises(crowline.UsageError):
            await stream.read(limit)


async def test_the_one_stream_too_many_is_refused_and_the_connection_lives() -> None:
    """The caller hears of it; nobody else does."""
    async with two_peers() as (here, there):
        streams = [await here.open_stream() for _ in range(MAX_STREAMS)]
        with pytest.raises(crowline.UsageError):
            await here.open_stream()
        await streams[0].write(b"alive\n")
        assert await (await there.accept_stream()).readline() == b"alive\n"


async def test_an_observer_that_raises_harms_nobody_but_itself() -> None:
    """The loop's exception handler hears of it; the meeting goes on."""
    heard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))

    def fail(*_: object) -> None:
        raise RuntimeError("not today")

    async with serving() as server, crowline.host(server.url) as room:
        room.on_path(fail)
        async with crowline.join(room.code, server.url) as there:
            here = await room.peer()
            stream = await here.open_stream()
            await stream.write(b"hello\n")
            async with asyncio.timeout(30):
                assert await (await there.accept_stream()).readline() == b"hello\n"
    assert heard and all("on_path" in message for message in heard)


async def test_nothing_is_left_in_the_loop_after_the_end() -> None:
    """No task, and no timer of a wait that is over."""
    loop = asyncio.get_running_loop()
    async with serving() as server, crowline.host(server.url, timeout=3600) as room:
        async with crowline.join(room.code, server.url, timeout=3600):
            await room.peer()
        connection = room._connection
    waiting = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert not [handle for handle in waiting if handle.when() > loop.time() + 100], waiting
    assert connection.ended.done()
    assert len(asyncio.all_tasks()) == 1
