"""The sockets of rtnetlink: questions to the kernel, and its notices."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from pathlib import Path

import pytest

from crowline.net import netlink
from crowline.net import rtnetlink as rt
from crowline.net.netlink import Netlink, NoticeSocket

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has netlink")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_kernel_tells_its_loopback() -> None:
    """Device, address and route, and nothing stays open."""
    before = open_descriptors()
    with Netlink() as asked:
        tables = asked.tables()
        (address,) = [each for each in tables.addresses if each.host == "127.0.0.1"]
        assert tables.links[address.device].flags & rt.LOOPBACK
        step = asked.route_towards("127.0.0.1")
        assert step is not None
        assert (step.device, step.source) == (address.device, "127.0.0.1")
        assert len(asked.tables().addresses) >= 1
    assert open_descriptors() == before


class FakeSocket:
    """Gives those reads, each a datagram with the port of its sender, and then nothing."""

    def __init__(self, *reads: tuple[bytes, int, int] | OSError) -> None:
        self._reads = list(reads)
        self.sent: list[bytes] = []

    def recvmsg(self, size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        if not self._reads:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        read = self._reads.pop(0)
        if isinstance(read, OSError):
            raise read
        data, flags, sender = read
        return data, [], flags, (sender, 0)

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def setsockopt(self, *_: object) -> None: ...
    def setblocking(self, flag: bool) -> None: ...
    def settimeout(self, seconds: float) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int:
        return 0


def message(kind: int, body: bytes = b"", *, sequence: int = 1, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


def link(number: int, **fields: int) -> bytes:
    return message(rt.NEW_LINK, struct.pack("=BxHiII", 0, 1, number, 0, 0), **fields)


def asked(monkeypatch: pytest.MonkeyPatch, *reads: tuple[bytes, int, int] | OSError) -> Netlink:
    monkeypatch.setattr(netlink, "_open", lambda groups: FakeSocket(*reads))
    return Netlink()


def test_only_the_kernel_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes may send to the socket; cut messages and late answers are no answers either."""
    done = message(rt.NLMSG_DONE)
    reads = (
        (link(66), 0, 4711),
        (link(67), int(socket.MSG_TRUNC), 0),
        (link(68, sequence=0), 0, 0),
        (link(5) + done, 0, 0),
        (message(rt.NLMSG_DONE, sequence=2), 0, 0),
    )
    assert list(asked(monkeypatch, *reads).tables().links) == [5]


def test_a_table_that_changed_meanwhile_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump in pieces may miss what moved between them."""
    reads = (
        (link(5, flags=rt.NLM_F_DUMP_INTERRUPTED) + message(rt.NLMSG_DONE), 0, 0),
        (link(5, sequence=2) + link(6, sequence=2), 0, 0),
        (message(rt.NLMSG_DONE, sequence=2), 0, 0),
        (message(rt.NLMSG_DONE, sequence=3), 0, 0),
    )
    assert list(asked(monkeypatch, *reads).tables().links) == [5, 6]


def test_a_refusal_is_an_error_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the caller can go on without netlink."""
    refusal = message(rt.NLMSG_ERROR, struct.pack("=i", -errno.EPERM))
    with pytest.raises(PermissionError):
        asked(monkeypatch, (refusal, 0, 0)).tables()
    assert asked(monkeypatch, (refusal, 0, 0)).route_towards("192.0.2.1") is None


def test_a_table_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are counted, not reads, of which each may have hundreds."""
    monkeypatch.setattr(netlink, "_MAX_MESSAGES", 100)
    endless = [(link(7) * 60, 0, 0)] * 50
    with asked(monkeypatch, *endless) as netlink_:
        assert len(netlink_._dump(rt.GET_LINK, rt.NEW_LINK, rt.read_link)) == 120


def test_a_number_that_is_no_error_number_is_an_error_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no words for some, and no room for others."""
    for number in (-(2**31), 2**31 - 1):
        answer = message(rt.NLMSG_ERROR, struct.pack("=i", number))
        with asked(monkeypatch, (answer, 0, 0)) as netlink_, pytest.raises(OSError):
            netlink_.tables()


async def test_notices_end_where_the_socket_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a read, by whom is told."""
    before = open_descriptors()
    heard: list[rt.Message | None] = []

    def on_notice(notice: rt.Message | None) -> None:
        heard.append(notice)
        source.close()

    source = NoticeSocket(on_notice)
    monkeypatch.setattr(netlink, "_read", lambda sock: rt.messages(memoryview(link(1) + link(2))))
    source._on_readable()
    source.close()
    assert len(heard) == 1
    assert open_descriptors() == before


async def test_lost_notices_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says that there was no room; what comes afterwards is read as ever."""
    heard: list[rt.Message | None] = []
    source = NoticeSocket(heard.append)
    lost = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    fake = FakeSocket(lost, (link(5), 0, 0))
    real, source._socket = source._socket, fake  # type: ignore[assignment]
    source._on_readable()
    source._socket = real
    source.close()
    assert heard[0] is None
    assert [each.type for each in heard[1:] if each is not None] == [rt.NEW_LINK]


async def test_a_flood_of_notices_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One turn of the loop reads so many times, and no more."""
    heard: list[rt.Message | None] = []
    source = NoticeSocket(heard.append)
    fake = FakeSocket(*[(link(5), 0, 0)] * 100)
    real, source._socket = source._socket, fake  # type: ignore[assignment]
    source._on_readable()
    source._socket = real
    source.close()
    assert len(heard) == 16


def test_without_netlink_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems have none."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match="not supported"):
        Netlink()
