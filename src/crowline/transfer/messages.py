"""Every message of a file transfer, and the bytes it is on the wire.

line   = GREETING                             the sender's first bytes
frame  = type:u8 length:u32 payload           big-endian, `length` counts the payload
DATA     the next bytes of the current file, as they are
others   one msgpack map (https://github.com/msgpack/msgpack/blob/master/spec.md)

sender      OFFER ENTRIES… ──►  ◄── ACCEPT or REJECT
            per file to compare, whenever it is ready: DIGESTS ──►  ◄── WANT
            per file taken: (DATA | HOLE | KEEP)… (FILE_DONE | FILE_FAILED), or SMALL ──►  ◄── VERDICT
            FINISHED ──►  ◄── FINISHED
either      ABORT, at any time; nothing follows it

Files come in the offer's order, those to compare after all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum, StrEnum
from itertools import chain
from typing import Annotated, Any

import msgspec

from crowline.base.errors import MalformedMessage
from crowline.base.machine import Buffer
from crowline.transfer.chunks import DIGEST_BYTES, MAX_CHUNKS
from crowline.transfer.manifest import MAX_ENTRIES, File, Folder, Link, Manifest, Size

VERSION = 2

GREETING = b"crowline/send 2\n"
"""What a stream that carries files begins with."""

HEADER_BYTES = 5

MAX_DATA_FRAME = 1 << 20
"""Bytes of one DATA frame: 5 bytes of header are nothing beside it, and a reader holds a few of them."""

MAX_CONTROL_FRAME = 2 << 20
"""Bytes of one control frame: an ACCEPT that names a length for each of 100,000 files is 1.6 MB."""

ENTRIES_FRAME = 256 << 10
"""Bytes after which a sender begins a new ENTRIES frame, so that the receiver checks names as they come."""

MAX_SMALL = 64 << 10
"""Bytes of a file that travels in one frame with its hash."""

MAX_RUN = 1 << 30
"""Bytes that one HOLE or KEEP stands for: half a second of hashing, after which a side can be stopped."""

MAX_SENTENCE = 1000
"""Characters of a reason given in words."""

Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_ENTRIES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
RunLength = Annotated[int, msgspec.Meta(ge=1, le=MAX_RUN)]
Sentence = Annotated[str, msgspec.Meta(max_length=MAX_SENTENCE)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_ENTRIES)]


class MalformedTransfer(MalformedMessage):
    """The other side sent something that is not part of a file transfer."""


class FrameType(IntEnum):
    """The first byte of a frame."""

    OFFER = 1
    ENTRIES = 2
    ACCEPT = 3
    REJECT = 4
    DATA = 5
    FILE_DONE = 6
    FILE_FAILED = 7
    VERDICT = 8
    FINISHED = 9
    ABORT = 10
    SMALL = 11
    HOLE = 12
    KEEP = 13
    DIGESTS = 14
    WANT = 15


class Reason(StrEnum):
    """Why a side refused, stopped, or did not keep a file. Unknown words of later versions read as OTHER."""

    NONE = ""
    DECLINED = "declined"
    VERSION = "version"
    DISK_FULL = "disk-full"
    LOCAL = "local"
    INTEGRITY = "integrity"
    CANCELLED = "cancelled"
    PROTOCOL = "protocol"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Reason:
        return cls.OTHER


class Offer(msgspec.Struct, frozen=True):
    """What is coming; `entries` files and folders follow in ENTRIES frames."""

    version: int
    entries: Count
    bytes: Size


class Entries(msgspec.Struct, frozen=True):
    """A part of the manifest. Folders come before what is in them."""

    folders: Annotated[list[Folder], msgspec.Meta(max_length=MAX_ENTRIES)]
    files: Annotated[list[File], msgspec.Meta(max_length=MAX_ENTRIES)]
    links: Annotated[list[Link], msgspec.Meta(max_length=MAX_ENTRIES)] = []


class Accept(msgspec.Struct, frozen=True):
    """Which files to send: all but those in `skip`. Of each file in `compare` the receiver has something,
    and wants the digests of its first so many bytes before it says what it needs."""

    skip: Annotated[list[Index], msgspec.Meta(max_length=MAX_ENTRIES)] = []
    compare: Annotated[dict[Index, Size], msgspec.Meta(max_length=MAX_ENTRIES)] = {}


class Digests(msgspec.Struct, frozen=True):
    """The SHA-256 of each chunk of what is to be compared of a file, one after the other."""

    index: Index
    digests: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES * MAX_CHUNKS)]


class Want(msgspec.Struct, frozen=True):
    """Which of a file's compared chunks the receiver needs: bit 0 of the first byte is the first chunk."""

    index: Index
    missing: Annotated[bytes, msgspec.Meta(max_length=MAX_CHUNKS // 8)]


class Hole(msgspec.Struct, frozen=True):
    """The next `length` bytes of the current file are zero."""

    length: RunLength


class Keep(msgspec.Struct, frozen=True):
    """The next `length` bytes of the current file are what the receiver has in their place."""

    length: RunLength


class Small(msgspec.Struct, frozen=True):
    """The next file, whole, with its hash."""

    index: Index
    sha256: Digest
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_SMALL)]


