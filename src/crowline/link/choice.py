"""Which pairs get a link, and which link the session prefers: the same in the product and in virtual time."""

from __future__ import annotations

from collections.abc import Collection

from crowline.ice.pair import ValidPair

# Links of one category that may be opening or up at once: the one in use, one that is dying, and one that is
# to replace them.
MAX_LINKS_OF_A_KIND = 3
MAX_LINKS = 2 * MAX_LINKS_OF_A_KIND
# The session's number for link zero.
HUB_LINK = 0
# The kind of link decides first; among links of one rank, the session knows by merit and measurement.
HUB_RANK = 1
_RANKS = {"relay": 2, "direct": 3}


def category_of(pair: ValidPair) -> str:
    """``relay`` or ``direct``: the better link of each kind is kept."""
    return "relay" if pair.kind == "relay" else "direct"


def rank_of(pair: ValidPair) -> int:
    """How much a link on `pair` is preferred to those of other kinds. Its merit within its rank is the pair's
    priority, on which both sides agree."""
    return _RANKS[category_of(pair)]


def deserves_link(pair: ValidPair, used: Collection[ValidPair]) -> bool:
    """Whether `pair` is better than those of its kind among the pairs that links use or are about to use.

    A pair of the other transport is of another kind: which is better is known when both have been measured.
    """
    return has_room(pair, used) and all(
        other.key != pair.key and (_kind_of(other) != _kind_of(pair) or other.priority < pair.priority)
        for other in used
    )


def has_room(pair: ValidPair, used: Collection[ValidPair]) -> bool:
    """Whether one more link may be opened beside those on `used`."""
    return sum(1 for other in used if category_of(other) == category_of(pair)) < MAX_LINKS_OF_A_KIND


def _kind_of(pair: ValidPair) -> tuple[str, str]:
    return category_of(pair), pair.local.transport
