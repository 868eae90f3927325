"""The side that offers files and sends those that are wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum, auto

from msgspec import Struct

from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer
from crowline.transfer.chunks import DIGEST_BYTES, Comparison, chunk_count
from crowline.transfer.endings import Ending, PeerBroke, PeerLeft, PeerStopped
from crowline.transfer.frames import DataPiece, FrameReader
from crowline.transfer.manifest import Manifest
from crowline.transfer.messages import (
    MAX_DATA_FRAME,
    MAX_RUN,
    MAX_SENTENCE,
    MAX_SMALL,
    Abort,
    Accept,
    Digests,
    FileDone,
    FileFailed,
    Finished,
    FrameType,
    Hole,
    Keep,
    MalformedTransfer,
    Message,
    Reason,
    Reject,
    Small,
    Verdict,
    Want,
    encode,
    frame_header,
    offer_frames,
)


class Wanted(Struct, frozen=True):
    """A file to send: its index in the manifest, and how many bytes of it are to be compared first, if the
    receiver has something of it."""

    index: int
    compare: int | None = None


class Accepted(Struct, frozen=True):
    """The receiver takes these files, in the order in which they must be sent."""

    files: tuple[Wanted, ...]


class Rejected(Struct, frozen=True):
    """The receiver takes nothing. `sentence` is the peer's text as it came: escape it before showing it."""

    reason: Reason
    sentence: str


class Compared(Struct, frozen=True):
    """The receiver knows the digests of a file, and says what it needs: the file may be sent now."""

    index: int
    comparison: Comparison


class Judged(Struct, frozen=True):
    """The receiver verified and kept a file, or says why not."""

    index: int
    ok: bool
    reason: Reason
    sentence: str


class Completed(Struct, frozen=True):
    """The receiver has judged every file and is content to end."""


SenderEvent = Accepted | Rejected | Compared | Judged | Completed | Ending


class _State(Enum):
    OFFERING = auto()
    SENDING = auto()
    FINISHING = auto()
    OVER = auto()


