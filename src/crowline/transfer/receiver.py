"""The side that is offered files, chooses, and judges what arrives."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum, auto

from msgspec import Struct

from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer
from crowline.transfer.chunks import DIGEST_BYTES, Comparison, chunk_count
from crowline.transfer.endings import Ending, PeerBroke, PeerLeft, PeerStopped
from crowline.transfer.frames import DataPiece, FrameReader
from crowline.transfer.manifest import Manifest, ManifestBuilder
from crowline.transfer.messages import (
    GREETING,
    MAX_SENTENCE,
    VERSION,
    Abort,
    Accept,
    Digests,
    Entries,
    FileDone,
    FileFailed,
    Finished,
    Hole,
    Keep,
    MalformedTransfer,
    Message,
    Offer,
    Reason,
    Reject,
    Small,
    Verdict,
    Want,
    encode,
)
from crowline.transfer.sender import in_order


class Offered(Struct, frozen=True):
    """The whole offer, with every name and size checked: answer with `accept` or `reject`."""

    manifest: Manifest


class FileBegan(Struct, frozen=True):
    """The next file begins, at byte 0."""

    index: int


class DataArrived(Struct, frozen=True):
    """The next bytes of the file that began last: a view into what was given to `receive`."""

    data: memoryview


class HoleArrived(Struct, frozen=True):
    """The next bytes of the file that began last are zero."""

    length: int


class KeepArrived(Struct, frozen=True):
    """The next bytes of the file that began last are those that this side said it has."""

    length: int


class DigestsArrived(Struct, frozen=True):
    """The digests of the chunks of a file to compare, as they are at the sender: answer with `want`."""

    index: int
    digests: bytes


class SmallArrived(Struct, frozen=True):
    """A whole small file, and the hash that the sender read it with."""

    index: int
    sha256: bytes
    data: bytes


class FileEnded(Struct, frozen=True):
    """All bytes of a file have come, as many as were offered; the sender read them with this hash."""

    index: int
    sha256: bytes


class FileLost(Struct, frozen=True):
    """The sender cannot send this file whole. `sentence` is its text as it came."""

    index: int
    sentence: str


class AllArrived(Struct, frozen=True):
    """The sender has nothing more to send."""


ReceiverEvent = (
    Offered
    | FileBegan
    | DataArrived
    | HoleArrived
    | KeepArrived
    | DigestsArrived
    | SmallArrived
    | FileEnded
    | FileLost
    | AllArrived
    | Ending
)


class _State(Enum):
    AWAITING_OFFER = auto()
    READING_ENTRIES = auto()
    CHOOSING = auto()
    RECEIVING = auto()
    JUDGING = auto()
    OVER = auto()


class Receiver:
    """Reads an offer, answers it, and hands out the files' bytes as they come.

    The driver gives one `want` for each `DigestsArrived`, one `verdict` for each `FileEnded`, `SmallArrived`
    and `FileLost`, and calls `finish` when all of them are given after `AllArrived`. After `receive` it must
    take events until ``None`` before it gives more: data is handed out as views, and nothing is queued.
    """

    def __init__(self) -> None:
        self._reader = FrameReader(GREETING)
        self._state = _State.AWAITING_OFFER
        self._transmits: deque[bytes] = deque()
        self._events: deque[ReceiverEvent] = deque()
        self._offer = Offer(VERSION, 0, 0)
        self._builder = ManifestBuilder()
        self._manifest = Manifest((), ())
        self._wanted: deque[int] = deque()
        self._began = False
        self._arrived = 0
        self._compare: dict[int, int] = {}
        self._asked: dict[int, int] = {}
        self._comparisons: dict[int, Comparison] = {}
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

    def accept(self, skip: Iterable[int] = (), compare: Mapping[int, int] | None = None) -> None:
        """Take every offered file but those whose indices are in `skip`. Of those in `compare`, so many bytes
        are here already, perhaps: as many as `chunks.comparable` says."""
        if self.over:
            return
        if self._state is not _State.CHOOSING:
            raise UsageError("there is no offer to accept")
        message = Accept(sorted(set(skip)), dict(compare or {}))
        wanted = in_order(len(self._manifest.files), message)
        self._wanted.extend(one.index for one in wanted)
        self._compare = {one.index: one.compare for one in wanted if one.compare is not None}
        self._state = _State.RECEIVING
        self._transmits.append(encode(message))

    def reject(self, reason: Reason, sentence: str = "") -> None:
        """Take nothing, and say why."""
        if self.over:
            return
        if self._state is not _State.CHOOSING:
            raise UsageError("there is no offer to reject")
        self._state = _State.OVER
        self._transmits.append(encode(Reject(reason, sentence[:MAX_SENTENCE])))

    def want(self, index: int, missing: int) -> None:
        """Of the chunks that the digests of a file were for, those with a bit in `missing` are needed."""
        if self.over:
            return
        length = self._asked.pop(index, None)
        if length is None:
            # The sender gave the file up meanwhile.
            return
        comparison = Comparison(self._manifest.files[index].size, length, missing)
        self._comparisons[index] = comparison
        self._transmits.append(encode(Want(index, comparison.encode())))

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
        elif isinstance(message, Small) and self._state is _State.RECEIVING:
            self._take_small(message)
        elif isinstance(message, Hole | Keep) and self._state is _State.RECEIVING:
            self._take_run(message)
        elif isinstance(message, Digests) and self._state is _State.RECEIVING:
            self._take_digests(message)
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
        if not entries.folders and not entries.files and not entries.links:
            raise MalformedTransfer("The other side sent an empty part of its offer.")
        self._builder.add(entries.folders, entries.files, entries.links)
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
        self._advance(self._begin_file(), len(data))
        self._events.append(DataArrived(data))

    def _take_run(self, run: Hole | Keep) -> None:
        index = self._begin_file()
        start = self._arrived
        self._advance(index, run.length)
        if isinstance(run, Hole):
            self._events.append(HoleArrived(run.length))
            return
        comparison = self._comparisons.get(index)
        if comparison is None or not comparison.keeps(start, self._arrived):
            raise MalformedTransfer("The other side left out bytes that are not here.")
        self._events.append(KeepArrived(run.length))

    def _take_digests(self, message: Digests) -> None:
        length = self._compare.pop(message.index, None)
        if length is None:
            raise MalformedTransfer("The other side sent digests that were not asked for.")
        chunks = chunk_count(length, self._manifest.files[message.index].size)
        if len(message.digests) != DIGEST_BYTES * chunks:
            raise MalformedTransfer("The other side sent digests for another length.")
        self._asked[message.index] = length
        self._events.append(DigestsArrived(message.index, message.digests))

    def _take_small(self, small: Small) -> None:
        if not self._wanted or self._began or small.index != self._wanted[0]:
            raise MalformedTransfer("The other side sent a file that was not asked for.")
        if len(small.data) != self._manifest.files[small.index].size:
            raise MalformedTransfer("The other side sent a file of another size than it had offered.")
        self._require_compared(small.index)
        self._close_file()
        self._events.append(SmallArrived(small.index, small.sha256, small.data))

    def _end_file(self, done: FileDone) -> None:
        index = self._begin_file()
        if done.index != index or self._arrived != self._manifest.files[index].size:
            raise MalformedTransfer("The other side sent less of a file than it had offered.")
        self._close_file()
        self._events.append(FileEnded(index, done.sha256))

    def _lose_file(self, failed: FileFailed) -> None:
        if not self._wanted or failed.index != self._wanted[0]:
            raise MalformedTransfer("The other side gave up a file that it was not sending.")
        self._close_file()
        self._events.append(FileLost(failed.index, failed.sentence))

    def _begin_file(self) -> int:
        """The current file's index; its first message brings a `FileBegan`."""
        if not self._wanted:
            raise MalformedTransfer("The other side sent a file that was not asked for.")
        if not self._began:
            self._require_compared(self._wanted[0])
            self._began = True
            self._events.append(FileBegan(self._wanted[0]))
        return self._wanted[0]

    def _require_compared(self, index: int) -> None:
        if index in self._compare or index in self._asked:
            raise MalformedTransfer("The other side did not wait for what is needed of a file.")

    def _advance(self, index: int, length: int) -> None:
        self._arrived += length
        if self._arrived > self._manifest.files[index].size:
            raise MalformedTransfer("The other side sent more of a file than it had offered.")

    def _close_file(self) -> None:
        index = self._wanted.popleft()
        self._unjudged.add(index)
        self._compare.pop(index, None)
        self._asked.pop(index, None)
        self._comparisons.pop(index, None)
        self._began = False
        self._arrived = 0

    def _break_off(self, sentence: str) -> None:
        self.abort(Reason.PROTOCOL, sentence)
        self._events.append(PeerBroke(sentence))
