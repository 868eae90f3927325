"""One side of a chat: what was said and not delivered yet, what is marked, who is writing, who is away."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from crowline.base.errors import UsageError
from crowline.base.machine import Buffer
from crowline.chat.events import Arrived, Broken, ChatEvent, Delivered, PeerAway, PeerLeft, PeerTyping, Read
from crowline.chat.messages import (
    MAX_NOTE,
    MAX_TEXT,
    Away,
    FrameReader,
    MalformedChat,
    Marks,
    Message,
    Say,
    Typing,
    encode,
)

TYPING_REPEAT = 5.0
"""Seconds between two signs that this side's person still writes."""

TYPING_PAUSE = 4.0
"""Seconds without a key after which nobody writes any more."""

TYPING_LIFE = 12.0
"""Seconds that the other side's sign of writing is good: two of them may be late."""

MAX_KEPT = 10_000
"""Messages kept until they are delivered: more than a person writes while the other side is out of reach."""

MAX_KEPT_CHARACTERS = 1 << 22
"""Characters of all those together."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message of this side."""

    number: int
    text: str


class Talk:
    """A machine over one ordered stream, which may come later than the first message."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._events: deque[ChatEvent] = deque()
        self._kept: deque[Said] = deque()
        self._kept_characters = 0
        # Messages that have not been given to the stream, the last ones of `_kept`.
        self._unsent: deque[Said] = deque()
        self._last_said = 0
        self._delivered = 0
        self._read = 0
        self._received = 0
        self._seen = 0
        self._own_marks = Marks(0)
        self._typed_at: float | None = None
        self._typing_told_at: float | None = None
        self._away: Away | None = None
        self._peer_typing_until: float | None = None
        self._peer_away = Away(False)
        self._is_over = False

    @property
    def delivered(self) -> int:
        """The number of this side's last message that the other one has."""
        return self._delivered

    @property
    def received(self) -> int:
        """The number of the other side's last message."""
        return self._received

    @property
    def waiting(self) -> int:
        """How many of this side's messages are not delivered."""
        return len(self._kept)

    @property
    def undelivered(self) -> tuple[Said, ...]:
        """What the other side does not have yet, as far as this one knows."""
        return tuple(self._kept)

    @property
    def has_room(self) -> bool:
        """Whether one more message may wait for the other side, of whatever length."""
        return len(self._kept) < MAX_KEPT and self._kept_characters <= MAX_KEPT_CHARACTERS - MAX_TEXT

    def say(self, text: str) -> int:
        """The number of that message. Raises `UsageError` for none, for a text of more than `MAX_TEXT`
        characters, and without `has_room`.
        """
        if not 1 <= len(text) <= MAX_TEXT:
            raise UsageError(f"A message has between 1 and {MAX_TEXT:,} characters.")
        if not self.has_room:
            raise UsageError("Too much waits for the other side already.", hint="Wait until it is back.")
        text = _encodable(text)
        self._last_said += 1
        said = Said(self._last_said, text)
        self._kept.append(said)
        self._kept_characters += len(text)
        self._unsent.append(said)
        self._typed_at = self._typing_told_at = None
        return said.number

    def saw(self, number: int) -> None:
        """This side's person has seen the other's messages up to `number`."""
        self._seen = max(self._seen, min(number, self._received))

    def typed(self, now: float) -> None:
        """This side's person pressed a key."""
        self._typed_at = now

    def away(self, note: str | None) -> None:
        """This side's person is away, with a line about it, or back (None)."""
        self._away = Away(False) if note is None else Away(True, _encodable(note[:MAX_NOTE]))

    def receive(self, data: Buffer, now: float) -> None:
        """The next bytes of the stream; none at its end."""
        if self._is_over:
            return
        if not len(data):
            self._end(PeerLeft())
            return
        self._reader.feed(data)
        try:
            while not self._is_over and (message := self._reader.next()) is not None:
                self._on_message(message, now)
        except MalformedChat as error:
            self._end(Broken(error.message))

    def part(self) -> None:
        """The stream is lost: whoever comes next neither writes nor is away until that is said."""
        self._is_over = True
        self._peer_stopped_typing()
        if self._peer_away.on:
            self._peer_away = Away(False)
            self._events.append(PeerAway(False, ""))

    def handle_timeout(self, now: float) -> None:
        if self._peer_typing_until is not None and now >= self._peer_typing_until:
            self._peer_stopped_typing()

    def next_timeout(self) -> float | None:
        """Also when this side's own sign of writing is due, or its end: `next_transmit` looks at both."""
        times = [self._peer_typing_until]
        if self._typing_told_at is not None and self._typed_at is not None:
            pause, repeat = self._typed_at + TYPING_PAUSE, self._typing_told_at + TYPING_REPEAT
            times.append(min(pause, repeat) if self._typed_at > self._typing_told_at else pause)
        return min((time for time in times if time is not None), default=None)

    def next_transmit(self, now: float) -> bytes | None:
        """The next frame. Marks and signs are made of what is true now, so they never pile up."""
        message = None if self._is_over else self._next_message(now)
        return None if message is None else encode(message)

    def next_event(self) -> ChatEvent | None:
        return self._events.popleft() if self._events else None

    def _next_message(self, now: float) -> Message | None:
        if self._unsent:
            said = self._unsent.popleft()
            return Say(said.number, said.text)
        marks = Marks(self._received, self._seen)
        if marks != self._own_marks:
            self._own_marks = marks
            return marks
        if self._away is not None:
            away, self._away = self._away, None
            return away
        return self._next_sign(now)

    def _next_sign(self, now: float) -> Typing | None:
        if self._typed_at is None:
            return None
        if now >= self._typed_at + TYPING_PAUSE:
            was_told = self._typing_told_at is not None
            self._typed_at = self._typing_told_at = None
            return Typing(False) if was_told else None
        told = self._typing_told_at
        if told is None or (now >= told + TYPING_REPEAT and self._typed_at > told):
            self._typing_told_at = now
            return Typing(True)
        return None

    def _on_message(self, message: Message, now: float) -> None:
        if isinstance(message, Say):
            self._on_say(message)
        elif isinstance(message, Marks):
            self._on_marks(message)
        elif isinstance(message, Typing):
            self._on_typing(message, now)
        elif message != self._peer_away:
            self._peer_away = message
            self._events.append(PeerAway(message.on, message.note))

    def _on_say(self, message: Say) -> None:
        if message.id != self._received + 1:
            self._end(Broken("The other side left out a message, or sent one twice."))
            return
        self._received = message.id
        self._peer_stopped_typing()
        self._events.append(Arrived(message.id, message.text))

    def _on_marks(self, message: Marks) -> None:
        sent = self._unsent[0].number - 1 if self._unsent else self._last_said
        if message.delivered > sent or message.read > message.delivered:
            self._end(Broken("The other side marked a message that was never sent."))
            return
        if message.delivered > self._delivered:
            self._delivered = message.delivered
            while self._kept and self._kept[0].number <= self._delivered:
                self._kept_characters -= len(self._kept.popleft().text)
            self._events.append(Delivered(self._delivered))
        if message.read > self._read:
            self._read = message.read
            self._events.append(Read(self._read))

    def _on_typing(self, message: Typing, now: float) -> None:
        if not message.on:
            self._peer_stopped_typing()
            return
        if self._peer_typing_until is None:
            self._events.append(PeerTyping(True))
        self._peer_typing_until = now + TYPING_LIFE

    def _peer_stopped_typing(self) -> None:
        if self._peer_typing_until is not None:
            self._peer_typing_until = None
            self._events.append(PeerTyping(False))

    def _end(self, event: ChatEvent) -> None:
        self._is_over = True
        self._peer_stopped_typing()
        self._events.append(event)


def _encodable(text: str) -> str:
    """Half a surrogate pair, as file names and JSON may hold, has no encoding."""
    return text.encode("utf-8", "replace").decode()
