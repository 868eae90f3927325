"""Which pairs get a link, and which link the session prefers: the same in the product and in virtual time."""

from __future__ import annotations

from collections.abc import Collection

from crowline.ice.pair import ValidPair

# Links that may be opening or up at once: the relayed one, the direct one, and one that is to replace it.
MAX_LINKS = 4
# The session's number for link zero.
HUB_LINK = 0
# Above every pair priority (RFC 8445 §6.1.2.3: less than 2^63), so that the kind of link decides first.
_STEP = 1 << 64
HUB_RANK = _STEP
_RANKS = {"relay": 2 * _STEP, "direct": 3 * _STEP}


def category_of(pair: ValidPair) -> str:
    """``relay`` or ``direct``: the better link of each kind is kept."""
    return "relay" if pair.kind == "relay" else "direct"


def rank_of(pair: ValidPair) -> int:
    """How much a link on `pair` is preferred; both sides agree on it, since pair priorities are the same."""
    return _RANKS[category_of(pair)] + pair.priority


def deserves_link(pair: ValidPair, used: Collection[ValidPair]) -> bool:
    """Whether `pair` is better than those of its kind among the pairs that links use or are about to use."""
    if len(used) >= MAX_LINKS:
        return False
    return all(
        other.key != pair.key and (category_of(other) != category_of(pair) or other.priority < pair.priority)
        for other in used
    )
