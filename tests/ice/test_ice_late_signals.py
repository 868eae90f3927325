"""Signals that one side hears much later than the other, behind NATs that filter until then."""

from __future__ import annotations

import pytest

from crowline.base.machine import Transmit
from ice_pair import IcePair, IceSide


def tell(side: IceSide, after: float) -> None:
    """The other side hears all that this one says, that much later."""
    agent, other = side.agent, side.other.agent
    ufrag, pwd, candidates = agent.ufrag, agent.pwd, agent.local_candidates()

    def hear() -> None:
        other.set_remote(ufrag, pwd, side.pair.now)
        for candidate in candidates:
            other.add_remote_candidate(candidate, side.pair.now)
        other.end_of_remote_candidates(side.pair.now)

    agent.end_of_local_candidates(side.pair.now)
    side.pair.later(after, hear)


@pytest.mark.parametrize("late", [1.0, 10.0, 30.0, 39.0])
@pytest.mark.parametrize("bases", [(1, 1), (1, 4), (4, 1), (3, 3)])
@pytest.mark.parametrize("first", [0, 1], ids=["controlling first", "controlled first"])
def test_the_side_that_began_early_is_still_able_to_check(
    bases: tuple[int, int], late: float, first: int
) -> None:
    """All its bases have asked one address in vain; when that is heard, something is left to ask it with."""
    pair = IcePair(bases=bases, ta=0.05)
    has_sent = [False, False]

    def drops(sender: int, transmit: Transmit, now: float) -> bool:
        has_sent[sender] = True
        return not has_sent[1 - sender]

    pair.drops = drops
    tell(pair.sides[1 - first], 0.01)
    tell(pair.sides[first], late)
    pair.run(late + 10.0)
    assert all(side.agent.selected is not None for side in pair.sides)
