"""Outside ports of fresh sockets, asked for one after the other: what a plan measures at its last moment."""

from __future__ import annotations

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.punch.port_prediction import Observation

SPACING = 0.012  # seconds between two questions: apart enough to keep their order
# Seconds after the last question in which answers are waited for: two that got lost, and a slow line.
ANSWER_TIME = 0.8


class Ask(Struct, frozen=True):
    """Ask a plain STUN server for the outside address of the socket of that number; a new number is a new
    socket."""

    socket: int


class Seen(Struct, frozen=True):
    """The server saw the socket `local` as `mapped`; `at`: when it was asked first."""

    socket: int
    local: Address | None
    mapped: Address
    at: float

    @property
    def observation(self) -> Observation:
        return Observation(self.mapped.port, self.at)


class Samples:
    """The questions of one round, to sockets of the numbers from `first` on, `spacing` seconds apart."""

    def __init__(self, first: int, count: int, spacing: float = SPACING) -> None:
        self._spacing = spacing
        self._waiting = list(range(first, first + count))
        self._asked: dict[int, float] = {}
        self._seen: dict[int, Seen] = {}
        self._silent: set[int] = set()
        self._due: float | None = None

    def begin(self, now: float) -> None:
        self._due = now

    @property
    def has_begun(self) -> bool:
        return self._due is not None

    @property
    def left(self) -> int:
        """Questions that were not asked yet."""
        return len(self._waiting)

    def next_question(self, now: float, *, at_once: bool = False) -> Ask | None:
        """The question whose time has come."""
        if self._due is None or not self._waiting or not (at_once or now >= self._due):
            return None
        number = self._waiting.pop(0)
        self._asked[number] = now
        self._due = now + (self._spacing if self._waiting else ANSWER_TIME)
        return Ask(number)

    def answered(self, number: int, local: Address | None, mapped: Address | None) -> None:
        """``None`` for `mapped`: nobody answered. Only the first answer to a question counts."""
        if number not in self._asked or number in self._seen:
            return
        if mapped is None:
            self._silent.add(number)
        else:
            self._seen[number] = Seen(number, local, mapped, self._asked[number])

    def is_over(self, now: float) -> bool:
        """Every question was answered, or has had its time."""
        if self._due is None or self._waiting:
            return False
        return now >= self._due or len(self._seen) + len(self._silent - set(self._seen)) == len(self._asked)

    def next_timeout(self) -> float | None:
        return self._due

    @property
    def seen(self) -> tuple[Seen, ...]:
        """What was answered, in the order of the questions."""
        return tuple(self._seen[number] for number in sorted(self._seen))
