"""Which plans have led through between two networks: scores that put them in order before any is tried.

A plan loses a point when it is tried and gains two when it has led through: one that works once in two times
keeps its place. What is remembered are short names and small numbers; whose networks they are of is a key
that the caller has made unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from crowline.punch.plan_choice import Fit, Opens, PlannedWay, Way

TRIED, WORKED = -1, 3  # one that is tried and works gains two in all
LOWEST, HIGHEST = -8, 8  # what was long ago is forgotten by a handful of tries
MAX_NETWORKS = 256  # pairs of networks, the last that were used
MAX_PLANS = 32  # of a pair
MAX_BYTES = 128 * 1024  # 256 pairs with all their plans have 100 kB

_Key = Annotated[str, msgspec.Meta(max_length=64)]
_Scores = Annotated[
    dict[
        Annotated[str, msgspec.Meta(max_length=32)],
        Annotated[int, msgspec.Meta(ge=LOWEST, le=HIGHEST)],
    ],
    msgspec.Meta(max_length=MAX_PLANS),
]
_decoder = msgspec.json.Decoder(Annotated[dict[_Key, _Scores], msgspec.Meta(max_length=MAX_NETWORKS)])

_SIDES = {Opens.OWN: "own", Opens.PEER: "peer", Opens.BOTH: "both"}


def name_of(way: Way, opens: Opens) -> str:
    """The name of a plan, as seen from this side: ``spray/peer`` has the other side open the sockets."""
    return f"{way.name.lower().replace('_', '-')}/{_SIDES[opens]}"


def in_order(plans: Sequence[PlannedWay], scores: Mapping[str, int]) -> tuple[PlannedWay, ...]:
    """What has worked first, the best score before all others; what has failed after its equals.

    A relay is the last, as it is without scores.
    """

    def rank(plan: PlannedWay) -> tuple[bool, int, Fit, int]:
        score = scores.get(name_of(plan.way, plan.opens), 0)
        return plan.way is Way.RELAY, -max(score, 0), plan.fit, -min(score, 0)

    return tuple(sorted(plans, key=rank)) if scores else tuple(plans)


class PlanMemory:
    """Scores by key; `load` and `dump` are for whoever keeps it."""

    def __init__(self) -> None:
        self._scores: dict[str, dict[str, int]] = {}

    @classmethod
    def load(cls, data: bytes) -> PlanMemory:
        """What `dump` gave; anything else is an empty memory."""
        memory = cls()
        if len(data) <= MAX_BYTES:
            try:
                memory._scores = _decoder.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                memory._scores = {}
        return memory

    def dump(self) -> bytes:
        """JSON, at most `MAX_BYTES`."""
        return msgspec.json.encode(self._scores)

    def scores(self, key: str) -> dict[str, int]:
        """What is known of the plans between two networks, by their names."""
        return dict(self._scores.get(key, {}))

    def tried(self, key: str, plan: str) -> None:
        """The plan of that name begins between those networks."""
        self._add(key, plan, TRIED)

    def worked(self, key: str, plan: str) -> None:
        """It has led through."""
        self._add(key, plan, WORKED)

    def _add(self, key: str, plan: str, points: int) -> None:
        scores = self._scores.pop(key, {})
        self._scores[key] = scores
        if plan in scores or len(scores) < MAX_PLANS:
            scores[plan] = max(LOWEST, min(HIGHEST, scores.get(plan, 0) + points))
        while len(self._scores) > MAX_NETWORKS:
            del self._scores[next(iter(self._scores))]
