"""Raw messages with lies in them, and streams cut by each codec that has streams."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from crowline.base.errors import MalformedMessage
from crowline.rendezvous import signals, wire
from crowline.session.frames import FrameParser, Kind, MalformedFrame, header
from crowline.stun import attributes as a
from crowline.stun.message import (
    MalformedStun,
    Message,
    MessageClass,
    Method,
)
from crowline.transfer.frames import DataPiece, FrameReader
from crowline.turn import channel_data
from crowline.turn.framing import StreamFramer, pad
from fuzz.harnesses.files import HARNESSES as FILES
from fuzz.harnesses.hub import FROM_CLIENT, FROM_HUB, SIGNALS
from fuzz.harnesses.stun import IDENTIFIER, vectors

PLAIN = Message(Method.BINDING, MessageClass.REQUEST, IDENTIFIER)
STREAM_LIMIT = 4096

JSON_DECODERS = {"client": wire.decode_client, "hub": wire.decode_hub, "signal": signals.decode}
JSON_VECTORS = {"client": FROM_CLIENT, "hub": FROM_HUB, "signal": SIGNALS}


def with_attributes(*parts: bytes) -> bytes:
    """A request with these raw attributes."""
    body = b"".join(parts)
    return struct.pack("!HH", 1, len(body)) + a.COOKIE_BYTES + IDENTIFIER + body


def raw_attribute(number: int, value: bytes, claimed: int | None = None) -> bytes:
    size = len(value) if claimed is None else claimed
    return struct.pack("!HH", number, size) + value + bytes(-len(value) % 4)


def cut_stun(data: Iterable[bytes]) -> list[bytes | None]:
    """The messages of a stream; None where it is broken."""
    framer, found = StreamFramer(STREAM_LIMIT), list[bytes | None]()
    try:
        for part in data:
            framer.feed(part)
            while (message := framer.next_message()) is not None:
                found.append(message)
    except MalformedStun:
        found.append(None)
    return found


def cut_session(data: Iterable[bytes]) -> list[object]:
    """Control frames and the bytes of streams; None at the end where it is broken."""
    frames: list[object] = []
    streams: dict[int, bytes] = {}

    def take(kind: Kind, stream: int, offset: int, payload: memoryview) -> None:
        if kind in (Kind.DATA, Kind.FIN):
            streams[stream] = streams.get(stream, b"") + bytes(payload)
        else:
            frames.append((kind, stream, offset, bytes(payload)))

    parser = FrameParser(take)
    try:
        for part in data:
            parser.feed(part)
    except MalformedFrame:
        frames.append(None)
    return [*frames, streams]


def cut_transfer(data: Iterable[bytes]) -> list[object]:
    """Messages and the bytes of files; None at the end where it is broken."""
    reader, found, content = FrameReader(), list[object](), bytearray()
    try:
        for part in data:
            reader.feed(part)
            while (message := reader.next()) is not None:
                if isinstance(message, DataPiece):
                    content += message.data
                else:
                    found.append(message)
    except MalformedMessage:
        found.append(None)
    return [*found, bytes(content)]


STUN_STREAM = b"".join(vectors()[:3]) + pad(channel_data.wrap(0x4001, b"abcde")) + PLAIN.encode()
SESSION_STREAM = (
    header(Kind.DATA, 1, 0, 5) + b"bytes" + header(Kind.PING, 0, 7) + header(Kind.FIN, 1, 5, 2) + b"xy"
)
TRANSFER_STREAM = FILES[0].seeds[1]
CUTTERS: dict[str, tuple[Callable[[Iterable[bytes]], list[object]], bytes]] = {
    "stun": (cut_stun, STUN_STREAM),  # type: ignore[dict-item]
    "session": (cut_session, SESSION_STREAM),
    "transfer": (cut_transfer, TRANSFER_STREAM),
}
