"""One TCP connection with the other side: bytes in, bytes out, and what of them waits."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from crowline.base.errors import UsageError
from crowline.base.machine import Buffer
from crowline.net.tcp_sockets import name_of, reset

# Bytes of one read, two of a session's largest frames. They should be few: a turn of the event loop, in which
# the session sees what there is to do, costs more than decrypting 128 KiB.
READ_SIZE = 512 * 1024
# Pieces of what waited that one write takes.
_PIECES = 16
# Bytes that wait for the kernel before a bulk sender should pause, and before packets are lost, as for
# `StreamSocket`.
PAUSE_AT = 256 * 1024
LOSE_AT = 512 * 1024
# Bytes that the kernel keeps beyond those on the wire: what leaves within so many seconds, the time of a turn
# of a busy event loop, but no less and no more than that.
_UNSENT_LIMIT = 128 * 1024
_MOST_UNSENT = 1 << 20
_TURN = 0.004
# Seconds over which is measured how fast bytes leave.
_RATE_TIME = 0.02
_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)
# Seconds without a packet after which the kernel asks whether the other side is still there, between further
# questions, and how many stay without an answer. On pairs that are kept for later nothing else is sent, and
# who finds them dead only when they are needed has lost half a minute; NATs forget what is idle for longer.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
# Of what the kernel lets anybody choose, the one that a lost packet does not slow down.
_CONGESTION_CONTROL = b"bbr"
# Seconds in which what was written before the end may still leave.
CLOSE_LIMIT = 5.0

_NOTHING_YET = (BlockingIOError, InterruptedError)


class _Landing(threading.local):
    """Where all streams of a thread read to, so that no read costs the making of a buffer."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))


_landing = _Landing()


