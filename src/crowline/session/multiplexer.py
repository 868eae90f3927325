"""All streams of a session: what is written, sent, acknowledged, received and read, by whichever link."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from crowline.base.errors import ProtocolViolation, UsageError
from crowline.base.machine import Buffer
from crowline.session.acknowledgements import Acknowledgements
from crowline.session.events import (
    SessionEvent,
    StreamDone,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamsAllowed,
    StreamWritable,
)
from crowline.session.frames import CREDIT, Kind, header
from crowline.session.streams import StreamState, StreamTable
from crowline.session.windows import Windows

# Bytes of all streams kept for sending again, whatever credit the other side grants: what a session of this
# kind grants at most, and a bound on what it can make this side remember by never acknowledging.
MAX_IN_FLIGHT = 48 << 20


class BrokenRule(ProtocolViolation):
    """The other side did what no session does."""


class Multiplexer:
    """What a session keeps of its streams.

    `control` sends a frame that need not wait, `acknowledge` one that says what has arrived. Both may get
    lost with a link, and `retell` repeats all that matters. What `on_…` methods are told is from the other
    side: they raise `BrokenRule`.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        window: int,
        control: Callable[[bytes], None],
        acknowledge: Callable[[bytes], None],
        events: deque[SessionEvent],
    ) -> None:
        self._windows = Windows(window)
        self._table = StreamTable(initiator=initiator, windows=self._windows)
        self._acknowledgements = Acknowledgements()
        self._control = control
        self._acknowledge = acknowledge
        self._events = events
        self._readable: set[int] = set()
        # Links that carry what each stream's other end waits for.
        self.carriers = self._table.carriers
        self.rewind = self._table.rewind
        self.may_open = self._table.may_open

    # What the user does -----------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Bytes of all streams that links were given and nobody has acknowledged."""
        return self._table.in_flight

    @property
    def waits_for_path(self) -> bool:
        """Whether a stream waits for credit although its reader keeps up."""
        return any(known.sending.waits_for_path() for _, known in self._table)

    def open(self, now: float) -> int:
        stream = self._table.open(now)
        self._control(header(Kind.DATA, stream, 0))
        return stream

    def write(self, stream: int, data: Buffer) -> None:
        known = self._table.get(stream)
        if known is None:
            raise UsageError("That stream is closed.")
        if known.sending.finished:
            raise UsageError("That stream's sending side is finished.")
        known.sending.write(data)
        self._table.activate(stream)

    def unsent(self, stream: int) -> int:
        known = self._table.get(stream)
        return known.sending.unsent if known else 0

    def finish(self, stream: int) -> None:
        if known := self._table.get(stream):
            known.sending.finished = True
            self._table.activate(stream)

    def is_finished(self, stream: int) -> bool:
        known = self._table.get(stream)
        return known is None or known.sending.finished

    def is_delivered(self, stream: int) -> bool:
        known = self._table.get(stream)
        return known is None or known.sending.done

    def is_ended(self, stream: int) -> bool:
        known = self._table.get(stream)
        return known is None or known.receiving.ended

    def reset(self, stream: int, code: int) -> None:
        if self._table.reset(stream, code):
            self._unlist(stream)
            self._control(header(Kind.RESET, stream, code))

    def read(self, stream: int, limit: int, now: float, idle_rtt: Callable[[], float | None]) -> Buffer:
        known = self._table.get(stream)
        if known is None:
            return b""
        data = known.receiving.read(limit)
        self._windows.consumed(known.receiving, known.reading, now, idle_rtt)
        if known.receiving.credit - known.told_credit >= known.receiving.window // 4:
            self._tell_window(stream, known)
        if known.receiving.ended:
            self._forget_if_over(stream, now)
        return data

    # What a session does ----------------------------------------------------------------------------

    def next_frame(self, limit: int, link: int) -> tuple[bytes, Buffer] | None:
        """The header and at most `limit` bytes of the stream whose turn it is, for `link`."""
        if self._table.in_flight >= MAX_IN_FLIGHT:
            return None
        ready = self._table.next_ready()
        if ready is None:
            return None
        stream, known = ready
        offset, data, fin = known.sending.take(limit, link)
        self._table.count(known)
        self._events.append(StreamWritable(stream))
        return header(Kind.FIN if fin else Kind.DATA, stream, offset, len(data)), data

    def next_readable(self) -> StreamReadable | None:
        return StreamReadable(self._readable.pop()) if self._readable else None

    def handle_timeout(self, now: float) -> None:
        """Acknowledge what has waited for that."""
        if (streams := self._acknowledgements.due(now)) is None:
            return
        for stream in streams:
            known = self._table.get(stream)
            if known is not None:
                self._tell_window(stream, known)
        if self._table.grant_is_due:
            self._grant()

    def next_timeout(self) -> float | None:
        return self._acknowledgements.next_timeout()

    def retell(self) -> None:
        """Say what a lost link may have swallowed; each of these frames may be told twice."""
        for stream, code in self._table.resets.items():
            self._control(header(Kind.RESET, stream, code))
        for stream, known in self._table:
            if self._table.is_local(stream) and not known.sending.acknowledged:
                self._control(header(Kind.DATA, stream, 0))
            self._tell_window(stream, known, self._control)
        self._grant()

    # What the other side does -----------------------------------------------------------------------

    def on_data(self, stream: int, offset: int, payload: memoryview, fin: bool, now: float) -> None:
        known = self._known(stream, now)
        if known is None:
            if stream not in self._table.resets:
                # The stream is over here, so the other side missed the last acknowledgement.
                end = offset + len(payload) + fin
                self._control(header(Kind.WINDOW, stream, end, CREDIT.size) + CREDIT.pack(end))
            return
        if not known.receiving.insert(offset, payload, fin):
            raise BrokenRule("stream bytes outside what was granted")
        if known.receiving.readable or known.receiving.ended:
            self._readable.add(stream)
        if self._acknowledgements.arrived(stream, known, now) or fin:
            self._tell_window(stream, known)
            self._forget_if_over(stream, now)

    def on_window(self, stream: int, offset: int, payload: memoryview, now: float) -> bool:
        """Whether more has arrived than was known."""
        known = self._table.get(stream)
        if known is None or len(payload) != CREDIT.size:
            return False
        before = known.sending.acknowledged
        if not known.sending.acknowledge(offset):
            raise BrokenRule("an acknowledgement of bytes that were never sent")
        known.sending.credit = max(known.sending.credit, CREDIT.unpack(payload)[0])
        self._table.count(known)
        self._table.activate(stream)
        self._events.append(StreamWritable(stream))
        self._forget_if_over(stream, now)
        return offset > before

    def on_reset(self, stream: int, code: int, now: float) -> None:
        """It is to be answered."""
        if self._known(stream, now) is not None:
            self._drop(stream, now)
            self._events.append(StreamReset(stream, code))
        self.on_reset_heard(stream, now)

    def on_reset_heard(self, stream: int, now: float) -> None:
        self._free(lambda: self._table.reset_heard(stream))
        self._grant_soon(now)

    def on_streams(self, granted: int) -> None:
        self._free(lambda: self._table.allow(granted))

    # ------------------------------------------------------------------------------------------------

    def _tell_window(
        self, stream: int, known: StreamState, send: Callable[[bytes], None] | None = None
    ) -> None:
        known.told_contiguous = known.receiving.contiguous
        known.told_credit = known.receiving.credit
        self._acknowledgements.told(stream)
        frame = header(Kind.WINDOW, stream, known.told_contiguous, CREDIT.size)
        (send or self._acknowledge)(frame + CREDIT.pack(known.told_credit))

    def _grant(self) -> None:
        """Say how many streams the other side may open."""
        self._control(header(Kind.STREAMS, 0, self._table.tell_grant()))

    def _known(self, stream: int, now: float) -> StreamState | None:
        """The stream; opened on its first frame, together with every earlier one still unheard of."""
        if not self._table.is_local(stream):
            self._events.extend(StreamOpened(opened) for opened in self._table.accept(stream, now))
        if self._table.is_to_come(stream):
            is_ours = self._table.is_local(stream)
            raise BrokenRule("a stream that was never opened" if is_ours else "more streams than may be open")
        return self._table.get(stream)

    def _forget_if_over(self, stream: int, now: float) -> None:
        known = self._table.get(stream)
        if known is not None and known.over:
            self._tell_window(stream, known)
            self._drop(stream, now)
            self._events.append(StreamDone(stream))

    def _drop(self, stream: int, now: float) -> None:
        self._unlist(stream)
        self._free(lambda: self._table.drop(stream))
        self._grant_soon(now)

    def _grant_soon(self, now: float) -> None:
        """A stream of the other side may have been forgotten: it may open another."""
        if self._table.grant_is_urgent:
            self._grant()
        elif self._table.grant_is_due:
            self._acknowledgements.wait(now)

    def _unlist(self, stream: int) -> None:
        """Nothing more is said of the stream."""
        self._readable.discard(stream)
        self._acknowledgements.told(stream)

    def _free(self, change: Callable[[], object]) -> None:
        """Make a change after which this side may open streams again, perhaps."""
        could = self._table.may_open()
        change()
        if not could and self._table.may_open():
            self._events.append(StreamsAllowed())
