"""A pair that works is nominated although a better one is: its connection is to carry something else."""

from __future__ import annotations

import pytest

from crowline.base.transport import Transport
from crowline.ice.candidate import TcpType
from crowline.ice.events import PairNominated
from crowline.ice.pair import ValidPair
from ice_pair import IcePair, IceSide

BOTH = ((None, TcpType.ACTIVE), (None, TcpType.PASSIVE))


def met(*, renominate: bool = True) -> IcePair:
    """Two sides that have agreed on their UDP pair; their TCP pair works too."""
    pair = IcePair(kinds=BOTH, renominate=renominate)
    pair.start()
    pair.run(3.0)
    for side in pair.sides:
        assert not side.agent.selected.transport.is_stream
        side.events.clear()
    return pair


def by(side: IceSide, transport: Transport) -> ValidPair:
    return next(each for each in side.agent.valid_pairs() if each.transport is transport)


def nominated(side: IceSide) -> list[Transport]:
    return [event.pair.transport for event in side.of(PairNominated)]


def test_both_sides_agree_on_it_and_then_on_the_best_again() -> None:
    """Each side hears of the lesser pair first, and then of the better one."""
    pair = met()
    one, other = pair.sides
    assert one.agent.nominate(by(one, Transport.TCP), pair.now)
    pair.run(1.0)
    assert nominated(one) == nominated(other) == [Transport.TCP, Transport.UDP]
    assert not one.agent.selected.transport.is_stream
    assert not other.agent.selected.transport.is_stream


def test_a_connection_that_is_handed_over_meanwhile_is_left_alone() -> None:
    """The link takes the connection as soon as its side has heard; the better pair is selected again."""
    pair = met()
    for side in pair.sides:
        side.agent.use(by(side, Transport.UDP), pair.now)

    def hand_over() -> None:
        for side in pair.sides:
            for event in side.of(PairNominated):
                if event.pair.transport.is_stream and not event.pair.handed_over:
                    side.agent.hand_over(event.pair)

    one, other = pair.sides
    assert one.agent.nominate(by(one, Transport.TCP), pair.now)
    pair.run(1.0, each_step=hand_over)
    assert nominated(one) == nominated(other) == [Transport.TCP, Transport.UDP]
    before = len(pair.carried)
    pair.run(60.0, each_step=hand_over)
    assert all(not transmit.transport.is_stream for _, _, transmit in pair.carried[before:])
    assert by(one, Transport.TCP).handed_over and by(other, Transport.TCP).handed_over
    assert not one.agent.nominate(by(one, Transport.TCP), pair.now)


def test_only_the_controlling_side_can() -> None:
    """The other side's wish begins nothing."""
    pair = met()
    other = pair.sides[1]
    assert not other.agent.nominate(by(other, Transport.TCP), pair.now)
    pair.run(1.0)
    assert nominated(other) == []


@pytest.mark.parametrize("renominate", [True, False])
def test_what_is_selected_or_final_is_not_nominated_again(renominate: bool) -> None:
    """The pair that both sides agree on stays as it is; without renomination every agreement is final."""
    pair = IcePair(renominate=renominate)
    pair.start()
    pair.run(3.0)
    one = pair.sides[0]
    one.events.clear()
    assert not one.agent.nominate(one.agent.selected, pair.now)
    pair.run(1.0)
    assert nominated(one) == []


def test_a_pair_that_was_lost_is_not_nominated() -> None:
    """What does not work any more is nothing to agree on."""
    pair = met()
    one = pair.sides[0]
    lost = by(one, Transport.TCP)
    pair.cut()
    assert not one.agent.nominate(lost, pair.now)
