"""How often passwords may be guessed: a back-off for each source and for each user name.

After a few failures a slot is closed for a second, and for twice as long after each failure more. What is
closed is answered by silence, so that a client with the right password asks again by itself and gets in.

Nobody who has got in is locked out by others, because a success is remembered too:

    source of a user     the throttle of the user name does not count there
    address of a user    no throttle counts there (address and port, so that neighbours behind one NAT do not)

All tables have a fixed size, and the hashes are keyed: a flood costs no memory, and nobody can aim at a slot.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.stun.budget import prefix_of

SLOTS = 1 << 13  # 64 KiB for each of five arrays
_TAG_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Patience:
    """`free` failures cost nothing; then the wait starts at `first` seconds and doubles up to `longest`.
    After `memory` seconds without a failure all is forgotten."""

    free: int
    first: float = 1.0
    longest: float = 30.0
    memory: float = 600.0


# A person mistypes a password a few times. Behind one address there may be a hundred persons.
USER = Patience(free=5)
SOURCE = Patience(free=20)


class PasswordThrottle:
    """Says whether a password may be tried, and is told how it went."""

    def __init__(self, user: Patience = USER, source: Patience = SOURCE) -> None:
        self._users = _Failures(user)
        self._sources = _Failures(source)
        self._known = array("Q", [0]) * SLOTS

    def may_try(self, user: str, source: Address, now: float) -> bool:
        """Whether a password of `user` from `source` is looked at."""
        if not self._users.is_closed(hash(user), now) and not self._sources.is_closed(_site(source), now):
            return True
        if self._is_known((user, source.host, source.port)):
            return True
        return self._is_known((user, _site(source))) and not self._sources.is_closed(_site(source), now)

    def failed(self, user: str, source: Address, now: float) -> None:
        self._users.add(hash(user), now)
        self._sources.add(_site(source), now)

    def succeeded(self, user: str, source: Address) -> None:
        for place in ((user, source.host, source.port), (user, _site(source))):
            tag = hash(place) & _TAG_MASK
            self._known[tag % SLOTS] = tag

    def _is_known(self, place: tuple[object, ...]) -> bool:
        tag = hash(place) & _TAG_MASK
        return self._known[tag % SLOTS] == tag


class _Failures:
    """How many there were in each slot, and until when it is closed."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._counts = array("Q", [0]) * SLOTS
        self._closed_until = array("d", [0.0]) * SLOTS

    def is_closed(self, key: int, now: float) -> bool:
        return now < self._closed_until[key % SLOTS]

    def add(self, key: int, now: float) -> None:
        slot, patience = key % SLOTS, self._patience
        if now > self._closed_until[slot] + patience.memory:
            self._counts[slot] = 0
        self._counts[slot] += 1
        excess = self._counts[slot] - patience.free
        wait = min(patience.first * 2.0 ** min(excess - 1, 30), patience.longest) if excess > 0 else 0.0
        self._closed_until[slot] = now + wait


def _site(source: Address) -> int:
    return hash(prefix_of(source))
