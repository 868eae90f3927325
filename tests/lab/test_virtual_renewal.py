"""Translators that end a mapping after a minute, however busy it is: streams go on without a gap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.lab.behaviour import Allocation, AllocationKind, Lifetimes
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Profile
from virtual_talk import Talk

HOME = PRESETS["home"]
LIFETIME = 60.0
FORGETFUL = replace(
    HOME,
    nats=tuple(
        replace(nat, lifetimes=Lifetimes(absolute=LIFETIME), allocation=Allocation(AllocationKind.RANDOM))
        for nat in HOME.nats
    ),
)
PAIRS = [(FORGETFUL, HOME), (HOME, FORGETFUL), (FORGETFUL, FORGETFUL)]


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=["host", "joining side", "both"])
def test_a_mapping_that_ends_after_a_minute_costs_one_short_gap_and_then_none(a: Profile, b: Profile) -> None:
    """The first end is noticed, the second and all later ones are forestalled: the direct path stays."""
    talk = Talk(a, b, 1)
    assert talk.talk(LIFETIME + 15) <= 2.0
    assert talk.kinds == ["direct", "direct"]
    before = [len(side.changes) for side in talk.sides]
    assert talk.talk(6 * LIFETIME, tick=0.1) <= 1.0
    for side, count in zip(talk.sides, before, strict=True):
        moves = side.changes[count:]
        assert {kind for _, kind, _ in moves} == {"direct"}
        assert not any("silent" in reason for _, _, reason in moves)
    talk.run(2)
    assert talk.is_whole()
