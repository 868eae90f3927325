"""Streams and datagrams that outlive any one link: offsets, acknowledgements and credit are its own.

Rules of this file
1. A link is an ordered, authenticated pipe that may die at any moment; what it carried and nobody
   acknowledged is sent again by the next one, and the receiver drops what it has already.
2. All streams flow by one link, the chosen one; the others stay warm.
3. A stream ends only when an end closes or resets it, never because a link died, nor because there is none.
4. Whatever the other side does, what is kept of its bytes is bounded by `windows.py`, and what is kept for it
   by `MAX_IN_FLIGHT` and by what the user writes although `unsent` grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from crowline.base.errors import MalformedMessage, ProtocolViolation, UsageError
from crowline.base.machine import Buffer
from crowline.session.bulk_route import WISH_INTERVAL
from crowline.session.datagrams import DatagramQueue
from crowline.session.events import (
    DatagramReceived,
    LinkChosen,
    LinkSought,
    SessionBroken,
    SessionClosed,
    SessionEvent,
)
from crowline.session.frames import (
    MAX_DATA,
    MAX_DATAGRAM,
    MAX_SENTENCE,
    FrameParser,
    Kind,
    close_frame,
    header,
    ping_frames,
)
from crowline.session.links import Carrier, Hints, LinkSet, LinkTransmit
from crowline.session.multiplexer import Multiplexer
from crowline.session.pace import Pacing
from crowline.session.windows import LARGEST

__all__ = ["LinkTransmit", "Session"]

NO_HINTS = Hints()


class Session:
    """One side of a session. Its `receive` takes a link's id where other machines take an address.

    `initiator` opens the even streams, the other side the odd ones. `window`: bytes of one stream that may be
    on the way or unread at most; both sides have the same.
    """

    def __init__(self, *, initiator: bool, window: int = LARGEST) -> None:
        self._parsers: dict[int, FrameParser] = {}
        self._transmits: deque[LinkTransmit] = deque()
        self._events: deque[SessionEvent] = deque()
        self._streams = Multiplexer(
            initiator=initiator,
            window=window,
            control=self._control,
            acknowledge=self._acknowledge,
            events=self._events,
        )
        # Their round trips, what each has carried, and pings; links come and go by `attach` and `detach`.
        self.links = LinkSet(self._streams.carriers, self._streams)
        self._datagrams = DatagramQueue()
        self._pacing = Pacing()
        # Links beside the chosen one by which the other side was told what has arrived.
        self._told_by: set[int] = set()
        self._closing: tuple[int, bytes] | None = None
        self._closed = False
        self._now = 0.0
        self._sought_at = float("-inf")

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
        if not self.links.remove(link, now):
            return
        self._parsers.pop(link, None)
        self._transmits = deque(t for t in self._transmits if t.link != link)
        self._streams.rewind(link)
        self._choose(now, reason)
        self._doubt_told_by((link,))

    def rerank(self, link: int, rank: int, merit: int, now: float) -> None:
        """The link is of another rank or merit than was thought when it was attached."""
        self._now = now
        if self.links.rerank(link, rank, merit):
            self._choose(now)

    @property
    def chosen(self) -> int | None:
        return self.links.chosen

    @property
    def unheard_since(self) -> float | None:
        """Since when every link has been silent or stuck, or there has been none; None while one works."""
        return self.links.unheard_since

    @property
    def is_closed(self) -> bool:
        """Whether either side has ended the session: no stream can be opened or written to."""
        return self._closed or self._closing is not None

    # Streams ----------------------------------------------------------------------------------------

    def may_open_stream(self) -> bool:
        """Whether the other side takes one more; when it does again, `StreamsAllowed` says so."""
        return self._streams.may_open()

    def open_stream(self) -> int:
        """A new stream; the other side hears of it at once. Raises `UsageError` for one too many."""
        self._check_open()
        return self._streams.open(self._now)

    def write(self, stream: int, data: Buffer) -> None:
        """Append bytes that must not change afterwards. Raises `UsageError` after `finish` or `reset`."""
        self._check_open()
        self._streams.write(stream, data)

    def unsent(self, stream: int) -> int:
        """Bytes written and not yet given to a link: the measure of back-pressure."""
        return self._streams.unsent(stream)

    def finish(self, stream: int) -> None:
        """End our direction after what was written."""
        self._streams.finish(stream)

    def is_finished(self, stream: int) -> bool:
        """Whether our direction was ended."""
        return self._streams.is_finished(stream)

    def is_delivered(self, stream: int) -> bool:
        """Whether the other side has acknowledged everything, the end included."""
        return self._streams.is_delivered(stream)

    def reset(self, stream: int, code: int = 0) -> None:
        """Give the stream up in both directions."""
        self._streams.reset(stream, code)

    def read(self, stream: int, limit: int, now: float | None = None) -> Buffer:
        """At most `limit` bytes in order; empty when none are there now, or the end was reached."""
        return self._streams.read(stream, limit, self._now if now is None else now, self.links.idle_rtt)

    def is_ended(self, stream: int) -> bool:
        """Whether the other side's direction has been read to its end."""
        return self._streams.is_ended(stream)

    def close(self, code: int, sentence: str) -> None:
        """Tell the other side why the session ends; it is sent with the next transmits."""
        if self._closing is None and not self._closed:
            self._closing = (code, sentence.encode()[:MAX_SENTENCE])
            self._control(close_frame(*self._closing))

    @property
    def has_news(self) -> bool:
        """Whether there is a control frame to send or an event to take: after a `read` there seldom is."""
        return bool(self._transmits or self._events)

    # Datagrams --------------------------------------------------------------------------------------

    @property
    def packet_size(self) -> int:
        """Bytes of a datagram that travels as a packet of its own now; larger ones share a link's stream."""
        carrier = self.links.datagram_carrier
        return 0 if carrier is None else carrier.max_datagram_size

    @property
    def datagrams_lost(self) -> int:
        """Datagrams of this side that no link had room for."""
        return self._datagrams.lost

    def send_datagram(self, data: Buffer) -> None:
        """Send it once, by whatever link there is at its turn. Raises `UsageError` for one too large."""
        self._check_open()
        if len(data) > MAX_DATAGRAM:
            raise UsageError(f"A datagram has {MAX_DATAGRAM:,} bytes at most.")
        self._datagrams.append(data)

    def receive_datagram(self, data: Buffer, source: int, now: float) -> None:
        """A datagram that came by the link `source` as a packet of its own."""
        self._now = now
        if source in self._parsers and not self._closed:
            self._events.append(DatagramReceived(bytes(data)))

    def limit(self, rate: int) -> None:
        """Send no more than `rate` bytes of streams and datagrams a second, and ask the other side for the
        same. Datagrams never wait: streams make up for them."""
        self._pacing.limit(rate, self._now)
        self._ask_pace()

    # The five verbs ---------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: int, now: float, local: None = None) -> None:
        """Bytes that came by the link `source`."""
        self._now = now
        parser = self._parsers.get(source)
        if parser is None or self._closed:
            return
        try:
            parser.feed(data)
        except (MalformedMessage, ProtocolViolation) as error:
            self._break(error.message)
        if self.links.is_ailing(source):
            self._choose(now)

    def handle_timeout(self, now: float) -> None:
        self._now = now
        self._streams.handle_timeout(now)
        self._pacing.handle_timeout(now)
        for link, token, is_full in self.links.due_pings(now):
            self._transmits.append(LinkTransmit(link, ping_frames(token, is_full=is_full)))
        self._choose(now)

    def next_timeout(self) -> float | None:
        times = (self._streams.next_timeout(), self.links.next_timeout(), self._pacing.next_timeout())
        return min((at for at in times if at is not None), default=None)

    def next_transmit(self) -> LinkTransmit | None:
        """Control frames first, then datagrams, then stream bytes as far as a link has room."""
        if self._transmits:
            return self._transmits.popleft()
        if self._closed or self._closing is not None:
            return None
        outlet = self.links.outlet()
        if len(self._datagrams) and (transmit := self._next_datagram(outlet)) is not None:
            return transmit
        if outlet is None:
            return None
        link, room = outlet
        room = self._pacing.room(min(room, MAX_DATA), self._now)
        if not room or (frame := self._streams.next_frame(room, link)) is None:
            return None
        self._pacing.spend(len(frame[1]))
        self.links.gave(link, len(frame[1]), self._now)
        return LinkTransmit(link, frame if len(frame[1]) else frame[:1])

    def next_event(self) -> SessionEvent | None:
        return self._events.popleft() if self._events else self._streams.next_readable()

    # Sending ----------------------------------------------------------------------------------------

    def _next_datagram(self, outlet: tuple[int, int] | None) -> LinkTransmit | None:
        """Have the link send what fits its packets; what does not is a frame, as soon as there is any room:
        stream bytes would take it before it was enough.
        """
        if self.links.chosen is None:
            self._datagrams.clear()
        carrier = self.links.datagram_carrier
        while len(self._datagrams):
            data = self._datagrams.first()
            if carrier is not None and len(data) <= carrier.max_datagram_size:
                self._pacing.spend(len(data))
                self._datagrams.lost += not carrier.send_datagram(self._datagrams.popleft(), self._now)
            elif outlet is None:
                return None
            else:
                self._pacing.spend(len(data))
                self._datagrams.popleft()
                return LinkTransmit(outlet[0], (header(Kind.DATAGRAM, 0, 0, len(data)), data))
        return None

    def _control(self, frame: bytes) -> None:
        """Send by the chosen link; without one, it is said again when there is one."""
        if self.links.chosen is not None:
            self._transmits.append(LinkTransmit(self.links.chosen, (frame,)))

    def _acknowledge(self, frame: bytes) -> None:
        if (link := self.links.answering) is not None:
            self._transmits.append(LinkTransmit(link, (frame,)))
            if link != self.links.chosen:
                self._told_by.add(link)

    def _doubt_told_by(self, links: Collection[int]) -> None:
        """Those links may have swallowed what was said by them."""
        if not self._told_by.isdisjoint(links):
            self._told_by.difference_update(links)
            self._streams.retell()

    def _ask_pace(self) -> None:
        if self._pacing.wish is not None:
            self._control(header(Kind.PACE, 0, self._pacing.wish))

    def _choose(self, now: float, reason: str = "") -> None:
        change = self.links.choose(now)
        left = self.links.abandon(now)
        for link in left:
            self._streams.rewind(link)
        self._doubt_told_by(left)
        if self.links.bulk.take_wish():
            self._control(header(Kind.SEEK, 0, 0))
            self._seek()
        if change is None:
            return
        was, why = change
        self._events.append(LinkChosen(self.links.chosen, was, reason or why))
        self._streams.retell()
        self._ask_pace()
        if self._closing is not None:
            self._control(close_frame(*self._closing))

    # Receiving --------------------------------------------------------------------------------------

    def _handle(self, link: int, kind: Kind, stream: int, offset: int, payload: memoryview) -> None:
        if self._closed:
            return
        if kind in (Kind.DATA, Kind.FIN):
            self.links.took(link, len(payload), self._now)
            self._streams.on_data(stream, offset, payload, kind is Kind.FIN, self._now)
        elif kind is Kind.WINDOW:
            before = self._streams.in_flight
            if self._streams.on_window(stream, offset, payload, self._now):
                self.links.progressed(before - self._streams.in_flight, self._now)
        elif kind is Kind.RESET:
            self._streams.on_reset(stream, offset, self._now)
            self._transmits.append(LinkTransmit(link, (header(Kind.RESET_ACK, stream, 0),)))
        elif kind is Kind.RESET_ACK:
            self._streams.on_reset_heard(stream, self._now)
        elif kind is Kind.STREAMS:
            self._streams.on_streams(offset)
        elif kind is Kind.PACE:
            self._pacing.asked(offset, self._now)
        elif kind is Kind.DATAGRAM:
            self._events.append(DatagramReceived(bytes(payload)))
        elif kind is Kind.SEEK:
            self._seek()
        elif kind is Kind.PING:
            pong = header(Kind.PONG, 0, offset, len(payload)) + bytes(payload)
            self._transmits.append(LinkTransmit(link, (pong,)))
        elif kind is Kind.PONG:
            self.links.pong(link, offset, self._now)
            self._choose(self._now)
        else:
            self._on_close(link, offset, payload)

    def _seek(self) -> None:
        """Either side would have another link for bulk; it is not told of more often than it makes sense."""
        if self._now >= self._sought_at + WISH_INTERVAL / 2:
            self._sought_at = self._now
            self._events.append(LinkSought())

    def _on_close(self, link: int, code: int, payload: memoryview) -> None:
        self._closed = True
        if self._closing is None:
            # Say it back, so that the side that closed knows it was heard.
            self._transmits.append(LinkTransmit(link, (close_frame(code, b""),)))
        sentence = bytes(payload).decode(errors="replace")
        self._events.append(SessionClosed(code if code < 256 else 1, sentence))

    def _break(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._events.append(SessionBroken(reason))

    def _check_open(self) -> None:
        if self.is_closed:
            raise UsageError("The session is closed.")
