"""Alarms beside a plain table of times."""

from __future__ import annotations

import random

from crowline.turn.alarms import MAX_DEAD, Alarms


def test_what_was_cancelled_or_put_off_is_not_due() -> None:
    """Only the time that counts makes an alarm due, however many came before it."""
    alarms = Alarms[str]()
    alarms.set("gone", 1.0)
    alarms.set("moved", 2.0)
    alarms.set("moved", 9.0)
    alarms.cancel("gone")
    assert alarms.next() == 9.0
    assert not alarms.is_due(8.9)
    assert alarms.is_due(9.0)


def test_random_alarms_are_those_of_a_table() -> None:
    """Thousands of settings, moves and cancellations, in any order: the same keys are due, in order of time,
    and nothing is remembered of what no longer counts."""
    chance, alarms, table, now = random.Random(1), Alarms[int](), dict[int, float](), 0.0
    taken = 0
    for _ in range(5000):
        key = chance.randrange(30)
        if chance.random() < 0.2:
            alarms.cancel(key)
            table.pop(key, None)
        else:
            table[key] = now + chance.random()
            alarms.set(key, table[key])
            assert alarms.time_of(key) == table[key]
        assert alarms.next() == min(table.values(), default=None)
        assert len(alarms) <= 2 * len(table) + MAX_DEAD
        if chance.random() < 0.05:
            now += chance.random() / 2
            due = sorted((key for key in table if table[key] <= now), key=lambda key: table[key])
            assert alarms.is_due(now) == bool(due)
            assert alarms.take_due(now) == due
            taken += len(due)
            for key in due:
                del table[key]
    assert taken > 100
