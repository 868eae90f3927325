"""Streams as an application uses them: limits, ends, and what is left of them afterwards."""

from __future__ import annotations

import asyncio

import pytest

import crowline
from crowline.api import connection as connections
from crowline.api import datagrams, peer
from crowline.session.streams import MAX_STREAMS
from serving import serving
from two_peers import two_peers
from waiting import until


async def test_streams_that_were_opened_and_reset_leave_nothing_behind() -> None:
    """Neither do those that ended in both directions: a long connection costs what is open now."""
    async with two_peers() as (here, there):
        for _ in range(2 * MAX_STREAMS):
            stream = await here.open_stream()
            await stream.write(b"x")
            stream.abort()
            await until(lambda: not here._connection.session._streams._table.resets, pause=0)
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
            await until(lambda: bool(list(there._connection.session._streams._table)), pause=0)
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            if accepting.cancelled():
                async with asyncio.timeout(30):
                    await there.accept_stream()
            stream.abort()
            await until(lambda: not list(there._connection.session._streams._table))


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


async def test_the_one_stream_too_many_waits_for_another_to_end() -> None:
    """In the order of asking; who has given up waiting does not stand in the way."""
    async with two_peers() as (here, there):
        streams = [await here.open_stream() for _ in range(MAX_STREAMS)]
        waiting = [asyncio.create_task(here.open_stream()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        await streams[0].write(b"alive\n")
        assert await (await there.accept_stream()).readline() == b"alive\n"
        for stream in streams[:2]:
            stream.abort()
        async with asyncio.timeout(30):
            opened = [await task for task in waiting[1:]]
        assert [stream._number for stream in opened] == sorted(stream._number for stream in opened)


async def test_very_many_who_wait_for_a_stream_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits costs memory too."""
    monkeypatch.setattr(peer, "MAX_WAITING_OPENS", 2)
    async with two_peers() as (here, _):
        for _ in range(MAX_STREAMS):
            await here.open_stream()
        waiting = [asyncio.create_task(here.open_stream()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(crowline.UsageError):
            await here.open_stream()
        for task in waiting:
            task.cancel()


async def test_who_waits_for_a_stream_hears_of_the_end() -> None:
    """A connection that ends lets nobody wait on."""
    async with two_peers() as (here, there):
        for _ in range(MAX_STREAMS):
            await here.open_stream()
        waiting = asyncio.create_task(here.open_stream())
        await asyncio.sleep(0)
        await there.close(5, "No.")
        async with asyncio.timeout(30):
            with pytest.raises(crowline.Refused):
                await waiting


async def test_datagrams_arrive_whole_and_large_ones_too() -> None:
    """Both ways; what is larger than a packet goes between the bytes of streams."""
    async with two_peers() as (here, there):
        for sender, receiver in ((here, there), (there, here)):
            assert sender.max_datagram_size == 65_535
            sizes = {1, 1000, 30_000, 65_535}
            arrived: dict[int, bytes] = {}
            arrivals = receiver.datagrams()
            async with asyncio.timeout(30):
                while set(arrived) != sizes:
                    for size in sizes - set(arrived):
                        sender.send_datagram(bytes([size % 251]) * size)
                    data = await anext(arrivals)
                    arrived[len(data)] = data
            assert all(data == bytes([size % 251]) * size for size, data in arrived.items())
        with pytest.raises(crowline.UsageError):
            here.send_datagram(bytes(65_536))


async def test_datagrams_end_with_the_connection() -> None:
    """A good end ends the loop; a bad one is raised."""
    for code, error in ((0, None), (5, crowline.Refused)):
        async with two_peers() as (here, there):
            await there.close(code, "No.")
            async with asyncio.timeout(30):
                if error is None:
                    assert [data async for data in here.datagrams()] == []
                else:
                    with pytest.raises(error):
                        await anext(here.datagrams())


async def test_datagrams_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are lost."""
    monkeypatch.setattr(datagrams, "MAX_WAITING", 3)
    inbox = datagrams.DatagramInbox()
    for number in range(10):
        inbox.put(bytes([number]))
    assert inbox.lost == 7
    assert [await inbox.get() for _ in range(3)] == [b"\x07", b"\x08", b"\t"]
    monkeypatch.setattr(datagrams, "MAX_WAITING_BYTES", 100)
    for _ in range(3):
        inbox.put(bytes(60))
    assert inbox.lost == 9


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
