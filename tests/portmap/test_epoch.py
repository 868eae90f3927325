"""The gateway's clock, as RFC 6886 §3.6 and RFC 6887 §8.5 read it."""

from __future__ import annotations

import pytest

from crowline.portmap.epoch import Epoch


@pytest.mark.parametrize(
    ("is_strict", "seconds", "is_lost"),
    [
        (False, 1100, False),
        (False, 1086, False),  # 7/8 of 100 s, less 2 s, is 85.5
        (False, 1085, True),
        (False, 0, True),
        (False, 5000, False),
        (True, 1100, False),
        (True, 1092, False),  # 2 s more is not below 15/16 of 100 s, 93.75
        (True, 1091, True),
        (True, 1108, False),  # 102 s is not below 15/16 of 108 s, 101.25
        (True, 1109, True),
        (True, 998, True),
    ],
)
def test_a_clock_that_is_not_what_it_should_be_is_a_restart(
    is_strict: bool, seconds: int, is_lost: bool
) -> None:
    """100 s after it stood at 1000."""
    epoch = Epoch(is_strict=is_strict)
    assert not epoch.is_lost(1000, 50.0)
    assert epoch.is_lost(seconds, 150.0) is is_lost


@pytest.mark.parametrize("is_strict", [True, False])
def test_after_a_restart_the_new_clock_counts(is_strict: bool) -> None:
    """One restart is noticed once."""
    epoch = Epoch(is_strict=is_strict)
    assert not epoch.is_lost(1000, 0.0)
    assert epoch.is_lost(0, 10.0)
    assert not epoch.is_lost(10, 20.0)


def test_answers_may_change_places_by_a_second() -> None:
    """PCP allows the clock to stand one second lower than before (RFC 6887 §8.5)."""
    epoch = Epoch(is_strict=True)
    assert not epoch.is_lost(1000, 0.0)
    assert not epoch.is_lost(999, 0.0)
    assert epoch.is_lost(997, 0.0)
