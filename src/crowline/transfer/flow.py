"""A stream of unknown length from one side to the other: the machines of both, and the bytes between them.

The sender's line ``crowline/send-stream 1`` comes first, then frames in both directions:

frame  = type:u8 length:u32 payload           big-endian, `length` counts the payload
DATA     the next bytes, as they are
others   one msgpack map

sender      OFFER ──►  ◄── ACCEPT
            DATA… END ──►  ◄── KEPT
either      STOP, at any time; nothing follows it

What is not confirmed by KEPT may not have arrived: the sender has not succeeded before it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Annotated

import msgspec

from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer
from crowline.transfer.endings import Ending, PeerBroke, PeerLeft, PeerStopped
from crowline.transfer.messages import MAX_SENTENCE, Digest, MalformedTransfer, Reason, Sentence
from crowline.transfer.names import check_component

SERVICE = "send-stream"
VERSION = 1
HEADER_BYTES = 5
MAX_DATA = 1 << 20
"""Bytes of one DATA frame."""
MAX_CONTROL = 8 << 10
"""Bytes of any other frame: the longest has a sentence of `MAX_SENTENCE` characters of 4 bytes."""

_NOTHING = memoryview(b"")


class _Type(IntEnum):
    OFFER = 1
    ACCEPT = 2
    DATA = 3
    END = 4
    KEPT = 5
    STOP = 6


class FlowOffer(msgspec.Struct, frozen=True):
    """`name`: what a file with these bytes may be called."""

    name: Annotated[str, msgspec.Meta(max_length=255)]


class _Accept(msgspec.Struct, frozen=True):
    pass


class _End(msgspec.Struct, frozen=True):
    size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    sha256: Digest


class _Kept(msgspec.Struct, frozen=True):
    pass


class _Stop(msgspec.Struct, frozen=True):
    reason: Reason
    sentence: Sentence = ""


_Message = FlowOffer | _Accept | _End | _Kept | _Stop
_SHAPES: dict[_Type, type[_Message]] = {
    _Type.OFFER: FlowOffer,
    _Type.ACCEPT: _Accept,
    _Type.END: _End,
    _Type.KEPT: _Kept,
    _Type.STOP: _Stop,
}
_TYPES = {shape: kind for kind, shape in _SHAPES.items()}


@dataclass(frozen=True, slots=True)
class FlowAccepted:
    """The other side takes what comes: `send` may begin."""


@dataclass(frozen=True, slots=True)
class FlowKept:
    """The other side has everything, checked, where it should be."""


@dataclass(frozen=True, slots=True)
class FlowOffered:
    """Answer with `accept` or `abort`. The name is safe to write."""

    name: str


@dataclass(frozen=True, slots=True)
class FlowData:
    """The next bytes: a view into what was given to `receive`."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class FlowEnded:
    """Everything has come, as it was sent: `keep` confirms it. `sha256` is of all of it."""

    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class FlowDamaged:
    """What came is not what was sent; the other side has been told."""


FlowEvent = FlowAccepted | FlowKept | FlowOffered | FlowData | FlowEnded | FlowDamaged | Ending


class _State(Enum):
    OFFERING = auto()
    CHOOSING = auto()
    FLOWING = auto()
    CONFIRMING = auto()
    OVER = auto()


class _FlowSide:
    """What both sides have in common: frames in, frames out, and the ways it ends early."""

    def __init__(self) -> None:
        self._state = _State.OFFERING
        self._view = _NOTHING
        self._head = bytearray()
        self._left = 0
        self._transmits: deque[Buffer] = deque()
        self._events: deque[FlowEvent] = deque()
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def over(self) -> bool:
        """Nothing more will come from this machine once its transmits and events are taken."""
        return self._state is _State.OVER

    def receive(self, data: Buffer) -> None:
        """Take bytes of the stream; they must not change until `next_event` has given ``None``."""
        if not self.over:
            self._view = memoryview(data).cast("B")

    def receive_end(self) -> None:
        """The stream has ended: the other side says nothing more."""
        if not self.over:
            self._end(PeerLeft())

    def next_transmit(self) -> Buffer | None:
        """The next bytes of the stream, or ``None``. They are not changed or reused afterwards."""
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> FlowEvent | None:
        try:
            while not self._events and not self.over and self._advance():
                pass
        except MalformedMessage as error:
            self.abort(Reason.PROTOCOL, error.message)
            self._events.append(PeerBroke(error.message))
        return self._events.popleft() if self._events else None

    def abort(self, reason: Reason, sentence: str) -> None:
        """Stop, and tell the other side why."""
        if not self.over:
            self._state = _State.OVER
            self._say(_Stop(reason, sentence[:MAX_SENTENCE]))

    def _say(self, message: _Message) -> None:
        self._transmits.append(_frame(_TYPES[type(message)], msgspec.msgpack.encode(message)))

    def _end(self, ending: Ending) -> None:
        self._state = _State.OVER
        self._events.append(ending)

    def _advance(self) -> bool:
        """Handle one message or piece of data; False where there is none."""
        if self._left:
            return self._take_piece()
        wanted = HEADER_BYTES if len(self._head) < HEADER_BYTES else HEADER_BYTES + self._length()
        self._head += self._take(wanted - len(self._head))
        if len(self._head) < HEADER_BYTES:
            return False
        kind, length = self._checked_type(), self._length()
        if kind is _Type.DATA:
            self._head.clear()
            self._left = length
            return True
        if len(self._head) < HEADER_BYTES + length:
            return bool(self._view)
        payload = bytes(self._head[HEADER_BYTES:])
        self._head.clear()
        self._receive_message(_decode(kind, payload))
        return True

    def _length(self) -> int:
        return int.from_bytes(self._head[1:HEADER_BYTES], "big")

    def _checked_type(self) -> _Type:
        try:
            kind = _Type(self._head[0])
        except ValueError:
            raise MalformedTransfer("The other side sent a message of an unknown type.") from None
        if not 1 <= self._length() <= (MAX_DATA if kind is _Type.DATA else MAX_CONTROL):
            raise MalformedTransfer("The other side sent a message of an impossible length.")
        return kind

    def _take_piece(self) -> bool:
        piece = self._take(self._left)
        self._left -= len(piece)
        if piece:
            self._on_data(piece)
        return bool(piece)

    def _take(self, count: int) -> memoryview:
        piece, rest = self._view[:count], self._view[count:]
        # An empty view would keep the caller's buffer alive.
        self._view = rest if rest else _NOTHING
        return piece

    def _receive_message(self, message: _Message) -> None:
        if isinstance(message, _Stop):
            self._end(PeerStopped(message.reason, message.sentence))
        else:
            self._on_message(message)

    def _on_message(self, message: _Message) -> None:
        raise NotImplementedError

    def _on_data(self, piece: memoryview) -> None:
        raise MalformedTransfer("The other side sent bytes out of turn.")


