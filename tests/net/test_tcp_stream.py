"""One TCP connection: bytes both ways, back-pressure, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from crowline.net.tcp_sockets import reset
from crowline.net.tcp_stream import LOSE_AT, PAUSE_AT, TcpStream

PATIENCE = 30.0  # seconds for something that must come


class End:
    """A stream and everything that was told of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.received = bytearray()
        self.reasons: list[str] = []
        self.drained = 0
        self.trusted = 0
        self.resets: list[bool] = []
        self._changed = asyncio.Event()
        self.stream = TcpStream(
            sock, is_accepted=False, on_trusted=self._trusted, on_ended=lambda _, reset: self._ended(reset)
        )

    def start(self) -> None:
        self.stream.start(self._receive, self._closed, self._drained)

    async def until_received(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            while len(self.received) < size:
                await self._change()
        return bytes(self.received)

    async def until_closed(self) -> str:
        async with asyncio.timeout(PATIENCE):
            while not self.reasons:
                await self._change()
        (reason,) = self.reasons
        return reason

    async def until_drained(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.drained:
                await self._change()

    async def until_ended(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            while not self.resets:
                await self._change()
        (was_reset,) = self.resets
        return was_reset

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _receive(self, data: bytes) -> None:
        self.received += data
        self._changed.set()

    def _closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self._changed.set()

    def _drained(self) -> None:
        self.drained += 1
        self._changed.set()

    def _trusted(self, stream: TcpStream) -> None:
        assert stream is self.stream
        self.trusted += 1

    def _ended(self, was_reset: bool) -> None:
        self.resets.append(was_reset)
        self._changed.set()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[End, socket.socket]]:
    """One end as a stream, the other as a plain socket that blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    end = End(ours)
    theirs.settimeout(PATIENCE)
    try:
        yield end, theirs
    finally:
        end.stream.abort()
        theirs.close()


def may_choose_bbr() -> bool:
    """Whether the kernel lets anybody use it."""
    file = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    return file.exists() and "bbr" in file.read_text().split()


async def read(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or fewer at the end of the stream, without holding the loop up."""
    data = bytearray()
    while len(data) < size and (more := await asyncio.to_thread(sock.recv, size - len(data))):
        data += more
    return bytes(data)


async def test_bytes_go_both_ways() -> None:
    """The addresses are those of the two sockets."""
    async with pair() as (end, other):
        end.start()
        other.sendall(b"question")
        assert await end.until_received(8) == b"question"
        end.stream.send(b"answer")
        assert await read(other, 6) == b"answer"
        assert (end.stream.local.host, end.stream.local.port) == other.getpeername()
        assert (end.stream.remote.host, end.stream.remote.port) == other.getsockname()


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this system has another name for it")
async def test_a_connection_that_is_kept_for_later_is_found_dead_in_time() -> None:
    """The kernel asks, long before the check that would find out by waiting for its answer."""
    async with pair() as (end, _):
        sock = end.stream._socket
        assert sock is not None
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, interval, count = (sock.getsockopt(socket.IPPROTO_TCP, each) for each in options)
        assert idle + interval * count <= 60


@pytest.mark.skipif(not may_choose_bbr(), reason="this kernel lets nobody choose BBR")
async def test_a_lost_packet_slows_no_connection_down_where_the_kernel_allows() -> None:
    """BBR where anybody may choose it; what the system has chosen elsewhere."""
    async with pair() as (end, _):
        sock = end.stream._socket
        assert sock is not None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"bbr"


async def test_what_comes_before_the_start_waits() -> None:
    """Nothing is read, and nothing lost, until somebody wants it."""
    async with pair() as (end, other):
        other.sendall(b"early")
        await asyncio.sleep(0)
        assert not end.received
        end.start()
        assert await end.until_received(5) == b"early"


async def test_a_second_start_hands_the_stream_over() -> None:
    """As when TLS takes a connection over from the framing: the next bytes go to the new owner."""
    async with pair() as (end, other):
        end.start()
        other.sendall(b"first")
        await end.until_received(5)
        taken = asyncio.get_running_loop().create_future()
        end.stream.start(taken.set_result, lambda _: None)
        other.sendall(b"second")
        async with asyncio.timeout(PATIENCE):
            assert await taken == b"second"
        assert end.received == b"first"


async def test_a_paused_stream_holds_the_other_side_back() -> None:
    """What the kernels cannot hold stays with the sender until the reader goes on."""
    sent = bytes(range(256)) * 4096 * 64
    async with pair() as (end, other):
        end.start()
        end.stream.pause()
        end.stream.pause()
        writing = asyncio.create_task(asyncio.to_thread(other.sendall, sent))
        done, _ = await asyncio.wait({writing}, timeout=0.2)
        assert not done and not end.received
        end.stream.resume()
        end.stream.resume()
        assert await end.until_received(len(sent)) == sent
        await writing


async def test_what_waits_is_known_and_its_leaving_told() -> None:
    """A reader that is slow: bytes wait here, a bulk sender is told to pause, and later to go on."""
    packet = bytes(64 * 1024)
    async with pair() as (end, other):
        end.start()
        sent = 0
        while not end.stream.congested:
            end.stream.send(packet)
            sent += len(packet)
        assert end.stream.waiting >= PAUSE_AT
        assert len(await read(other, sent)) == sent
        await end.until_drained()
        assert end.stream.waiting == 0 and not end.stream.congested


async def test_packets_are_lost_whole_when_too_much_waits() -> None:
    """Memory stays bounded; what arrives is a run of whole packets, and what must arrive still does."""
    packet = b"p" * 60_000
    async with pair() as (end, other):
        end.start()
        offered = 0
        while not end.stream.lost:
            end.stream.offer(packet)
            offered += 1
        assert LOSE_AT <= end.stream.waiting < LOSE_AT + len(packet)
        end.stream.send(b"must arrive")
        expected = packet * (offered - 1) + b"must arrive"
        assert await read(other, len(expected)) == expected


async def test_closing_lets_leave_what_was_written() -> None:
    """Then the other side reads the end of the stream; nothing is told here."""
    data = b"d" * (4 * 1024 * 1024)
    async with pair() as (end, other):
        end.start()
        end.stream.send(data)
        assert end.stream.waiting
        end.stream.close()
        end.stream.send(b"too late")
        assert not end.stream.is_open
        assert await read(other, len(data) + 1) == data
        assert await end.until_ended() is False
        assert end.reasons == []


async def test_a_reader_that_never_reads_does_not_keep_a_closed_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the time for it, what waits is thrown away."""
    monkeypatch.setattr("crowline.net.tcp_stream.CLOSE_LIMIT", 0.01)
    async with pair() as (end, _):
        end.start()
        end.stream.send(bytes(16 * 1024 * 1024))
        end.stream.close()
        assert await end.until_ended() is False
        assert end.stream.waiting == 0


async def test_the_other_sides_end_is_told_once() -> None:
    """In words; sending does nothing from then on."""
    async with pair() as (end, other):
        end.start()
        other.close()
        assert await end.until_closed() == "the other side closed the connection"
        end.stream.send(b"x")
        end.stream.close()
        end.stream.abort()
        assert end.resets == [False] and not end.stream.is_open


async def test_a_reset_is_told_as_one() -> None:
    """The port that the stream came from can tell it from an orderly end."""
    async with pair() as (end, other):
        end.start()
        reset(other)
        assert await end.until_closed()
        assert end.resets == [True]


async def test_a_broken_connection_is_not_told_from_within_send() -> None:
    """Whoever sends need not expect to be called back in the middle of it."""
    async with pair() as (end, other):
        end.start()
        end.stream.pause()
        reset(other)
        async with asyncio.timeout(PATIENCE):
            while not end.reasons:
                end.stream.send(b"x")
                before = list(end.reasons)
                assert before == []
                await asyncio.sleep(0.01)
        assert len(end.reasons) == 1


async def test_aborting_resets() -> None:
    """No TIME_WAIT stays, so that the same two addresses can be connected again at once."""
    async with pair() as (end, other):
        end.start()
        end.stream.abort()
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(other.recv, 1)
        assert end.reasons == []


async def test_dropping_tells_the_reason() -> None:
    """Once, and only whoever reads."""
    async with pair() as (end, _):
        end.start()
        end.stream.drop("a reason")
        end.stream.drop("another")
        assert end.reasons == ["a reason"] and end.resets == [False]


async def test_trust_is_told_once() -> None:
    """The port lets go of a stream whose other end has proven itself."""
    async with pair() as (end, _):
        end.stream.trust()
        end.stream.trust()
        assert end.trusted == 1 and end.stream.is_trusted


async def test_what_waits_in_many_pieces_leaves_in_order_whatever_becomes_of_their_buffers() -> None:
    """Pieces of all sizes, some of them in a buffer that is used again at once; the reader comes late."""
    sent = bytearray()
    async with pair() as (end, other):
        scratch = bytearray(50_000)
        for number in range(200):
            size = 1 + number * 7919 % 50_000
            scratch[:size] = number.to_bytes(1, "big") * size
            sent += scratch[:size]
            end.stream.send(memoryview(scratch)[:size])
            scratch[:size] = bytes(size)
        end.stream.send(b"and some")
        sent += b"and some"
        assert end.stream.waiting > 0
        assert await read(other, len(sent)) == sent
        assert end.stream.waiting == 0
