"""What a session tells its driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The other side opened a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamReadable:
    """There are bytes to read, or the end."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamWritable:
    """The other side has acknowledged bytes, or granted credit."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The other side gave the stream up. Nothing more is said of it."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class StreamDone:
    """Both directions have ended and arrived. Nothing more is said of the stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamsAllowed:
    """The other side takes new streams again, of which there had been as many as it takes."""


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """The other side sent a datagram; others may have been lost, and this one may be late."""

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class LinkChosen:
    """Streams flow by `link` from now on (None: by none); `was` carried them before."""

    link: int | None
    was: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class BulkIsSlow:
    """The link that carries bulk is slow, here or there: another one beside it would be tried."""


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The other side ended the session, with a sentence for people; `code` is an exit code."""

    code: int
    sentence: str


@dataclass(frozen=True, slots=True)
class SessionBroken:
    """The other side broke the protocol; nothing more is read or sent."""

    reason: str


SessionEvent: TypeAlias = (
    StreamOpened
    | StreamReadable
    | StreamWritable
    | StreamReset
    | StreamDone
    | StreamsAllowed
    | DatagramReceived
    | LinkChosen
    | BulkIsSlow
    | SessionClosed
    | SessionBroken
)
