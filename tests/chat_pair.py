"""Two sides of a chat whose bytes are carried by hand, in virtual time."""

from __future__ import annotations

from crowline.chat.events import ChatEvent
from crowline.chat.talk import Talk


class ChatPair:
    """`events` has what each side was told, the first side's under 0."""

    def __init__(self) -> None:
        self.sides = (Talk(), Talk())
        self.events: tuple[list[ChatEvent], list[ChatEvent]] = ([], [])
        self.now = 0.0
        # Bytes of one piece on the way; everything at once without.
        self.piece: int | None = None

    def carry(self) -> None:
        """Bring everything over, both ways, until nobody has anything to say."""
        busy = True
        while busy:
            busy = False
            for index, side in enumerate(self.sides):
                other = self.sides[1 - index]
                while (data := side.next_transmit(self.now)) is not None:
                    busy = True
                    step = self.piece or len(data)
                    for start in range(0, len(data), step):
                        other.receive(data[start : start + step], self.now)
        self.collect()

    def run(self, until: float) -> None:
        """Let the time pass."""
        self.carry()
        while (at := self._next_timeout()) is not None and at <= until:
            self.now = max(self.now, at)
            for side in self.sides:
                side.handle_timeout(self.now)
            self.carry()
        self.now = until
        self.carry()

    def collect(self) -> None:
        for side, events in zip(self.sides, self.events, strict=True):
            while (event := side.next_event()) is not None:
                events.append(event)

    def _next_timeout(self) -> float | None:
        times = [time for side in self.sides if (time := side.next_timeout()) is not None]
        return min(times, default=None)