class Reject(msgspec.Struct, frozen=True):
    """The receiver takes nothing."""

    reason: Reason
    sentence: Sentence = ""


class FileDone(msgspec.Struct, frozen=True):
    """The current file is complete; `sha256` is of the whole file."""

    index: Index
    sha256: Digest


class FileFailed(msgspec.Struct, frozen=True):
    """The current file cannot be sent whole; what came of it is worth nothing."""

    index: Index
    sentence: Sentence = ""


class Verdict(msgspec.Struct, frozen=True):
    """What became of a file at the receiver: verified and in place, or why not."""

    index: Index
    ok: bool
    reason: Reason = Reason.NONE
    sentence: Sentence = ""


class Finished(msgspec.Struct, frozen=True):
    """This side has nothing more to say."""


class Abort(msgspec.Struct, frozen=True):
    """This side stops here."""

    reason: Reason
    sentence: Sentence = ""


Message = (
    Offer
    | Entries
    | Accept
    | Reject
    | FileDone
    | FileFailed
    | Verdict
    | Finished
    | Abort
    | Small
    | Hole
    | Keep
    | Digests
    | Want
)

_SHAPES: dict[FrameType, type[Message]] = {
    FrameType.OFFER: Offer,
    FrameType.ENTRIES: Entries,
    FrameType.ACCEPT: Accept,
    FrameType.REJECT: Reject,
    FrameType.FILE_DONE: FileDone,
    FrameType.FILE_FAILED: FileFailed,
    FrameType.VERDICT: Verdict,
    FrameType.FINISHED: Finished,
    FrameType.ABORT: Abort,
    FrameType.SMALL: Small,
    FrameType.HOLE: Hole,
    FrameType.KEEP: Keep,
    FrameType.DIGESTS: Digests,
    FrameType.WANT: Want,
}
_TYPES = {shape: frame_type for frame_type, shape in _SHAPES.items()}
_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[FrameType, Callable[[Buffer], Any]] = {
    frame_type: msgspec.msgpack.Decoder(shape).decode for frame_type, shape in _SHAPES.items()
}


def encode(message: Message) -> bytes:
    """The whole frame of a control message."""
    payload = _ENCODER.encode(message)
    return frame_header(_TYPES[type(message)], len(payload)) + payload


def frame_header(frame_type: FrameType, length: int) -> bytes:
    return bytes((frame_type,)) + length.to_bytes(4, "big")


def decode(frame_type: FrameType, payload: Buffer) -> Message:
    """A control message from its payload. Raises `MalformedTransfer`."""
    try:
        message: Message = _DECODERS[frame_type](payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedTransfer(f"The other side sent an unreadable {frame_type.name} message.") from error
    return message


def offer_frames(manifest: Manifest) -> Iterator[bytes]:
    """The greeting and the OFFER and ENTRIES frames of a manifest, made one at a time."""
    yield GREETING
    count = len(manifest.folders) + len(manifest.files) + len(manifest.links)
    yield encode(Offer(VERSION, count, manifest.total))
    part = Entries([], [], [])
    size = 0
    entries: Iterator[Folder | File | Link] = chain(manifest.folders, manifest.files, manifest.links)
    for entry in entries:
        # A character is at most 4 bytes; 16 more are enough for the numbers and the lengths.
        size += 4 * len(entry.path) + 16
        if isinstance(entry, Folder):
            part.folders.append(entry)
        elif isinstance(entry, File):
            part.files.append(entry)
        else:
            part.links.append(entry)
            size += 4 * len(entry.target)
        if size >= ENTRIES_FRAME:
            yield encode(part)
            part, size = Entries([], [], []), 0
    if size:
        yield encode(part)
