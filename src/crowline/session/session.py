"""Streams that outlive any one link: offsets, acknowledgements and credit are the session's own.

Rules of this file
1. A link is an ordered, authenticated pipe that may die at any moment; what it carried and nobody
   acknowledged is sent again by the next one, and the receiver drops what it has already.
2. All streams flow by one link, the chosen one; the others stay warm.
3. A stream ends only when an end closes or resets it, never because a link died.
"""

from __future__ import annotations

from collections import deque

from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer
from crowline.session.buffers import SendBuffer
from crowline.session.events import (
    LinkChosen,
    SessionBroken,
    SessionClosed,
    SessionEvent,
    StreamDone,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamWritable,
)
from crowline.session.frames import (
    CREDIT,
    MAX_DATA,
    MAX_SENTENCE,
    FrameParser,
    Kind,
    close_frame,
    header,
    ping_frames,
)
from crowline.session.links import Carrier, Hints, LinkSet, LinkTransmit
from crowline.session.streams import StreamState, StreamTable

__all__ = ["WINDOW", "LinkTransmit", "Session"]

NO_HINTS = Hints()
# Bytes of one stream that may be on the way or unread, and so the bound on its memory: 16 MiB fill 100 MB/s
# over a round trip of 120 ms. Both sides count with it before the first WINDOW frame.
WINDOW = 16 << 20
# Received bytes after which an acknowledgement does not wait.
_ACKNOWLEDGE_EVERY = 512 * 1024
# Seconds that an acknowledgement may wait for more bytes to acknowledge (the delay QUIC allows itself).
_ACKNOWLEDGE_DELAY = 0.025


