"""Frames inside a TLS link: a length (u32, network byte order), then so many bytes of the session.

Length zero is an answer and carries nothing. Whoever has received session bytes and has none to send back
answers within `ANSWER_DELAY`, because TCP's own acknowledgements cannot be seen from here: without answers a
link that has carried the last acknowledgement of a session would look as if it had fallen silent. An answer
is not answered.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("!I")
ANSWER = HEADER.pack(0)
# Seconds that an answer waits for something that takes its place: the session's own acknowledgements come
# after 25 ms, and a link counts as stalled after 500.
ANSWER_DELAY = 0.05


class FrameReader:
    """Takes the frames apart. Nothing is put together first, so no length is too large."""

    def __init__(self) -> None:
        self._left = 0
        self._head = b""

    def feed(self, data: memoryview) -> Iterator[memoryview]:
        """The session's bytes among the next ones, as views of them."""
        while len(data):
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                yield piece
                continue
            missing = HEADER.size - len(self._head)
            self._head += data[:missing]
            data = data[missing:]
            if len(self._head) == HEADER.size:
                (self._left,) = HEADER.unpack(self._head)
                self._head = b""