class TcpStream:
    """A connected socket. It is read from `start` on; until then what comes waits in the kernel.

    Whoever knows that the other side is who it should be calls `trust`; one that nobody trusts is reset after
    a while by the port that it came from.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        is_accepted: bool,
        on_trusted: Callable[[TcpStream], None],
        on_ended: Callable[[TcpStream, bool], None],
    ) -> None:
        """Takes over the socket; on `OSError` it is closed. `is_accepted`: it came uncalled.

        The two calls are for the port: `on_ended` says whether the other side reset the connection.
        """
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = sock
        try:
            self.local, self.remote = name_of(sock.getsockname()), name_of(sock.getpeername())
            _prepare(sock)
        except BaseException:
            sock.close()
            raise
        self.is_accepted = is_accepted
        self.lost = 0
        self._on_trusted = on_trusted
        self._on_ended = on_ended
        self._on_receive: Callable[[memoryview], None] | None = None
        self._on_closed: Callable[[str], None] | None = None
        self._on_drained: Callable[[], None] | None = None
        # What the kernel has not taken yet, how much that is, and since when how much of it was taken.
        self._unsent: deque[memoryview] = deque()
        self._waiting = 0
        self._taken, self._taken_since = 0, 0.0
        self._unsent_limit = _UNSENT_LIMIT
        self._is_trusted = self._is_paused = self._is_closing = False
        self._soon: asyncio.Handle | None = None
        self._limit: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        return self._socket is not None and not self._is_closing

    @property
    def is_trusted(self) -> bool:
        return self._is_trusted

    @property
    def is_stranger(self) -> bool:
        """Whether it came uncalled and has proven nothing."""
        return self.is_accepted and not self._is_trusted

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._waiting

    @property
    def congested(self) -> bool:
        """Whether a bulk sender should pause, until it is told that all has left."""
        return self._waiting >= PAUSE_AT

    def start(
        self,
        on_receive: Callable[[memoryview], None],
        on_closed: Callable[[str], None],
        on_drained: Callable[[], None] | None = None,
    ) -> None:
        """Read from now on. A second call puts others in the place of the first.

        What `on_receive` gets changes when that has returned. `on_closed` is called once with the reason when
        the other side ended it; `on_drained` when what waited has left.
        """
        is_first = self._on_receive is None
        self._on_receive, self._on_closed, self._on_drained = on_receive, on_closed, on_drained
        if is_first and self._socket is not None and not self._is_closing and not self._is_paused:
            self._loop.add_reader(self._socket, self._readable)

    def trust(self) -> None:
        """The other side has proven who it is."""
        if not self._is_trusted:
            self._is_trusted = True
            self._on_trusted(self)

    def pause(self) -> None:
        """Read nothing, so that the other side is held back."""
        if not self._is_paused and self._socket is not None:
            self._is_paused = True
            self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Go on reading."""
        if self._is_paused:
            self._is_paused = False
            if self._on_receive is not None and self._socket is not None and not self._is_closing:
                self._loop.add_reader(self._socket, self._readable)

    def send(self, data: Buffer) -> None:
        """Write bytes that must arrive; after the end, nothing. What is not `bytes` may change afterwards."""
        if self._socket is None or self._is_closing:
            return
        done = 0
        if not self._unsent:
            try:
                done = self._socket.send(data)
            except _NOTHING_YET:
                pass
            except OSError as error:
                self._end_soon(error)
                return
        self._taken += done
        if done < len(data):
            if not self._unsent:
                self._loop.add_writer(self._socket, self._writable)
            left = memoryview(data)[done:]
            self._unsent.append(left if isinstance(data, bytes) else memoryview(bytes(left)))
            self._waiting += len(left)

    def offer(self, data: Buffer) -> None:
        """Write a whole packet that a network may lose: it is lost when too much waits already."""
        if self._waiting >= LOSE_AT:
            self.lost += 1
        else:
            self.send(data)

    def close(self) -> None:
        """End the connection after what was written; `on_closed` is not called for it."""
        if self._socket is None or self._is_closing:
            return
        if not self._unsent:
            self._release().close()
            self._on_ended(self, False)
            return
        self._is_closing = True
        self._loop.remove_reader(self._socket)
        self._limit = self._loop.call_later(CLOSE_LIMIT, self.abort)

    def abort(self) -> None:
        """End the connection at once; the other side is told by RST."""
        if self._socket is not None:
            reset(self._release())
            self._on_ended(self, False)

    def drop(self, reason: str) -> None:
        """The same, and `on_closed` is called with that reason."""
        on_closed = self._on_closed if self.is_open else None
        self.abort()
        if on_closed is not None:
            on_closed(reason)

    def _readable(self) -> None:
        assert self._socket is not None and self._on_receive is not None
        view = _landing.view
        try:
            size = self._socket.recv_into(view)
        except _NOTHING_YET:
            return
        except OSError as error:
            self._end(error)
            return
        if size:
            self._on_receive(view[:size])
        else:
            self._end(None)

    def _writable(self) -> None:
        assert self._socket is not None
        try:
            done = self._socket.sendmsg(islice(self._unsent, _PIECES))
        except _NOTHING_YET:
            return
        except OSError as error:
            self._end(error)
            return
        self._forget(done)
        self._see_rate(self._socket)
        if self._unsent:
            return
        self._loop.remove_writer(self._socket)
        if self._is_closing:
            self._release().close()
            self._on_ended(self, False)
        elif self._on_drained is not None:
            self._on_drained()

    def _forget(self, done: int) -> None:
        """The kernel took so many bytes."""
        self._waiting -= done
        self._taken += done
        while done:
            first = self._unsent.popleft()
            if done < len(first):
                self._unsent.appendleft(first[done:])
            done -= min(done, len(first))

    def _see_rate(self, sock: socket.socket) -> None:
        """Have the kernel ask for more early enough: when it has what leaves within a turn of the loop."""
        now = self._loop.time()
        if now < self._taken_since + _RATE_TIME:
            return
        rate = self._taken / (now - self._taken_since)
        self._taken, self._taken_since = 0, now
        limit = min(_MOST_UNSENT, max(_UNSENT_LIMIT, int(rate * _TURN)))
        if _NOTSENT_LOWAT is not None and not self._unsent_limit / 2 < limit < 2 * self._unsent_limit:
            self._unsent_limit = limit
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, limit)

    def _end_soon(self, error: OSError) -> None:
        """Not from within the caller's `send`."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self._end, error)

    def _end(self, error: OSError | None) -> None:
        if self._socket is None:
            return
        was_closing = self._is_closing
        self._release().close()
        self._on_ended(self, error is not None)
        if self._on_closed is not None and not was_closing:
            reason = (error.strerror or str(error)) if error is not None else ""
            self._on_closed(reason or "the other side closed the connection")

    def _release(self) -> socket.socket:
        sock, self._socket = self._socket, None
        if sock is None:
            raise UsageError("the connection has ended")
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)
        for handle in (self._soon, self._limit):
            if handle is not None:
                handle.cancel()
        self._unsent.clear()
        self._waiting = 0
        return sock


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Systems have these by other names, or not at all.
    for name, value in {**_KEEPALIVE, "TCP_NOTSENT_LOWAT": _UNSENT_LIMIT}.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if (option := getattr(socket, "TCP_CONGESTION", None)) is not None:
        with suppress(OSError):  # this kernel does not have it, or keeps it for others
            sock.setsockopt(socket.IPPROTO_TCP, option, _CONGESTION_CONTROL)
