"""The streams of a session: which are open, how many there may be, and whose turn it is to send."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from crowline.base.errors import UsageError
from crowline.session.buffers import ReceiveBuffer, SendBuffer
from crowline.session.windows import Reading, Windows

# Streams that either side may have open at once.
MAX_STREAMS = 128
# Streams of the other side that may have ended before it is told that it may open as many more.
_TELL_EVERY = MAX_STREAMS // 4
# Numbers of streams are 32 bits.
_END_OF_NUMBERS = 1 << 32


class StreamState:
    """Both directions of one stream, and what the other side was last told of ours."""

    def __init__(self, window: int, now: float) -> None:
        self.sending = SendBuffer(window)
        self.receiving = ReceiveBuffer(window)
        self.reading = Reading(now)
        self.told_contiguous = 0
        self.told_credit = window
        # Bytes of it that count as being in flight.
        self.counted = 0

    @property
    def over(self) -> bool:
        return self.sending.done and self.receiving.ended


class StreamTable:
    """Open streams by number: the initiator's are even, the other side's odd, each from the lowest up.

    A side grants the other `MAX_STREAMS` streams, and one more for each that it has forgotten itself. What
    this side reset it remembers until the other side has heard of it.
    """

    def __init__(self, *, initiator: bool, windows: Windows) -> None:
        # Streams that were reset here and not there yet, with the code.
        self.resets: dict[int, int] = {}
        # Bytes of all streams that links were given and nobody has acknowledged.
        self.in_flight = 0
        self._windows = windows
        self._streams: dict[int, StreamState] = {}
        # Streams that may have something to send, each once; those that ended are skipped.
        self._turns: deque[int] = deque()
        self._in_turn: set[int] = set()
        self._next_local = 0 if initiator else 1
        self._next_remote = 1 if initiator else 0
        self._local_open = 0
        # Streams in all that each side may open, as far as the other has said so.
        self._granted_to_us = MAX_STREAMS
        self._granted = MAX_STREAMS
        self._told = MAX_STREAMS

    def __iter__(self) -> Iterator[tuple[int, StreamState]]:
        return iter(list(self._streams.items()))

    def get(self, stream: int) -> StreamState | None:
        return self._streams.get(stream)

    def is_local(self, stream: int) -> bool:
        """Whether opening that stream is up to this side."""
        return stream % 2 == self._next_local % 2

    def is_to_come(self, stream: int) -> bool:
        """Whether that stream has not been opened yet."""
        return stream >= (self._next_local if self.is_local(stream) else self._next_remote)

    # Opening ----------------------------------------------------------------------------------------

    def may_open(self) -> bool:
        """Whether the other side would take one more stream of this one."""
        number = self._next_local
        is_granted = number // 2 < self._granted_to_us and number < _END_OF_NUMBERS
        return is_granted and self._local_open < MAX_STREAMS

    def open(self, now: float) -> int:
        """A new stream of this side. Raises `UsageError` where the other side would not take one more."""
        if not self.may_open():
            raise UsageError(f"No more than {MAX_STREAMS} streams may be open at once.")
        stream = self._next_local
        self._next_local += 2
        self._local_open += 1
        self._add(stream, now)
        return stream

    def accept(self, stream: int, now: float) -> Iterator[int]:
        """Open the other side's streams up to `stream`, as far as they were granted."""
        while self._next_remote <= stream and self._next_remote // 2 < self._granted:
            opened = self._next_remote
            self._next_remote += 2
            self._add(opened, now)
            yield opened

    def allow(self, streams: int) -> bool:
        """The other side takes so many of this side's streams in all; whether one more may be opened now."""
        self._granted_to_us = max(self._granted_to_us, streams)
        return self.may_open()

    @property
    def grant_is_due(self) -> bool:
        """Whether the other side should soon hear that it may open more."""
        return self._granted > self._told

    @property
    def grant_is_urgent(self) -> bool:
        return self._granted - self._told >= _TELL_EVERY

    def tell_grant(self) -> int:
        """Streams that the other side may have opened in all; it is told now."""
        self._told = self._granted
        return self._granted

    # Ending -----------------------------------------------------------------------------------------

    def drop(self, stream: int) -> bool:
        """Forget the stream; False when it was not open."""
        if not self._forget(stream):
            return False
        self._free(stream)
        return True

    def reset(self, stream: int, code: int) -> bool:
        """Forget all but that the other side is still to hear of the reset."""
        if not self._forget(stream):
            return False
        self.resets[stream] = code
        return True

    def reset_heard(self, stream: int) -> None:
        """The other side knows of the reset."""
        if self.resets.pop(stream, None) is not None:
            self._free(stream)

    # Sending ----------------------------------------------------------------------------------------

    def activate(self, stream: int) -> None:
        """It may have something to send."""
        if stream not in self._in_turn:
            self._in_turn.add(stream)
            self._turns.append(stream)

    def next_ready(self) -> tuple[int, StreamState] | None:
        """The next stream in turn that may send something now."""
        while self._turns:
            stream = self._turns.popleft()
            state = self._streams.get(stream)
            if state is not None and state.sending.ready():
                self._turns.append(stream)
                return stream, state
            self._in_turn.discard(stream)
        return None

    def count(self, state: StreamState) -> None:
        """Bytes of the stream went out, or were acknowledged."""
        self.in_flight += state.sending.in_flight - state.counted
        state.counted = state.sending.in_flight

    def carriers(self) -> set[int]:
        """The links that carry the first byte of each stream that has not been acknowledged."""
        found = (known.sending.carrier for known in self._streams.values())
        return {link for link in found if link is not None}

    def rewind(self, link: int) -> None:
        """Have everything sent again that `link` was given and nobody acknowledged."""
        for stream, known in self._streams.items():
            known.sending.rewind(link)
            self.count(known)
            self.activate(stream)

    # ------------------------------------------------------------------------------------------------

    def _add(self, stream: int, now: float) -> None:
        self._streams[stream] = StreamState(self._windows.base, now)

    def _forget(self, stream: int) -> bool:
        state = self._streams.pop(stream, None)
        if state is None:
            return False
        self.in_flight -= state.counted
        self._windows.give_back(state.receiving)
        return True

    def _free(self, stream: int) -> None:
        """There is room for one more."""
        if self.is_local(stream):
            self._local_open -= 1
        else:
            self._granted += 1
