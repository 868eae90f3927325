"""The link between the owner of a server and a worker: order, loss, descriptors, ends."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from crowline.server import worker_link
from crowline.server.worker_link import WorkerLink

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux")

PATIENCE = 30.0  # seconds until a test gives up


class End:
    """One end of a link; `messages` holds what came, `sockets` what came with it."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[bytes] = []
        self.sockets: list[socket.socket | None] = []
        self.ends = 0
        self._changed = asyncio.Event()
        self.link = WorkerLink(sock, self._message, self._end)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _message(self, message: bytes, sock: socket.socket | None) -> None:
        self.messages.append(message)
        self.sockets.append(sock)
        self._changed.set()

    def _end(self) -> None:
        self.ends += 1
        self._changed.set()


@contextmanager
def linked() -> Iterator[tuple[End, End]]:
    one, other = (End(sock) for sock in WorkerLink.pair())
    try:
        yield one, other
    finally:
        for end in (one, other):
            end.link.close()
            for sock in end.sockets:
                if sock is not None:
                    sock.close()


async def test_messages_come_whole_and_in_order_past_a_full_kernel_queue() -> None:
    """What the kernel has no room for waits, and nothing overtakes it."""
    with linked() as (one, other):
        sent = [b"%d" % n * 50 for n in range(5000)]
        for message in sent:
            one.link.send(message)
        await other.until(lambda: len(other.messages) == len(sent))
        assert other.messages == sent


async def test_datagrams_get_lost_where_changes_wait() -> None:
    """A busy other end costs datagrams, never a change."""
    with linked() as (one, other):
        taken = sum(one.link.send_datagram(bytes(1000)) for _ in range(5000))
        assert 0 < taken < 5000
        one.link.send(b"change")
        await other.until(lambda: b"change" in other.messages)
        assert len(other.messages) == taken + 1


async def test_a_socket_comes_as_a_copy() -> None:
    """Both ends have the socket; closing one leaves the other."""
    with linked() as (one, other), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.bind(("127.0.0.1", 0))
        name = mine.getsockname()
        one.link.send(b"take it", mine)
        await other.until(lambda: bool(other.messages))
        mine.close()
        [theirs] = other.sockets
        assert theirs is not None
        assert theirs.getsockname() == name
        assert not theirs.get_inheritable()


async def test_a_socket_that_was_closed_while_it_waited_stays_away() -> None:
    """The message comes without it; no other descriptor takes its place."""
    with linked() as (one, other):
        for _ in range(5000):
            one.link.send(bytes(200))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
            one.link.send(b"too late", mine)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
            await other.until(lambda: b"too late" in other.messages)
        assert other.sockets[-1] is None


async def test_an_end_is_told_once() -> None:
    """When the other end is gone, `on_end` is called once and sending does nothing."""
    with linked() as (one, other):
        one.link.close()
        await other.until(lambda: other.ends > 0)
        other.link.send(b"nobody")
        assert not other.link.send_datagram(b"nobody")
        assert (other.ends, one.ends) == (1, 0)


async def test_an_end_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes wait in memory up to a limit; beyond it the other end counts as dead."""
    monkeypatch.setattr(worker_link, "MAX_WAITING", 100)
    with linked() as (one, _):
        for _ in range(20_000):
            one.link.send(bytes(200))
        assert one.ends == 1
        assert not one.link.is_open


class Exhausted(socket.socket):
    """A socket for which the kernel has no room, so many times."""

    refusals = 3

    def sendmsg(self, *arguments: object) -> int:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ETOOMANYREFS, "too many references")
        return super().sendmsg(*arguments)  # type: ignore[arg-type]


async def test_a_kernel_without_room_loses_no_message() -> None:
    """What cannot be sent because too many descriptors are under way is sent later, in its order."""
    one, other = WorkerLink.pair()
    sender, receiver = End(Exhausted(fileno=one.detach())), End(other)
    try:
        for message in (b"first", b"second"):
            sender.link.send(message)
        await receiver.until(lambda: len(receiver.messages) == 2)
        assert receiver.messages == [b"first", b"second"]
    finally:
        sender.link.close()
        receiver.link.close()