class FlowSender(_FlowSide):
    """The side that has the bytes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._say(FlowOffer(name))

    @property
    def size(self) -> int:
        """Bytes given to `send`."""
        return self._size

    def send(self, data: Buffer) -> None:
        """The next bytes, at most `MAX_DATA`, which must not change afterwards."""
        if self.over or not len(data):
            return
        if self._state is not _State.FLOWING:
            raise UsageError("nobody takes these bytes")
        self._size += len(data)
        self._digest.update(data)
        self._transmits.append(_header(_Type.DATA, len(data)))
        self._transmits.append(data)

    def finish(self) -> None:
        """That was all: `FlowKept` follows."""
        if self.over:
            return
        if self._state is not _State.FLOWING:
            raise UsageError("nothing has begun")
        self._state = _State.CONFIRMING
        self._say(_End(self._size, self._digest.digest()))

    def _on_message(self, message: _Message) -> None:
        if isinstance(message, _Accept) and self._state is _State.OFFERING:
            self._state = _State.FLOWING
            self._events.append(FlowAccepted())
        elif isinstance(message, _Kept) and self._state is _State.CONFIRMING:
            self._state = _State.OVER
            self._events.append(FlowKept())
        else:
            raise MalformedTransfer("The other side sent a message out of turn.")


class FlowReceiver(_FlowSide):
    """The side that gets the bytes. After `receive` it must take events until ``None``."""

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self._size

    def accept(self) -> None:
        """Take what comes."""
        if self.over:
            return
        if self._state is not _State.CHOOSING:
            raise UsageError("there is nothing to accept")
        self._state = _State.FLOWING
        self._say(_Accept())

    def keep(self) -> None:
        """Everything is where it should be."""
        if self.over:
            return
        if self._state is not _State.CONFIRMING:
            raise UsageError("not everything has come")
        self._state = _State.OVER
        self._say(_Kept())

    def _on_message(self, message: _Message) -> None:
        if isinstance(message, FlowOffer) and self._state is _State.OFFERING:
            check_component(message.name)
            self._state = _State.CHOOSING
            self._events.append(FlowOffered(message.name))
        elif isinstance(message, _End) and self._state is _State.FLOWING:
            self._close(message)
        else:
            raise MalformedTransfer("The other side sent a message out of turn.")

    def _on_data(self, piece: memoryview) -> None:
        if self._state is not _State.FLOWING:
            super()._on_data(piece)
        self._size += len(piece)
        self._digest.update(piece)
        self._events.append(FlowData(piece))

    def _close(self, end: _End) -> None:
        sha256 = self._digest.digest()
        if (end.size, end.sha256) != (self._size, sha256):
            self.abort(Reason.INTEGRITY, "What arrived is not what was sent.")
            self._events.append(FlowDamaged())
            return
        self._state = _State.CONFIRMING
        self._events.append(FlowEnded(self._size, sha256))


def _frame(kind: _Type, payload: bytes) -> bytes:
    return _header(kind, len(payload)) + payload


def _header(kind: _Type, length: int) -> bytes:
    return bytes((kind,)) + length.to_bytes(4, "big")


def _decode(kind: _Type, payload: bytes) -> _Message:
    try:
        return msgspec.msgpack.decode(payload, type=_SHAPES[kind])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedTransfer(f"The other side sent an unreadable {kind.name} message.") from error
