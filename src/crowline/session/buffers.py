"""Both halves of a stream: bytes that wait for acknowledgement, bytes that wait for the reader.

Offsets count from the stream's first byte; the end of a stream counts as one byte after the last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from msgspec import Struct, field

from crowline.base.machine import Buffer

# Separate runs that may wait behind a gap. Each link brings its bytes in order, so that even a stream
# that moves often makes a handful of them.
MAX_RUNS_AHEAD = 64
# Received pieces below so many bytes are copied together: each would cost a multiple of its bytes, and keep
# alive all that came with it. So are those that are less than a part of what they came in.
_SMALL = 2048
_PART = 8
# Bytes of one such copy.
_BLOCK = 16 * 1024
# Bytes of credit that are not worth a frame while others are on their way: a peer that grants them one by one
# would have each remembered apart.
_LEAST_CREDIT = 1024


class SendBuffer:
    """Bytes of one direction, kept from `write` until they are acknowledged; `credit` is the first grant."""

    def __init__(self, credit: int = 0) -> None:
        self.acknowledged = 0
        self.credit = credit
        self.finished = False
        # The most that the other side has ever granted beyond what had arrived.
        self._widest = credit
        self._next = 0
        self._end = 0
        self._highest = 0
        self._unsent: deque[memoryview] = deque()
        self._sent: deque[memoryview] = deque()
        self._sent_start = 0
        # What each link was given and nobody acknowledged, in order: link, first offset, end offset.
        self._carried: deque[tuple[int, int, int]] = deque()

    @property
    def unsent(self) -> int:
        """Bytes that no link has been given yet."""
        return max(0, self._end - self._next)

    def waits_for_path(self) -> bool:
        """Whether bytes wait for credit that only what is on its way can bring: the reader has the rest."""
        ahead = self.credit - self.acknowledged
        self._widest = max(self._widest, ahead)
        return self.unsent > 0 and not self.ready() and 2 * ahead >= self._widest

    @property
    def in_flight(self) -> int:
        """Bytes that a link was given and nobody has acknowledged, kept for sending again."""
        return max(0, self._next - self.acknowledged)

    @property
    def carrier(self) -> int | None:
        """The link that carries the first byte on its way; None when nothing is."""
        return next((link for link, _, end in self._carried if end > self.acknowledged), None)

    @property
    def done(self) -> bool:
        """Whether everything, the end included, has been acknowledged."""
        return self.finished and self.acknowledged > self._end

    def write(self, data: Buffer) -> None:
        """Append; `data` must not change afterwards."""
        view = memoryview(data).cast("B")
        if len(view):
            self._unsent.append(view)
            self._end += len(view)

    def ready(self) -> bool:
        """Whether there are bytes, or the end, that may be sent now."""
        left = min(self._end, self.credit) - self._next
        if 0 < left < min(_LEAST_CREDIT, self.unsent):
            return self.in_flight == 0
        return left > 0 or (self.finished and self._next == self._end)

    def take(self, limit: int, link: int) -> tuple[int, Buffer, bool]:
        """At most `limit` bytes for `link`: their offset, the bytes, whether the end comes with them."""
        offset = self._next
        left = min(limit, self.credit - offset)
        parts: list[memoryview] = []
        while left > 0 and self._unsent:
            view = self._unsent.popleft()
            if len(view) > left:
                self._unsent.appendleft(view[left:])
                view = view[:left]
            parts.append(view)
            left -= len(view)
        self._sent.extend(parts)
        data: Buffer = parts[0] if len(parts) == 1 else b"".join(parts)
        self._next += len(data)
        fin = self.finished and self._next == self._end
        self._next += fin
        self._highest = max(self._highest, self._next)
        self._note(link, offset, self._next)
        return offset, data, fin

    def acknowledge(self, offset: int) -> bool:
        """Forget what is below `offset`; False when that was never sent."""
        if offset > self._highest:
            return False
        self.acknowledged = max(self.acknowledged, offset)
        if offset > self._next:
            self._skip(offset)
        while self._sent and self._sent_start + len(self._sent[0]) <= offset:
            self._sent_start += len(self._sent.popleft())
        while self._carried and self._carried[0][2] <= offset:
            self._carried.popleft()
        return True

    def rewind(self, link: int) -> None:
        """Make ready again what `link` was given and nobody acknowledged, and what came after it."""
        lost = [start for carrier, start, _ in self._carried if carrier == link]
        if not lost:
            return
        target = max(self.acknowledged, min(lost))
        self._uncarry(target)
        position = min(self._next, self._end)
        while position > target and self._sent:
            view = self._sent.pop()
            keep = max(0, len(view) - (position - target))
            if keep:
                self._sent.append(view[:keep])
            self._unsent.appendleft(view[keep:])
            position -= len(view) - keep
        self._next = min(self._next, max(position, target))

    def _uncarry(self, target: int) -> None:
        """From `target` on, whichever link takes the bytes again carries them."""
        while self._carried and self._carried[-1][2] > target:
            link, start, _ = self._carried.pop()
            if start < target:
                self._carried.append((link, start, target))

    def _skip(self, offset: int) -> None:
        """A rewound part turns out to have arrived: it need not go again."""
        while self._unsent and self._next < offset:
            view = self._unsent.popleft()
            step = min(len(view), offset - self._next)
            self._sent.append(view[:step])
            if step < len(view):
                self._unsent.appendleft(view[step:])
            self._next += step
        self._next = max(self._next, offset)

    def _note(self, link: int, start: int, end: int) -> None:
        if self._carried and self._carried[-1][0] == link and self._carried[-1][2] == start:
            start = self._carried.pop()[1]
        self._carried.append((link, start, end))


class _Run(Struct):
    """Contiguous bytes behind a gap."""

    start: int
    end: int
    pieces: list[memoryview | bytearray] = field(default_factory=list)


class ReceiveBuffer:
    """Puts the bytes of one direction in order, whichever link they came by; at most `window` of them.

    The window may be made larger at any time, never smaller.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        # Every offset below has arrived, the end included.
        self.contiguous = 0
        self.consumed = 0
        self.final: int | None = None
        self._ready: deque[memoryview | bytearray] = deque()
        self._ahead: list[_Run] = []

    @property
    def credit(self) -> int:
        """The offset that the other side may send up to."""
        return self.consumed + self.window

    @property
    def readable(self) -> bool:
        return bool(self._ready)

    @property
    def ended(self) -> bool:
        """Whether every byte and the end have arrived and been read."""
        return self.final is not None and self.contiguous > self.final and not self._ready

    def insert(self, offset: int, data: memoryview, fin: bool) -> bool:
        """Take a piece; False when it breaks the rules: beyond the credit, a moved end, too many gaps."""
        end = offset + len(data)
        if end > self.credit or not self._agrees(end, fin):
            return False
        if fin:
            self.final = end
        if offset > self.contiguous:
            return self._keep(offset, data)
        self._append(data[self.contiguous - offset :])
        while self._ahead and self._ahead[0].start <= self.contiguous:
            run = self._ahead.pop(0)
            position = run.start
            for piece in run.pieces:
                self._append(memoryview(piece)[max(0, self.contiguous - position) :])
                position += len(piece)
        if self.final is not None and self.contiguous == self.final:
            self.contiguous += 1
        return True

    def read(self, limit: int) -> Buffer:
        """At most `limit` bytes, fewer where that saves a copy; empty when none are there."""
        if not self._ready:
            return b""
        first = memoryview(self._ready.popleft())
        if len(first) > limit:
            self._ready.appendleft(first[limit:])
            first = first[:limit]
        self.consumed += len(first)
        return first

    def _agrees(self, end: int, fin: bool) -> bool:
        if self.final is not None:
            return end <= self.final and (not fin or end == self.final)
        return not fin or end >= max([self.contiguous, *(run.end for run in self._ahead)])

    def _append(self, piece: memoryview) -> None:
        if len(piece):
            _put(self._ready, piece)
            self.contiguous += len(piece)

    def _keep(self, offset: int, data: memoryview) -> bool:
        """Take what is not there yet of a piece behind a gap; False when there are too many gaps."""
        while len(data):
            index = bisect_right(self._ahead, offset, key=lambda run: run.start)
            known = self._ahead[index - 1].end - offset if index else 0
            if known > 0:
                offset, data = offset + known, data[known:]
                continue
            free = self._ahead[index].start - offset if index < len(self._ahead) else len(data)
            self._fill(index, offset, data[:free])
            offset, data = offset + free, data[free:]
        return len(self._ahead) <= MAX_RUNS_AHEAD

    def _fill(self, index: int, offset: int, piece: memoryview) -> None:
        """Put `piece` in front of run `index`, joined to the runs that it touches."""
        run = _Run(offset, offset)
        if index and self._ahead[index - 1].end == offset:
            index -= 1
            run = self._ahead.pop(index)
        _put(run.pieces, piece)
        run.end += len(piece)
        if index < len(self._ahead) and self._ahead[index].start == run.end:
            following = self._ahead.pop(index)
            run.pieces += following.pieces
            run.end = following.end
        self._ahead.insert(index, run)


def _put(pieces: deque[memoryview | bytearray] | list[memoryview | bytearray], piece: memoryview) -> None:
    """Append, as a part of what it came in or as a copy."""
    if len(piece) >= _SMALL and _PART * len(piece) >= memoryview(piece.obj).nbytes:
        pieces.append(piece)
    elif pieces and isinstance(last := pieces[-1], bytearray) and len(last) + len(piece) <= _BLOCK:
        last += piece
    else:
        pieces.append(bytearray(piece))
