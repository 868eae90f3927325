"""Checks that overtake the signal of their candidate: what looks direct may turn out to be relayed."""

from __future__ import annotations

import pytest

from crowline.lab.presets import PRESETS
from crowline.lab.virtual_attempt import Geometry, virtual_attempt


@pytest.mark.parametrize(
    ("a", "b"), [("public", "home"), ("full-cone", "cgn"), ("address-restricted", "ipv6-home")]
)
def test_a_relayed_pair_that_looked_direct_does_not_stay_in_use(a: str, b: str) -> None:
    """On lines that lose a signal now and then, every attempt ends on the direct path that there is."""
    geometry = Geometry(loss=0.01)
    outcomes = [virtual_attempt(PRESETS[a], PRESETS[b], seed, geometry=geometry) for seed in range(20)]
    assert [outcome.is_direct for outcome in outcomes] == [True] * 20