class Sender:
    """Offers `manifest`, then frames what its driver reads from the files that are wanted.

    The driver calls, for each `Wanted` in turn, `send`, `hole` and `keep` until the file's size is reached
    and then `file_done`, or `small`, or `file_failed` at any moment. Of files to compare it gives the
    `digests`, in any order and at any time, and waits for `Compared` before it begins. The bytes of
    `next_transmit` must leave in order.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._reader = FrameReader()
        self._state = _State.OFFERING
        self._offer: Iterator[bytes] = offer_frames(manifest)
        self._transmits: deque[Buffer] = deque()
        self._events: deque[SenderEvent] = deque()
        self._wanted: deque[Wanted] = deque()
        self._compare: dict[int, int] = {}
        self._asked: set[int] = set()
        # Files given up while the receiver was comparing them: its answers are on their way.
        self._late: set[int] = set()
        self._comparisons: dict[int, Comparison] = {}
        self._unjudged: set[int] = set()
        self._sent = 0

    @property
    def over(self) -> bool:
        """Nothing more will come from this machine once its transmits and events are taken."""
        return self._state is _State.OVER

    def receive(self, data: Buffer) -> None:
        """Take bytes of the stream."""
        if self.over:
            return
        self._reader.feed(data)
        try:
            while not self.over and (message := self._reader.next()) is not None:
                self._handle(message)
        except MalformedMessage as error:
            self._break_off(error.message)

    def receive_end(self) -> None:
        """The stream has ended: the peer sends nothing more."""
        if not self.over:
            self._state = _State.OVER
            self._events.append(PeerLeft())

    def next_transmit(self) -> Buffer | None:
        """The next bytes of the stream, or ``None``. They are not changed or reused afterwards."""
        if not self.over and (frame := next(self._offer, None)) is not None:
            return frame
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> SenderEvent | None:
        return self._events.popleft() if self._events else None

    def digests(self, index: int, digests: bytes) -> None:
        """The digests of the chunks of what is to be compared of a file."""
        if self.over:
            return
        length = self._compare.get(index)
        if self._state is not _State.SENDING or length is None:
            raise UsageError("nobody asked for these digests")
        if len(digests) != DIGEST_BYTES * chunk_count(length, self._manifest.files[index].size):
            raise UsageError("there is one digest for each chunk")
        del self._compare[index]
        self._asked.add(index)
        self._comparisons[index] = Comparison(self._manifest.files[index].size, length, 0)
        self._transmits.append(encode(Digests(index, digests)))

    def send(self, data: Buffer) -> None:
        """The next bytes of the current file: 1 to `MAX_DATA_FRAME` of them, kept by reference."""
        if self.over:
            return
        if not 0 < len(data) <= MAX_DATA_FRAME:
            raise UsageError(f"a piece of a file is 1 to {MAX_DATA_FRAME} bytes")
        self._advance(len(data))
        self._transmits.append(frame_header(FrameType.DATA, len(data)))
        self._transmits.append(data)

    def hole(self, length: int) -> None:
        """The next `length` bytes of the current file are zero; at most `MAX_RUN`."""
        if self.over:
            return
        self._advance(length)
        self._transmits.append(encode(Hole(length)))

    def keep(self, length: int) -> None:
        """The receiver has the next `length` bytes of the current file; at most `MAX_RUN`."""
        if self.over:
            return
        comparison = self._comparisons.get(self._current().index)
        if comparison is None or not comparison.keeps(self._sent, self._sent + length):
            raise UsageError("the receiver does not have that")
        self._advance(length)
        self._transmits.append(encode(Keep(length)))

    def small(self, data: bytes, sha256: bytes) -> None:
        """The current file, whole: at most `MAX_SMALL` bytes."""
        if self.over:
            return
        index = self._current().index
        if self._sent or len(data) != self._manifest.files[index].size or len(data) > MAX_SMALL:
            raise UsageError("that is not a whole small file")
        self._close_file(Small(index, sha256, data))

    def file_done(self, sha256: bytes) -> None:
        """The current file has been sent; `sha256` is of the whole of it, of what was kept too."""
        if self.over:
            return
        index = self._current().index
        if self._sent != self._manifest.files[index].size:
            raise UsageError("the file has not been sent whole")
        self._close_file(FileDone(index, sha256))

    def file_failed(self, sentence: str) -> None:
        """The current file cannot be sent whole: tell the receiver to forget it, and go on with the next."""
        if self.over:
            return
        if self._state is not _State.SENDING:
            raise UsageError("no file is being sent")
        index = self._wanted[0].index
        self._compare.pop(index, None)
        if index in self._asked:
            self._late.add(index)
        self._close_file(FileFailed(index, sentence[:MAX_SENTENCE]))

    def abort(self, reason: Reason, sentence: str) -> None:
        """Stop, and tell the receiver why."""
        if self.over:
            return
        self._state = _State.OVER
        self._transmits.append(encode(Abort(reason, sentence[:MAX_SENTENCE])))

    def _handle(self, message: Message | DataPiece) -> None:
        if isinstance(message, Abort):
            self._state = _State.OVER
            self._transmits.clear()
            self._events.append(PeerStopped(message.reason, message.sentence))
        elif isinstance(message, Reject) and self._state is _State.OFFERING:
            self._state = _State.OVER
            self._events.append(Rejected(message.reason, message.sentence))
        elif isinstance(message, Accept) and self._state is _State.OFFERING:
            self._begin(message)
        elif isinstance(message, Want) and self._state in (_State.SENDING, _State.FINISHING):
            self._take_comparison(message)
        elif isinstance(message, Verdict) and self._state in (_State.SENDING, _State.FINISHING):
            self._judge(message)
        elif isinstance(message, Finished) and self._state is _State.FINISHING and not self._unjudged:
            self._state = _State.OVER
            self._events.append(Completed())
        else:
            raise MalformedTransfer("The other side sent a message out of turn.")

    def _begin(self, accept: Accept) -> None:
        if next(self._offer, None) is not None:
            raise MalformedTransfer("The other side accepted an offer that it had not yet read.")
        files = self._manifest.files
        if any(index >= len(files) for index in (*accept.skip, *accept.compare)):
            raise MalformedTransfer("The other side asked for a file that was not offered.")
        if any(length > files[index].size for index, length in accept.compare.items()):
            raise MalformedTransfer("The other side asked for bytes after the end of a file.")
        wanted = in_order(len(files), accept)
        self._compare = {one.index: one.compare for one in wanted if one.compare is not None}
        self._state = _State.SENDING
        self._wanted.extend(wanted)
        self._events.append(Accepted(wanted))
        self._finish_if_sent()

    def _take_comparison(self, want: Want) -> None:
        if want.index in self._late:
            self._late.remove(want.index)
            return
        if want.index not in self._asked:
            raise MalformedTransfer("The other side compared a file that it does not have.")
        asked = self._comparisons[want.index]
        comparison = Comparison.decode(asked.size, asked.length, want.missing)
        if comparison is None:
            raise MalformedTransfer("The other side asked for chunks that a file does not have.")
        self._asked.remove(want.index)
        self._comparisons[want.index] = comparison
        self._events.append(Compared(want.index, comparison))

    def _judge(self, verdict: Verdict) -> None:
        if verdict.index not in self._unjudged:
            raise MalformedTransfer("The other side judged a file that it does not have.")
        self._unjudged.remove(verdict.index)
        self._events.append(Judged(verdict.index, verdict.ok, verdict.reason, verdict.sentence))

    def _advance(self, length: int) -> None:
        index = self._current().index
        if not 0 < length <= MAX_RUN:
            raise UsageError(f"a run of a file is 1 to {MAX_RUN} bytes")
        if self._sent + length > self._manifest.files[index].size:
            raise UsageError("that is more than the offered size of the file")
        self._sent += length

    def _close_file(self, message: FileDone | FileFailed | Small) -> None:
        self._transmits.append(encode(message))
        self._unjudged.add(message.index)
        self._comparisons.pop(message.index, None)
        self._asked.discard(message.index)
        self._wanted.popleft()
        self._sent = 0
        self._finish_if_sent()

    def _finish_if_sent(self) -> None:
        if not self._wanted:
            self._state = _State.FINISHING
            self._transmits.append(encode(Finished()))

    def _current(self) -> Wanted:
        if self._state is not _State.SENDING:
            raise UsageError("no file is being sent")
        wanted = self._wanted[0]
        if wanted.index in self._compare or wanted.index in self._asked:
            raise UsageError("that file has not been compared yet")
        return wanted

    def _break_off(self, sentence: str) -> None:
        self.abort(Reason.PROTOCOL, sentence)
        self._events.append(PeerBroke(sentence))


def in_order(count: int, accept: Accept) -> tuple[Wanted, ...]:
    """Which of `count` offered files are to be sent, in their order: those to compare come last."""
    skip = set(accept.skip)
    taken = [Wanted(i, accept.compare.get(i)) for i in range(count) if i not in skip]
    return tuple(sorted(taken, key=lambda wanted: wanted.compare is not None))


def wanted_bytes(manifest: Manifest, files: Sequence[Wanted]) -> int:
    """Bytes of `files`."""
    return sum(manifest.files[wanted.index].size for wanted in files)
