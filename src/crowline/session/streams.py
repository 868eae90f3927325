"""The streams of a session: which are open, and whose turn it is to send."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from crowline.base.errors import UsageError
from crowline.session.buffers import ReceiveBuffer, SendBuffer

# Streams that either side may have open at once.
MAX_STREAMS = 128


class StreamState:
    """Both directions of one stream, and what the other side was last told of ours."""

    def __init__(self, window: int) -> None:
        self.sending = SendBuffer(window)
        self.receiving = ReceiveBuffer(window)
        self.told_contiguous = 0
        self.told_credit = window

    @property
    def over(self) -> bool:
        return self.sending.done and self.receiving.ended


class StreamTable:
    """Open streams by number: the initiator's are even, the other side's odd, each from the lowest up.

    A stream that this side reset counts as open until the other side has heard of it.
    """

    def __init__(self, *, initiator: bool, window: int) -> None:
        # Streams that were reset here and not there yet, with the code.
        self.resets: dict[int, int] = {}
        self._window = window
        self._streams: dict[int, StreamState] = {}
        self._turns: deque[int] = deque()
        self._next_local = 0 if initiator else 1
        self._next_remote = 1 if initiator else 0

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

    def open(self) -> int:
        """A new stream of this side. Raises `UsageError` where the other side would not take one more."""
        if self._count(self._next_local) >= MAX_STREAMS:
            raise UsageError(f"No more than {MAX_STREAMS} streams may be open at once.")
        stream = self._next_local
        self._next_local += 2
        self._add(stream)
        return stream

    def accept(self, stream: int) -> Iterator[int]:
        """Open the other side's streams up to `stream`, as far as it may have so many."""
        while self._next_remote <= stream and self._count(stream) < MAX_STREAMS:
            opened = self._next_remote
            self._next_remote += 2
            self._add(opened)
            yield opened

    def drop(self, stream: int) -> bool:
        """Forget the stream; False when it was not open."""
        if self._streams.pop(stream, None) is None:
            return False
        self._turns.remove(stream)
        return True

    def next_ready(self) -> tuple[int, StreamState] | None:
        """The next stream in turn that may send something now."""
        for _ in range(len(self._turns)):
            stream = self._turns[0]
            self._turns.rotate(-1)
            state = self._streams[stream]
            if state.sending.ready():
                return stream, state
        return None

    def carriers(self) -> set[int]:
        """The links that carry the first byte of each stream that has not been acknowledged."""
        found = (known.sending.carrier for known in self._streams.values())
        return {link for link in found if link is not None}

    def rewind(self, link: int) -> None:
        """Have everything sent again that `link` was given and nobody acknowledged."""
        for known in self._streams.values():
            known.sending.rewind(link)

    def _add(self, stream: int) -> None:
        self._streams[stream] = StreamState(self._window)
        self._turns.append(stream)

    def _count(self, like: int) -> int:
        """Open streams of the side that opened `like`."""
        return sum(1 for known in (*self._streams, *self.resets) if known % 2 == like % 2)
