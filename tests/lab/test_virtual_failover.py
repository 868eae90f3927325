"""Paths that die under a running stream, and come back: the machines of the product in virtual time."""

from __future__ import annotations

import random

import pytest

from crowline.ice.consent import EXPIRY
from crowline.ice.retries import LONGEST_GAP
from virtual_talk import Talk


@pytest.mark.parametrize("seed", range(5))
def test_bytes_flow_again_within_two_seconds_of_a_cut(seed: int) -> None:
    """In both directions, whatever the moment; the relay was kept warm."""
    talk = Talk("home", "home", seed)
    assert talk.kinds == ["direct", "direct"]
    talk.talk(random.Random(seed).uniform(0.5, 6.0))
    talk.cut()
    assert talk.talk(5) <= 2.0
    assert talk.kinds == ["relay", "relay"]
    talk.run(1)
    assert talk.is_whole()


@pytest.mark.parametrize("writer", [0, 1])
def test_the_first_words_after_a_rest_arrive_although_the_path_died_in_it(writer: int) -> None:
    """Nobody wrote when it was cut, and nobody had noticed: the words go by the relay within two seconds."""
    for rest in (0.3, 4.0, 11.0):
        talk = Talk("home", "home", 3)
        talk.run(20)
        talk.cut()
        talk.run(rest)
        talk.sides[writer].say(b"are you there?")
        talk.run(2)
        assert talk.is_whole()


def test_a_direct_path_that_was_away_for_seconds_is_used_again_soon() -> None:
    """Its link has survived; it is used after a trial of a second."""
    talk = Talk("home", "home", 1)
    talk.cut()
    talk.talk(5)
    talk.mend()
    assert talk.talk(12) <= 2.0
    assert talk.kinds == ["direct", "direct"]
    talk.run(1)
    assert talk.is_whole()


def test_a_direct_path_that_was_away_for_minutes_is_found_again() -> None:
    """Consent has expired and the links are gone: pairs are checked again, at least once a minute."""
    talk = Talk("home", "home", 2)
    talk.cut()
    talk.talk(3)
    talk.run(EXPIRY + 300)
    assert talk.kinds == ["relay", "relay"]
    talk.mend()
    talk.run(2 * LONGEST_GAP + 60)
    assert talk.kinds == ["direct", "direct"]
    talk.talk(2)
    talk.run(1)
    assert talk.is_whole()


@pytest.mark.parametrize(("down", "up"), [(1.5, 1.5), (3.0, 8.0), (20.0, 20.0)])
def test_a_direct_path_that_flaps_does_not_flap_the_stream(down: float, up: float) -> None:
    """Four minutes of it: few moves, no gap above two seconds, every byte once."""
    talk = Talk("home", "home", 4)
    talk.talk(1)
    before = [len(side.changes) for side in talk.sides]
    end = talk.now + 240
    while talk.now < end:
        talk.cut()
        assert talk.talk(down, tick=0.1) <= 2.0
        talk.mend()
        assert talk.talk(up, tick=0.1) <= 2.0
    moves = [len(side.changes) - count for side, count in zip(talk.sides, before, strict=True)]
    assert 1 <= max(moves) <= 16
    talk.run(5)
    assert talk.is_whole()


@pytest.mark.parametrize("seed", range(4))
def test_random_cuts_lose_and_repeat_no_byte(seed: int) -> None:
    """Cuts of a blink and of a minute, at any time, for five minutes; the checksums agree at the end."""
    chance = random.Random(seed)
    talk = Talk("home", "home", seed)
    end = talk.now + 300
    while talk.now < end:
        talk.cut()
        assert talk.talk(chance.choice([0.1, 0.7, 3.0, 45.0]), tick=0.1, size=3000) <= 2.0
        talk.mend()
        assert talk.talk(chance.choice([0.2, 2.0, 30.0]), tick=0.1, size=3000) <= 2.0
    talk.run(10)
    assert talk.is_whole()


def test_every_move_has_its_reason() -> None:
    """In words, and the right ones."""
    talk = Talk("home", "home", 1)
    talk.cut()
    talk.talk(5)
    talk.mend()
    talk.talk(12)
    for side in talk.sides:
        assert [change[1:] for change in side.changes[-2:]] == [
            ("relay", "the path before fell silent"),
            ("direct", "it works again"),
        ]