class Session:
    """One side of a session. Its `receive` takes a link's id where other machines take an address.

    `initiator` opens the even streams, the other side the odd ones.
    """

    def __init__(self, *, initiator: bool, window: int = WINDOW) -> None:
        self._window = window
        self._parsers: dict[int, FrameParser] = {}
        self._table = StreamTable(initiator=initiator, window=window)
        # Their round trips, what each has carried, and pings; links come and go by `attach` and `detach`.
        self.links = LinkSet(self._table.carriers)
        self._transmits: deque[LinkTransmit] = deque()
        self._events: deque[SessionEvent] = deque()
        self._unacknowledged: set[int] = set()
        self._acknowledge_at: float | None = None
        self._readable: set[int] = set()
        self._closing: tuple[int, bytes] | None = None
        self._closed = False
        self._now = 0.0

    # Links ------------------------------------------------------------------------------------------

    def attach(
        self,
        link: int,
        carrier: Carrier,
        rank: int,
        now: float,
        hints: Hints = NO_HINTS,
    ) -> None:
        """Use `carrier`, which is up, under the number `link`; a higher `rank` is preferred."""
        self._now = now
        self.links.add(link, carrier, rank, now, hints)
        self._parsers[link] = FrameParser(lambda *frame: self._handle(link, *frame))
        self._choose(now)

    def detach(self, link: int, now: float, reason: str = "the link ended") -> None:
        """The link is gone: what it carried and nobody acknowledged goes by another."""
        self._now = now
        if not self.links.remove(link):
            return
        self._parsers.pop(link, None)
        self._transmits = deque(t for t in self._transmits if t.link != link)
        self._table.rewind(link)
        self._choose(now, reason)

    def rerank(self, link: int, rank: int, merit: int, now: float) -> None:
        """The link is of another rank or merit than was thought when it was attached."""
        self._now = now
        if self.links.rerank(link, rank, merit):
            self._choose(now)

    @property
    def chosen(self) -> int | None:
        return self.links.chosen

    @property
    def is_closed(self) -> bool:
        """Whether either side has ended the session: no stream can be opened or written to."""
        return self._closed or self._closing is not None

    # Streams ----------------------------------------------------------------------------------------

    def open_stream(self) -> int:
        """A new stream; the other side hears of it at once. Raises `UsageError` for one too many."""
        self._check_open()
        stream = self._table.open()
        self._control(header(Kind.DATA, stream, 0))
        return stream

    def write(self, stream: int, data: Buffer) -> None:
        """Append bytes that must not change afterwards. Raises `UsageError` after `finish` or `reset`."""
        self._check_open()
        sending = self._stream(stream).sending
        if sending.finished:
            raise UsageError("That stream's sending side is finished.")
        sending.write(data)

    def unsent(self, stream: int) -> int:
        """Bytes written and not yet given to a link: the measure of back-pressure."""
        known = self._table.get(stream)
        return known.sending.unsent if known else 0

    def finish(self, stream: int) -> None:
        """End our direction after what was written."""
        if known := self._table.get(stream):
            known.sending.finished = True

    def is_finished(self, stream: int) -> bool:
        """Whether our direction was ended."""
        known = self._table.get(stream)
        return known is None or known.sending.finished

    def is_delivered(self, stream: int) -> bool:
        """Whether the other side has acknowledged everything, the end included."""
        known = self._table.get(stream)
        return known is None or known.sending.done

    def reset(self, stream: int, code: int = 0) -> None:
        """Give the stream up in both directions."""
        if self._table.get(stream) is not None:
            self._drop(stream)
            self._table.resets[stream] = code
            self._control(header(Kind.RESET, stream, code))

    def read(self, stream: int, limit: int) -> Buffer:
        """At most `limit` bytes in order; empty when none are there now, or the end was reached."""
        known = self._table.get(stream)
        if known is None:
            return b""
        data = known.receiving.read(limit)
        if known.receiving.credit - known.told_credit >= self._window // 4:
            self._tell_window(stream, known)
        if known.receiving.ended:
            self._forget_if_over(stream)
        return data

    def is_ended(self, stream: int) -> bool:
        """Whether the other side's direction has been read to its end."""
        known = self._table.get(stream)
        return known is None or known.receiving.ended

    def close(self, code: int, sentence: str) -> None:
        """Tell the other side why the session ends; it is sent with the next transmits."""
        if self._closing is None and not self._closed:
            self._closing = (code, sentence.encode()[:MAX_SENTENCE])
            self._control(close_frame(*self._closing))

    # The five verbs ---------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: int, now: float, local: None = None) -> None:
        """Bytes that came by the link `source`."""
        self._now = now
        parser = self._parsers.get(source)
        if parser is None or self._closed:
            return
        try:
            parser.feed(data)
        except MalformedMessage as error:
            self._break(error.message)
        if self.links.is_ailing(source):
            self._choose(now)

    def handle_timeout(self, now: float) -> None:
        self._now = now
        if self._acknowledge_at is not None and now >= self._acknowledge_at:
            self._acknowledge()
        for link, token, is_full in self.links.due_pings(now):
            self._transmits.append(LinkTransmit(link, ping_frames(token, is_full=is_full)))
        self._choose(now)

    def next_timeout(self) -> float | None:
        times = [t for t in (self._acknowledge_at, self.links.next_timeout()) if t is not None]
        return min(times, default=None)

    def next_transmit(self) -> LinkTransmit | None:
        """Control frames first, then stream bytes as far as the chosen link has room."""
        if self._transmits:
            return self._transmits.popleft()
        link = self.links.chosen
        if link is None or self._closed or self._closing is not None:
            return None
        room = self.links.room(link)
        if room <= 0:
            return None
        ready = self._table.next_ready()
        if ready is None:
            return None
        stream, known = ready
        return self._stream_frame(stream, known.sending, min(room, MAX_DATA), link)

    def next_event(self) -> SessionEvent | None:
        if self._events:
            return self._events.popleft()
        if self._readable:
            return StreamReadable(self._readable.pop())
        return None

    # Sending ----------------------------------------------------------------------------------------

    def _stream_frame(self, stream: int, sending: SendBuffer, limit: int, link: int) -> LinkTransmit:
        offset, data, fin = sending.take(limit, link)
        self.links.gave(link, len(data), self._now)
        head = header(Kind.FIN if fin else Kind.DATA, stream, offset, len(data))
        self._events.append(StreamWritable(stream))
        return LinkTransmit(link, (head, data) if len(data) else (head,))

    def _control(self, frame: bytes) -> None:
        """Send by the chosen link; without one, `_resend_control` says it again later."""
        if self.links.chosen is not None:
            self._transmits.append(LinkTransmit(self.links.chosen, (frame,)))

    def _tell_window(self, stream: int, known: StreamState) -> None:
        known.told_contiguous = known.receiving.contiguous
        known.told_credit = known.receiving.credit
        self._unacknowledged.discard(stream)
        frame = header(Kind.WINDOW, stream, known.told_contiguous, CREDIT.size)
        self._control(frame + CREDIT.pack(known.told_credit))

    def _acknowledge(self) -> None:
        self._acknowledge_at = None
        for stream in list(self._unacknowledged):
            known = self._table.get(stream)
            if known is not None:
                self._tell_window(stream, known)
        self._unacknowledged.clear()

    def _choose(self, now: float, reason: str = "") -> None:
        change = self.links.choose(now)
        for link in self.links.abandon(now):
            self._table.rewind(link)
        if change is None:
            return
        was, why = change
        self._events.append(LinkChosen(self.links.chosen, was, reason or why))
        self._resend_control()

    def _resend_control(self) -> None:
        """State that the previous link may have swallowed; each of these frames may be told twice."""
        for stream, code in self._table.resets.items():
            self._control(header(Kind.RESET, stream, code))
        for stream, known in self._table:
            if self._table.is_local(stream) and not known.sending.acknowledged:
                self._control(header(Kind.DATA, stream, 0))
            self._tell_window(stream, known)
        if self._closing is not None:
            self._control(close_frame(*self._closing))

    # Receiving --------------------------------------------------------------------------------------

    def _handle(self, link: int, kind: Kind, stream: int, offset: int, payload: memoryview) -> None:
        if self._closed:
            return
        if kind in (Kind.DATA, Kind.FIN):
            self._on_data(link, stream, offset, payload, kind is Kind.FIN)
        elif kind is Kind.WINDOW:
            self._on_window(stream, offset, payload)
        elif kind is Kind.RESET:
            self._on_reset(link, stream, offset)
        elif kind is Kind.RESET_ACK:
            self._table.resets.pop(stream, None)
        elif kind is Kind.PING:
            pong = header(Kind.PONG, 0, offset, len(payload)) + bytes(payload)
            self._transmits.append(LinkTransmit(link, (pong,)))
        elif kind is Kind.PONG:
            self.links.pong(link, offset, self._now)
            self._choose(self._now)
        else:
            self._closed = True
            if self._closing is None:
                # Say it back, so that the side that closed knows it was heard.
                self._transmits.append(LinkTransmit(link, (close_frame(offset, b""),)))
            sentence = bytes(payload).decode(errors="replace")
            self._events.append(SessionClosed(offset if offset < 256 else 1, sentence))

    def _on_data(self, link: int, stream: int, offset: int, payload: memoryview, fin: bool) -> None:
        known = self._known(stream)
        if known is None:
            if not self._closed and stream not in self._table.resets:
                # The stream is over here, so the other side missed the last acknowledgement.
                end = offset + len(payload) + fin
                self._control(header(Kind.WINDOW, stream, end, CREDIT.size) + CREDIT.pack(end))
            return
        self.links.received[link] += len(payload)
        if not known.receiving.insert(offset, payload, fin):
            self._break("stream bytes outside what was granted")
            return
        if known.receiving.readable or known.receiving.ended:
            self._readable.add(stream)
        if fin or known.receiving.contiguous - known.told_contiguous >= _ACKNOWLEDGE_EVERY:
            self._tell_window(stream, known)
            self._forget_if_over(stream)
            return
        self._unacknowledged.add(stream)
        if self._acknowledge_at is None:
            self._acknowledge_at = self._now + _ACKNOWLEDGE_DELAY

    def _on_window(self, stream: int, offset: int, payload: memoryview) -> None:
        known = self._table.get(stream)
        if known is None or len(payload) != CREDIT.size:
            return
        before = known.sending.acknowledged
        if not known.sending.acknowledge(offset):
            self._break("an acknowledgement of bytes that were never sent")
            return
        if offset > before:
            self.links.progressed(self._now)
        known.sending.credit = max(known.sending.credit, CREDIT.unpack(payload)[0])
        self._events.append(StreamWritable(stream))
        self._forget_if_over(stream)

    def _on_reset(self, link: int, stream: int, code: int) -> None:
        if self._known(stream) is not None:
            self._drop(stream)
            self._events.append(StreamReset(stream, code))
        self._table.resets.pop(stream, None)
        if not self._closed:
            self._transmits.append(LinkTransmit(link, (header(Kind.RESET_ACK, stream, 0),)))

    def _known(self, stream: int) -> StreamState | None:
        """The stream; opened on its first frame, together with every earlier one still unheard of."""
        if not self._table.is_local(stream):
            self._events.extend(StreamOpened(opened) for opened in self._table.accept(stream))
        if self._table.is_to_come(stream):
            is_ours = self._table.is_local(stream)
            self._break("a stream that was never opened" if is_ours else "more streams than may be open")
        return self._table.get(stream)

    def _forget_if_over(self, stream: int) -> None:
        known = self._table.get(stream)
        if known is not None and known.over:
            self._tell_window(stream, known)
            self._drop(stream)
            self._events.append(StreamDone(stream))

    def _drop(self, stream: int) -> None:
        self._table.drop(stream)
        self._readable.discard(stream)
        self._unacknowledged.discard(stream)

    def _break(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._events.append(SessionBroken(reason))

    def _stream(self, stream: int) -> StreamState:
        known = self._table.get(stream)
        if known is None:
            raise UsageError("That stream is closed.")
        return known

    def _check_open(self) -> None:
        if self.is_closed:
            raise UsageError("The session is closed.")
