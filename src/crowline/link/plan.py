"""What the side that opens links does about each valid pair: when it opens, tries again and lets go.

The same in the product and in virtual time. It opens links and ends them by its user's hands: ask `wants`,
tell what happened, and do what `due` says at `next_timeout`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.ice.pair import PairKey, ValidPair
from crowline.link.choice import category_of, deserves_link, has_room

# Seconds that a direct link stays after another one has taken over: what is still on its way arrives, and
# both are measured long enough to know which is shorter.
LINGER = 10.0
# Seconds until a link that ended on a pair that is still valid is tried again; doubled each time, without an
# end to the tries while the meeting lives.
RETRY_AFTER = 1.0
LONGEST_RETRY = 60.0
# Seconds since its last proof after which a pair must answer before a link is opened on it (RFC 7675 §5.1).
FRESH = 30.0
# Seconds that it is given for that answer before it is looked at again.
_ANSWER_TIME = 1.0
# Seconds that a link must have been up for its failures before to be forgotten.
STEADY = 60.0
# Addresses remembered that will be gone soon: those of both sides in half an hour at the least.
MAX_FADING_ENDS = 64
# Seconds for which a pair rests that was better by its priority and let go for a shorter one: then it is
# measured again.
REST = 300.0


class Due(NamedTuple):
    """`ending`: pairs whose links are to be ended; `look`: ask `wants` for all valid pairs again."""

    ending: list[PairKey]
    look: bool


class _History(Struct):
    failures: int = 0
    up_since: float | None = None
    # Not before that time is a link opened again.
    again_at: float = 0.0
    # Nobody has looked at the pair since then.
    is_waiting: bool = False


class LinkPlan:
    """Remembers what became of the links of each pair, and which of those that are up are to go."""

    def __init__(self) -> None:
        self._histories: dict[PairKey, _History] = {}
        self._ending: dict[PairKey, float] = {}
        self._fading: set[PairKey] = set()
        self._fading_ends: dict[Address, None] = {}

    def wants(
        self, pair: ValidPair, used: Collection[ValidPair], ailing: Collection[PairKey], now: float
    ) -> bool:
        """Whether to open a link on `pair` now.

        `used`: the pairs of links that are opening or up; those of `ailing` carry nothing, so that a pair
        that is no better than they gets a link beside them.
        """
        history = self._histories.get(pair.key)
        if history is not None and now < history.again_at:
            return False
        if not has_room(pair, used) or any(other.key == pair.key for other in used):
            return False
        working = [each for each in used if each.key not in ailing]
        if self.is_fading(pair) and any(category_of(each) == category_of(pair) for each in working):
            return False
        return deserves_link(pair, [each for each in working if not self._is_leaving(each)])

    def must_answer(self, pair: ValidPair, now: float) -> bool:
        """Whether nothing has proven the pair for so long that consent has to come first: ask for it."""
        if now - pair.proven_at <= FRESH:
            return False
        history = self._histories.setdefault(pair.key, _History())
        history.again_at, history.is_waiting = now + _ANSWER_TIME, True
        return True

    def in_turn(self, pairs: Iterable[ValidPair]) -> list[ValidPair]:
        """Those that failed least first, then the best."""
        return sorted(pairs, key=lambda pair: (self._failures(pair.key), -pair.priority))

    def up(self, pair: ValidPair, now: float) -> None:
        """The link on `pair` may be used."""
        self._histories.setdefault(pair.key, _History()).up_since = now

    def ended(self, pair: ValidPair, now: float) -> None:
        """The link on `pair` is gone, or never came up; nobody wanted that."""
        history = self._histories.setdefault(pair.key, _History())
        if history.up_since is not None and now - history.up_since >= STEADY:
            history.failures = 0
        history.failures += 1
        history.up_since = None
        history.again_at = now + min(RETRY_AFTER * 2.0 ** (history.failures - 1), LONGEST_RETRY)
        history.is_waiting = True
        self._forget(pair.key)
        for other in self._histories.values():
            if not other.is_waiting:  # it rests; what it was let go for may be what has just ended
                other.again_at = now

    def let_go(self, pair: ValidPair, better: ValidPair | None, now: float) -> None:
        """The link on `pair` was ended because that on `better` took over."""
        history = self._histories.setdefault(pair.key, _History())
        history.up_since = None
        if better is not None:
            self._fading.discard(better.key)  # it has outlasted another
            if pair.priority > better.priority:
                history.again_at = now + REST
        self._forget(pair.key)

    def chosen(self, pair: ValidPair | None, up: Iterable[ValidPair], now: float) -> None:
        """The streams flow by the link on `pair` (None: by the server); all links on `up` are up.

        Direct links beside a chosen direct one go after a while; while none is chosen, each may be needed.
        """
        if pair is None or category_of(pair) != "direct":
            self._ending.clear()
            return
        others = {each.key for each in up if each.key != pair.key and category_of(each) == "direct"}
        self._ending = {key: self._ending.get(key, now + LINGER) for key in others}

    def start_over(self, used: Iterable[ValidPair]) -> None:
        """The network of either side is another one: failures do not count, and the links of today may not
        last, so that others are opened beside them."""
        for history in self._histories.values():
            history.failures, history.again_at, history.is_waiting = 0, 0.0, False
        self._fading.update(pair.key for pair in used)

    def fade(self, end: Address) -> None:
        """What begins or ends at that address will not last: another pair gets a link beside one there."""
        if len(self._fading_ends) >= MAX_FADING_ENDS:
            del self._fading_ends[next(iter(self._fading_ends))]
        self._fading_ends[end] = None

    def is_fading(self, pair: ValidPair) -> bool:
        """Whether one of its ends will be gone soon."""
        return pair.base in self._fading_ends or pair.remote.address in self._fading_ends

    def due(self, now: float) -> Due:
        """What is to be done now."""
        ending = [key for key, at in self._ending.items() if at <= now]
        for key in ending:
            del self._ending[key]
        waiting = [each for each in self._histories.values() if each.is_waiting and each.again_at <= now]
        for history in waiting:
            history.is_waiting = False
        return Due(ending, look=bool(waiting))

    def next_timeout(self) -> float | None:
        waiting = [each.again_at for each in self._histories.values() if each.is_waiting]
        return min([*self._ending.values(), *waiting], default=None)

    def _is_leaving(self, pair: ValidPair) -> bool:
        return pair.key in self._fading or self.is_fading(pair)

    def _failures(self, key: PairKey) -> int:
        history = self._histories.get(key)
        return history.failures if history is not None else 0

    def _forget(self, key: PairKey) -> None:
        self._ending.pop(key, None)
        self._fading.discard(key)
