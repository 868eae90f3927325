"""Nominations that go along with ordinary checks, between agents of ours: both sides end on the same pair."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.agent import IceAgent
from crowline.ice.events import PairNominated
from crowline.ice.nomination import BestPossible
from crowline.stun.attributes import Nomination, UseCandidate
from crowline.stun.message import Message, MessageClass, parse
from ice_pair import DELAY, SIGNAL_DELAY, IcePair, IceSide

LATER = 1 << 63  # ranks of nominations that have a check of their own


class RoughPair(IcePair):
    """Datagrams and signals take up to `jitter` seconds longer, each by itself, so that they overtake."""

    def __init__(self, *, jitter: float, **options: object) -> None:
        self.jitter = jitter
        super().__init__(**options)  # type: ignore[arg-type]

    def later(self, delay: float, call: Callable[[], None]) -> None:
        super().later(delay + self.random.uniform(0.0, self.jitter), call)


def requests(pair: IcePair, number: int) -> list[tuple[float, Message]]:
    """The checks that one side has sent, with their times."""
    parsed = [(at, parse(each.data).message) for at, sender, each in pair.carried if sender == number]
    return [(at, message) for at, message in parsed if message.message_class is MessageClass.REQUEST]


def agreed(pair: IcePair) -> tuple[Address, Address] | None:
    """The pair that both have selected, from the first side; ``None`` where they differ or have none."""
    one, two = (side.agent.selected for side in pair.sides)
    if one is None or two is None or one.key != two.key[::-1]:
        return None
    return one.key


def first_nomination(side: IceSide) -> float:
    return next(at for at, event in side.events if isinstance(event, PairNominated))


def test_it_takes_one_round_trip_after_the_signals() -> None:
    """Check and answer, for both sides."""
    pair = IcePair(renominate=True)
    pair.start()
    pair.run(2.0)
    assert [first_nomination(side) for side in pair.sides] == [pytest.approx(SIGNAL_DELAY + 2 * DELAY)] * 2
    assert agreed(pair) is not None
    assert [event.pair for event in pair.sides[0].of(PairNominated)] == [pair.sides[0].agent.selected]


@pytest.mark.parametrize("options", [{}, {"renominate": True, "policy": BestPossible()}])
def test_towards_others_a_nomination_has_a_check_of_its_own(options: dict[str, object]) -> None:
    """Without the agreement, or where a policy has to decide, nothing goes along (RFC 8445 §8.1.1)."""
    pair = IcePair(**options)
    pair.start()
    pair.run(2.0)
    checks = requests(pair, 0)
    assert checks[0][1].get(UseCandidate) is None
    nominating = [(at, message) for at, message in checks if message.get(UseCandidate) is not None]
    assert nominating[0][0] >= SIGNAL_DELAY + 2 * DELAY
    ranks = [message.get(Nomination) for _, message in nominating]
    assert all(rank is None if not options else rank.rank > LATER for rank in ranks)
    assert first_nomination(pair.sides[0]) == pytest.approx(SIGNAL_DELAY + 4 * DELAY)


def test_the_controlled_side_never_nominates() -> None:
    """Only the other side's checks carry a nomination."""
    pair = IcePair(renominate=True, bases=(2, 2))
    pair.start()
    pair.run(2.0)
    ranks = [message.get(Nomination) for _, message in requests(pair, 0)]
    assert ranks[0] is not None and ranks[0].rank < LATER
    assert all(message.get(Nomination) is None for _, message in requests(pair, 1))


def test_a_nomination_that_was_overtaken_changes_nothing() -> None:
    """An old check that comes late does not undo a nomination of higher rank."""
    pair = IcePair(renominate=True, bases=(2, 2))
    late: list[Transmit] = []

    def drops(number: int, transmit: Transmit, _: float) -> bool:
        is_first = number == 0 and not late
        if is_first:
            late.append(transmit)
        return is_first

    pair.drops = drops
    pair.start()
    pair.run(5.0)
    chosen = agreed(pair)
    controlling, controlled = (side.agent for side in pair.sides)
    assert chosen is not None and controlling.selected is not None
    old, source = late[0], late[0].local
    assert source is not None
    nominated = len(pair.sides[1].of(PairNominated))
    controlled.receive(old.data, source, pair.now, old.destination)
    pair.run(1.0)
    assert agreed(pair) == chosen and len(pair.sides[1].of(PairNominated)) == nominated


@pytest.mark.parametrize("both_control", [False, True], ids=["roles", "conflict"])
@pytest.mark.parametrize("loss", [0.0, 0.2, 0.4])
def test_both_sides_end_on_the_same_pair(loss: float, both_control: bool) -> None:
    """Whatever is lost and overtaken: candidates, checks, answers; and whoever begins with which role."""
    for seed in range(12):
        pair = RoughPair(jitter=0.15, seed=seed, bases=(3, 3), renominate=True)
        if both_control:
            for side in pair.sides:
                side.agent = agent = IceAgent(True, entropy=pair.random.randbytes, ta=0.005, renominate=True)
                for base in side.bases:
                    agent.add_local_candidate(side.factory.host(base), 0.0)
        chance = random.Random(seed)
        pair.drops = lambda *_, chance=chance: chance.random() < loss
        pair.start()
        pair.run(10.0)
        pair.drops = lambda *_: False
        pair.run(20.0)
        assert agreed(pair) is not None, seed


def test_the_better_of_two_wins_in_whatever_order_they_come() -> None:
    """The second-best pair answers first; both sides move to the best one, without a further check."""
    pair = IcePair(renominate=True, bases=(1, 2))
    best, second = (Address(f"192.0.2.{number}", 1000) for number in (11, 12))
    pair.drops = lambda number, transmit, now: transmit.destination == best and now < 0.3
    pair.start()
    pair.run(0.2)
    assert agreed(pair) == (pair.sides[0].bases[0], second)
    pair.run(5.0)
    assert agreed(pair) == (pair.sides[0].bases[0], best)
    ranks = [message.get(Nomination) for _, message in requests(pair, 0)]
    assert all(rank.rank < LATER for rank in ranks if rank is not None)


def test_what_the_other_side_may_hold_on_to_is_outranked() -> None:
    """Where only this side has lost the better pair, agreement on the worse one takes a check of its own."""
    pair = IcePair(renominate=True, regain=True, bases=(1, 2))
    controlling, controlled = (side.agent for side in pair.sides)
    best, second = (Address(f"192.0.2.{number}", 1000) for number in (11, 12))
    dead = {best}
    pair.drops = lambda _, transmit, __: not dead.isdisjoint((transmit.local, transmit.destination))
    pair.start()
    pair.run(1.0)
    assert agreed(pair) == (pair.sides[0].bases[0], second)
    dead.clear()
    pair.run(10.0)
    assert agreed(pair) == (pair.sides[0].bases[0], best)
    for each in controlled.valid_pairs():
        controlled.release(each)  # it asks for no consent, and so loses nothing
    for address in (second, best):
        dead.add(address)
        pair.run(60.0)
    assert controlling.selected is None and controlled.selected is not None
    dead.remove(second)
    pair.run(120.0)
    assert agreed(pair) == (pair.sides[0].bases[0], second)
