"""The side that offers files and sends those that are wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer
from crowline.transfer.endings import Ending, PeerBroke, PeerLeft, PeerStopped
from crowline.transfer.frames import DataPiece, FrameReader
from crowline.transfer.manifest import Manifest
from crowline.transfer.messages import (
    MAX_DATA_FRAME,
    MAX_SENTENCE,
    Abort,
    Accept,
    FileDone,
    FileFailed,
    Finished,
    FrameType,
    MalformedTransfer,
    Message,
    Reason,
    Reject,
    Verdict,
    encode,
    frame_header,
    offer_frames,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to send: its index in the manifest, and the byte to begin at (0 unless it is resumed)."""

    index: int
    offset: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receiver takes these files, in the order in which they must be sent."""

    files: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """The receiver takes nothing. `sentence` is the peer's text as it came: escape it before showing it."""

    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The receiver verified and kept a file, or says why not."""

    index: int
    ok: bool
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The receiver has judged every file and is content to end."""


SenderEvent = Accepted | Rejected | Judged | Completed | Ending


class _State(Enum):
    OFFERING = auto()
    SENDING = auto()
    FINISHING = auto()
    OVER = auto()


class Sender:
    """Offers `manifest`, then frames what its driver reads from the files that are wanted.

    The driver calls, for each `Wanted` in turn, `send` until the file's size is reached and then
    `file_done`, or `file_failed` at any moment. The bytes of `next_transmit` must leave in order.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._reader = FrameReader()
        self._state = _State.OFFERING
        self._offer: Iterator[bytes] = offer_frames(manifest)
        self._transmits: deque[Buffer] = deque()
        self._events: deque[SenderEvent] = deque()
        self._wanted: deque[Wanted] = deque()
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

    def send(self, data: Buffer) -> None:
        """The next bytes of the current file: 1 to `MAX_DATA_FRAME` of them, kept by reference."""
        if self.over:
            return
        wanted = self._current()
        self._sent += len(data)
        if not 0 < len(data) <= MAX_DATA_FRAME:
            raise UsageError(f"a piece of a file is 1 to {MAX_DATA_FRAME} bytes")
        if self._sent > self._manifest.files[wanted.index].size - wanted.offset:
            raise UsageError("that is more than the offered size of the file")
        self._transmits.append(frame_header(FrameType.DATA, len(data)))
        self._transmits.append(data)

    def file_done(self, sha256: bytes) -> None:
        """The current file has been sent; `sha256` is of the whole of it, the part before an offset too."""
        if self.over:
            return
        wanted = self._current()
        if self._sent != self._manifest.files[wanted.index].size - wanted.offset:
            raise UsageError("the file has not been sent whole")
        self._close_file(FileDone(wanted.index, sha256))

    def file_failed(self, sentence: str) -> None:
        """The current file cannot be sent whole: tell the receiver to forget it, and go on with the next."""
        if self.over:
            return
        self._close_file(FileFailed(self._current().index, sentence[:MAX_SENTENCE]))

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
        if any(index >= len(files) for index in (*accept.skip, *accept.offsets)):
            raise MalformedTransfer("The other side asked for a file that was not offered.")
        if any(offset > files[index].size for index, offset in accept.offsets.items()):
            raise MalformedTransfer("The other side asked for bytes after the end of a file.")
        skip = set(accept.skip)
        wanted = tuple(Wanted(i, accept.offsets.get(i, 0)) for i in range(len(files)) if i not in skip)
        self._state = _State.SENDING
        self._wanted.extend(wanted)
        self._events.append(Accepted(wanted))
        self._finish_if_sent()

    def _judge(self, verdict: Verdict) -> None:
        if verdict.index not in self._unjudged:
            raise MalformedTransfer("The other side judged a file that it does not have.")
        self._unjudged.remove(verdict.index)
        self._events.append(Judged(verdict.index, verdict.ok, verdict.reason, verdict.sentence))

    def _close_file(self, message: FileDone | FileFailed) -> None:
        self._transmits.append(encode(message))
        self._unjudged.add(message.index)
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
        return self._wanted[0]

    def _break_off(self, sentence: str) -> None:
        self.abort(Reason.PROTOCOL, sentence)
        self._events.append(PeerBroke(sentence))


def wanted_bytes(manifest: Manifest, files: Sequence[Wanted]) -> int:
    """Bytes that are still to be sent of `files`."""
    return sum(manifest.files[wanted.index].size - wanted.offset for wanted in files)
