"""Every message of a file transfer, and the bytes it is on the wire.

frame  = type:u8 length:u32 payload           big-endian, `length` counts the payload
DATA     the next bytes of the current file, as they are
others   one msgpack map (https://github.com/msgpack/msgpack/blob/master/spec.md)

sender      OFFER ENTRIES… ──►  ◄── ACCEPT or REJECT
            per file taken, in the offer's order: DATA… (FILE_DONE | FILE_FAILED) ──►  ◄── VERDICT
            FINISHED ──►  ◄── FINISHED
either      ABORT, at any time; nothing follows it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum, StrEnum
from itertools import chain
from typing import Annotated, Any

import msgspec

from crowline.base.errors import MalformedMessage
from crowline.base.machine import Buffer
from crowline.transfer.manifest import MAX_ENTRIES, File, Folder, Manifest, Size

VERSION = 1

HEADER_BYTES = 5

MAX_DATA_FRAME = 1 << 20
"""Bytes of one DATA frame: 5 bytes of header are nothing beside it, and a reader holds a few of them."""

MAX_CONTROL_FRAME = 2 << 20
"""Bytes of one control frame: an ACCEPT that names an offset for each of 100,000 files is 1.6 MB."""

ENTRIES_FRAME = 256 << 10
"""Bytes after which a sender begins a new ENTRIES frame, so that the receiver checks names as they come."""

MAX_SENTENCE = 1000
"""Characters of a reason given in words."""

Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_ENTRIES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
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


class Accept(msgspec.Struct, frozen=True):
    """Which files to send: all but those in `skip`, from the first byte but for those in `offsets`."""

    skip: Annotated[list[Index], msgspec.Meta(max_length=MAX_ENTRIES)] = []
    offsets: Annotated[dict[Index, Size], msgspec.Meta(max_length=MAX_ENTRIES)] = {}


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


Message = Offer | Entries | Accept | Reject | FileDone | FileFailed | Verdict | Finished | Abort

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
    """The OFFER and ENTRIES frames of a manifest, made one at a time."""
    yield encode(Offer(VERSION, len(manifest.folders) + len(manifest.files), manifest.total))
    folders: list[Folder] = []
    files: list[File] = []
    size = 0
    entries: Iterator[Folder | File] = chain(manifest.folders, manifest.files)
    for entry in entries:
        if isinstance(entry, Folder):
            folders.append(entry)
        else:
            files.append(entry)
        # A character is at most 4 bytes; 16 more are enough for the numbers and the lengths.
        size += 4 * len(entry.path) + 16
        if size >= ENTRIES_FRAME:
            yield encode(Entries(folders, files))
            folders, files, size = [], [], 0
    if folders or files:
        yield encode(Entries(folders, files))
