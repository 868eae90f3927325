"""A client's stream and a peer's connection with nothing between them any more (RFC 6062 §5.4).

Each direction has two bounded buffers, one in the transport that is written and one in the kernel; while the
first is full, or while the user's bandwidth is used up, the other side is not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from crowline.server.stream_client import HIGH_WATER, StreamClient

GOODBYE_TIME = 10.0  # seconds for what is still to be written when the other side has ended

_OPENING = "opening"
_FULL = "full"
_RATE = "rate"


class Splice:
    """`take(size)` charges bytes that were moved, and says how long to wait before the next ones.

    `ended()` is called once, when either side is over.
    """

    def __init__(self, client: StreamClient, take: Callable[[int], float], ended: Callable[[], None]) -> None:
        self._client = client
        self._take = take
        self._ended = ended
        self._is_over = False
        self._early = b""
        self._peer: asyncio.Transport | None = None
        self._to_peer: _Flow | None = None
        self._to_client: _Flow | None = None

    def prepare(self) -> None:
        """Read no more of the client until there is somebody to give it to."""
        self._early = self._client.become_raw(_ClientEnd(self))
        if not self._client.transport.is_closing():
            self._client.transport.pause_reading()

    def start(self, peer: asyncio.Transport) -> None:
        """The peer's connection has its transport: let bytes flow."""
        client = self._client.transport
        peer.set_write_buffer_limits(HIGH_WATER)
        self._peer = peer
        self._to_peer = _Flow(client, peer, self._take)
        self._to_client = _Flow(peer, client, self._take)
        if self._is_over:
            _close_soon(peer)
            return
        self._to_peer.hold(_OPENING)
        if self._early:
            self._to_peer.move(self._early)
        self._to_peer.release(_OPENING)
        if self._client.is_full:
            self._to_client.hold(_FULL)

    def hang_up(self) -> None:
        """Close both sides; what was read already is still delivered."""
        self._is_over = True
        _close_soon(self._client.transport)
        if self._peer is not None:
            _close_soon(self._peer)

    def abort(self) -> None:
        """End both sides at once."""
        self._is_over = True
        self._client.transport.abort()
        if self._peer is not None:
            self._peer.abort()

    # --- from the two sides -----------------------------------------------------------------------------

    def move(self, data: bytes, *, to_peer: bool) -> None:
        flow = self._to_peer if to_peer else self._to_client
        if flow is not None and not self._is_over:
            flow.move(data)

    def hold(self, *, to_peer: bool) -> None:
        flow = self._to_peer if to_peer else self._to_client
        if flow is not None:
            flow.hold(_FULL)

    def release(self, *, to_peer: bool) -> None:
        flow = self._to_peer if to_peer else self._to_client
        if flow is not None:
            flow.release(_FULL)

    def finish(self, *, to_peer: bool) -> bool:
        """One side has sent everything. Whether the connection stays for the other direction."""
        flow, back = (self._to_peer, self._to_client) if to_peer else (self._to_client, self._to_peer)
        if flow is None or back is None or self._is_over:
            return False
        return flow.finish() and not back.is_finished

    def lost(self) -> None:
        if not self._is_over:
            self.hang_up()
            self._ended()


class PeerEnd(asyncio.Protocol):
    """The peer's connection."""

    def __init__(self, splice: Splice) -> None:
        self._splice = splice

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._splice.start(transport)

    def data_received(self, data: bytes) -> None:
        self._splice.move(data, to_peer=False)

    def eof_received(self) -> bool:
        return self._splice.finish(to_peer=False)

    def pause_writing(self) -> None:
        self._splice.hold(to_peer=True)

    def resume_writing(self) -> None:
        self._splice.release(to_peer=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._splice.lost()


class _ClientEnd:
    """The client's stream: implements `stream_client.RawEnd`."""

    def __init__(self, splice: Splice) -> None:
        self._splice = splice

    def data_received(self, data: bytes) -> None:
        self._splice.move(data, to_peer=True)

    def eof_received(self) -> bool:
        return self._splice.finish(to_peer=True)

    def pause_writing(self) -> None:
        self._splice.hold(to_peer=False)

    def resume_writing(self) -> None:
        self._splice.release(to_peer=False)

    def connection_lost(self) -> None:
        self._splice.lost()


class _Flow:
    """One direction: from whom it reads, to whom it writes, and why it does not read just now."""

    def __init__(
        self, source: asyncio.Transport, target: asyncio.Transport, take: Callable[[int], float]
    ) -> None:
        self.is_finished = False
        self._source = source
        self._target = target
        self._take = take
        self._reasons: set[str] = set()

    def move(self, data: bytes) -> None:
        if self._target.is_closing():
            return
        self._target.write(data)
        wait = self._take(len(data))
        if wait > 0:
            self.hold(_RATE)
            asyncio.get_running_loop().call_later(wait, self.release, _RATE)

    def hold(self, reason: str) -> None:
        self._reasons.add(reason)
        if not self._source.is_closing():
            self._source.pause_reading()

    def release(self, reason: str) -> None:
        self._reasons.discard(reason)
        if not self._reasons and not self._source.is_closing():
            self._source.resume_reading()

    def finish(self) -> bool:
        """Tell the other side that nothing more comes; False if it cannot be told without closing."""
        self.is_finished = True
        if self._target.is_closing() or not self._target.can_write_eof():
            return False
        self._target.write_eof()
        return True


def _close_soon(transport: asyncio.Transport) -> None:
    """Close when everything is written, or when that takes too long."""
    if not transport.is_closing():
        transport.close()
    asyncio.get_running_loop().call_later(GOODBYE_TIME, transport.abort)
