"""The side that is offered files, chooses, and judges what arrives."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer
from crowline.transfer.endings import Ending, PeerBroke, PeerLeft, PeerStopped
from crowline.transfer.frames import DataPiece, FrameReader
from crowline.transfer.manifest import Manifest, ManifestBuilder
from crowline.transfer.messages import (
    MAX_SENTENCE,
    VERSION,
    Abort,
    Accept,
    Entries,
    FileDone,
    FileFailed,
    Finished,
    MalformedTransfer,
    Message,
    Offer,
    Reason,
    Reject,
    Verdict,
    encode,
)


@dataclass(frozen=True, slots=True)
class Offered:
    """The whole offer, with every name and size checked: answer with `accept` or `reject`."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class FileBegan:
    """The next file begins, at byte 0."""

    index: int


@dataclass(frozen=True, slots=True)
class DataArrived:
    """The next bytes of the file that began last: a view into what was given to `receive`."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class FileEnded:
    """All bytes of a file have come, as many as were offered; the sender read them with this hash."""

    index: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class FileLost:
    """The sender cannot send this file whole. `sentence` is its text as it came."""

    index: int
    sentence: str


@dataclass(frozen=True, slots=True)
class AllArrived:
    """The sender has nothing more to send."""


ReceiverEvent = Offered | FileBegan | DataArrived | FileEnded | FileLost | AllArrived | Ending


class _State(Enum):
    AWAITING_OFFER = auto()
    READING_ENTRIES = auto()
    CHOOSING = auto()
    RECEIVING = auto()
    JUDGING = auto()
    OVER = auto()


class Receiver:
    """Reads an offer, answers it, and hands out the files' bytes as they come.

    The driver gives one `verdict` for each `FileEnded` and each `FileLost`, and calls `finish` when all of
    them are given after `AllArrived`. After `receive` it must take
    events until ``None`` before it gives more: data is handed out as views, and nothing is queued.
    """

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._state = _State.AWAITING_OFFER
        self._transmits: deque[bytes] = deque()
        self._events: deque[ReceiverEvent] = deque()
        self._offer = Offer(VERSION, 0, 0)
        self._builder = ManifestBuilder()
        self._manifest = Manifest((), ())
        self._wanted: deque[int] = deque()
        self._began = False
        self._arrived = 0
        self._unjudged: set[int] = set()
        self.succeeded = False
        """Every wanted file was judged, and the sender has been let go."""

    @property
    def over(self) -> bool:
        """Nothing more will come from this machine once its transmits and events are taken."""
        return self._state is _State.OVER

    def receive(self, data: Buffer) -> None:
        """Take bytes of the stream; they must not change until `next_event` has given ``None``."""
        if not self.over:
            self._reader.feed(data)

    def receive_end(self) -> None:
        """The stream has ended: the peer sends nothing more."""
        if not self.over:
            self._state = _State.OVER
            self._events.append(PeerLeft())

    def next_transmit(self) -> Buffer | None:
        """The next bytes of the stream, or ``None``. They are not changed or reused afterwards."""
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> ReceiverEvent | None:
        try:
            while not self._events and not self.over and (message := self._reader.next()) is not None:
                self._handle(message)
        except MalformedMessage as error:
            self._break_off(error.message)
        return self._events.popleft() if self._events else None

    def accept(self, skip: Iterable[int] = ()) -> None:
        """Take every offered file but those whose indices are in `skip`."""
        if self.over:
            return
        if self._state is not _State.CHOOSING:
            raise UsageError("there is no offer to accept")
        skipped = set(skip)
        self._wanted.extend(i for i in range(len(self._manifest.files)) if i not in skipped)
        self._state = _State.RECEIVING
        self._transmits.append(encode(Accept(skip=sorted(skipped))))

    def reject(self, reason: Reason, sentence: str = "") -> None:
        """Take nothing, and say why."""
        if self.over:
            return
        if self._state is not _State.CHOOSING:
            raise UsageError("there is no offer to reject")
        self._state = _State.OVER
        self._transmits.append(encode(Reject(reason, sentence[:MAX_SENTENCE])))

    def verdict(self, index: int, ok: bool, reason: Reason = Reason.NONE, sentence: str = "") -> None:
        """Tell the sender what became of a file that ended or was lost."""
        if self.over:
            return
        if index not in self._unjudged:
            raise UsageError("that file is not waiting for a verdict")
        self._unjudged.remove(index)
        self._transmits.append(encode(Verdict(index, ok, reason, sentence[:MAX_SENTENCE])))

    def finish(self) -> None:
        """All has arrived, been judged and put in its place: let the sender go."""
        if self.over:
            return
        if self._state is not _State.JUDGING or self._unjudged:
            raise UsageError("there are files without a verdict")
        self._state = _State.OVER
        self.succeeded = True
        self._transmits.append(encode(Finished()))

    def abort(self, reason: Reason, sentence: str) -> None:
        """Stop, and tell the sender why."""
        if self.over:
            return
        self._state = _State.OVER
        self._transmits.append(encode(Abort(reason, sentence[:MAX_SENTENCE])))

    def _handle(self, message: Message | DataPiece) -> None:
        if isinstance(message, DataPiece) and self._state is _State.RECEIVING:
            self._take_data(message.data)
        elif isinstance(message, FileDone) and self._state is _State.RECEIVING:
            self._end_file(message)
        elif isinstance(message, FileFailed) and self._state is _State.RECEIVING:
            self._lose_file(message)
        elif isinstance(message, Finished) and self._state is _State.RECEIVING and not self._wanted:
            self._state = _State.JUDGING
            self._events.append(AllArrived())
        elif isinstance(message, Abort):
            self._state = _State.OVER
            self._events.append(PeerStopped(message.reason, message.sentence))
        elif isinstance(message, Offer) and self._state is _State.AWAITING_OFFER:
            self._read_offer(message)
        elif isinstance(message, Entries) and self._state is _State.READING_ENTRIES:
            self._read_entries(message)
        else:
            raise MalformedTransfer("The other side sent a message out of turn.")

    def _read_offer(self, offer: Offer) -> None:
        if offer.version != VERSION:
            self._state = _State.OVER
            sentence = f"The other side speaks version {offer.version} of file transfer, this one {VERSION}."
            self._transmits.append(encode(Reject(Reason.VERSION, sentence)))
            self._events.append(PeerBroke(sentence))
            return
        self._offer = offer
        self._state = _State.READING_ENTRIES
        self._choose_if_read()

    def _read_entries(self, entries: Entries) -> None:
        if not entries.folders and not entries.files:
            raise MalformedTransfer("The other side sent an empty part of its offer.")
        self._builder.add(entries.folders, entries.files)
        self._choose_if_read()

    def _choose_if_read(self) -> None:
        if self._builder.count < self._offer.entries:
            return
        self._manifest = self._builder.build()
        if self._builder.count > self._offer.entries or self._manifest.total != self._offer.bytes:
            raise MalformedTransfer("The other side's offer is not what it said it would be.")
        self._builder = ManifestBuilder()
        self._state = _State.CHOOSING
        self._events.append(Offered(self._manifest))

    def _take_data(self, data: memoryview) -> None:
        index = self._begin_file()
        self._arrived += len(data)
        if self._arrived > self._manifest.files[index].size:
            raise MalformedTransfer("The other side sent more of a file than it had offered.")
        self._events.append(DataArrived(data))

    def _end_file(self, done: FileDone) -> None:
        index = self._begin_file()
        if done.index != index or self._arrived != self._manifest.files[index].size:
            raise MalformedTransfer("The other side sent less of a file than it had offered.")
        self._close_file()
        self._events.append(FileEnded(index, done.sha256))

    def _lose_file(self, failed: FileFailed) -> None:
        if failed.index != self._begin_file():
            raise MalformedTransfer("The other side gave up a file that it was not sending.")
        self._close_file()
        self._events.append(FileLost(failed.index, failed.sentence))

    def _begin_file(self) -> int:
        """The current file's index; its first message brings a `FileBegan`."""
        if not self._wanted:
            raise MalformedTransfer("The other side sent a file that was not asked for.")
        if not self._began:
            self._began = True
            self._events.append(FileBegan(self._wanted[0]))
        return self._wanted[0]

    def _close_file(self) -> None:
        self._unjudged.add(self._wanted.popleft())
        self._began = False
        self._arrived = 0

    def _break_off(self, sentence: str) -> None:
        self.abort(Reason.PROTOCOL, sentence)
        self._events.append(PeerBroke(sentence))
