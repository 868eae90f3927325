"""iroh's matrix of four kinds of NAT with each other, whole meetings in virtual time."""

from __future__ import annotations

from itertools import product

import pytest

from crowline.lab.presets import PRESETS
from crowline.lab.virtual_attempt import virtual_attempt

# Its names for no NAT, EIM/EIF, EIM/APDF, and EDM with random ports/APDF.
KINDS = {"none": "public", "open": "full-cone", "moderate": "home", "strict": "symmetric"}
RUNS = 4


@pytest.mark.parametrize("pair", list(product(KINDS, KINDS)), ids="-".join)
def test_all_pairs_connect_and_all_but_one_directly(pair: tuple[str, str]) -> None:
    """Both ways round; two strict ones are told why a relay is all there is."""
    a, b = (PRESETS[KINDS[each]] for each in pair)
    outcomes = [virtual_attempt(a, b, seed) for seed in range(RUNS)]
    if pair == ("strict", "strict"):
        reasons = {(outcome.kind, outcome.reason) for outcome in outcomes}
        assert reasons == {("relay", "both NATs draw a new random port for each destination")}
    else:
        assert all(outcome.is_direct for outcome in outcomes), outcomes
