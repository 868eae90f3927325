"""Where a TCP pair goes over from framed STUN to TLS: after one zero-length frame (RFC 4571) each way.

Rules of this file
1. Each direction goes over by itself. Every byte after the empty frame is TLS, for ever.
2. The controlled side sends its empty frame once the pair is nominated, which means that its own check has
   been answered too. The controlling side sends its own when its nominating check has been answered and the
   other's empty frame has come: until then it answers the checks that the other has under way.
3. Before the nomination an empty frame means nothing that either side could have meant.
"""

from __future__ import annotations

from crowline.base.machine import Buffer

EMPTY_FRAME = b"\0\0"


class StreamSwitch:
    """One connection's state between frames and TLS. Its driver owns the framer and the link."""

    def __init__(self) -> None:
        self.has_sent = False
        """Whether the empty frame was taken for sending: nothing framed may be sent any more."""
        self.has_received = False
        """Whether the other side's came: all that it sends from there on is TLS."""
        self._is_nominated = False
        self._is_first = False
        # Bytes of the current frame that are still to come, and the first half of a header cut in two.
        self._missing = 0
        self._high: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether both directions carry TLS: a link's bytes may be sent and received."""
        return self.has_sent and self.has_received

    @property
    def is_premature(self) -> bool:
        """Whether the other side went over without a nomination: the connection is good for nothing.

        Ask after what was framed has been acted on, since the nomination may lie in that.
        """
        return self.has_received and not self._is_nominated

    def nominate(self, *, is_controlling: bool) -> None:
        """This side, in that role now, regards the pair as nominated (RFC 8445 §7.2.5.3.4, §7.3.1.5)."""
        if not self._is_nominated:
            self._is_nominated = True
            self._is_first = not is_controlling

    def take_frame(self) -> bytes:
        """The empty frame, once, when it is due; else nothing. Link bytes may follow it at once."""
        due = self._is_nominated and not self.has_sent and (self.has_received or self._is_first)
        self.has_sent |= due
        return EMPTY_FRAME if due else b""

    def split(self, data: Buffer) -> tuple[memoryview, memoryview]:
        """What of the stream's next bytes is framed, the empty frame included, and what is TLS."""
        view = memoryview(data)
        if self.has_received:
            return view[:0], view
        at = 0
        while True:
            step = min(self._missing, len(view) - at)
            at += step
            self._missing -= step
            if at == len(view):
                return view, view[at:]
            byte = view[at]
            at += 1
            if self._high is None:
                self._high = byte
                continue
            self._missing, self._high = self._high << 8 | byte, None
            if self._missing == 0:
                self.has_received = True
                return view[:at], view[at:]
