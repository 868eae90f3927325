"""What a session tells its driver."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class StreamOpened(Struct, frozen=True):
    """The other side opened a stream."""

    stream: int


class StreamReadable(Struct, frozen=True):
    """There are bytes to read, or the end."""

    stream: int


class StreamWritable(Struct, frozen=True):
    """The other side has acknowledged bytes, or granted credit."""

    stream: int


class StreamReset(Struct, frozen=True):
    """The other side gave the stream up. Nothing more is said of it."""

    stream: int
    code: int


class StreamDone(Struct, frozen=True):
    """Both directions have ended and arrived. Nothing more is said of the stream."""

    stream: int


class StreamsAllowed(Struct, frozen=True):
    """The other side takes new streams again, of which there had been as many as it takes."""


class DatagramReceived(Struct, frozen=True):
    """The other side sent a datagram; others may have been lost, and this one may be late."""

    data: bytes | memoryview


class LinkChosen(Struct, frozen=True):
    """Streams flow by `link` from now on (None: by none); `was` carried them before."""

    link: int | None
    was: int | None
    reason: str


class LinkSought(Struct, frozen=True):
    """Bulk, here or there, would go by another link beside the one that carries it."""


class SessionClosed(Struct, frozen=True):
    """The other side ended the session, with a sentence for people; `code` is an exit code."""

    code: int
    sentence: str


class SessionBroken(Struct, frozen=True):
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
    | LinkSought
    | SessionClosed
    | SessionBroken
)
