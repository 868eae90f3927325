"""The table of pair states, and the document that is made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from crowline.base.addresses import Address
from crowline.ice.candidate import CandidateFactory, TcpType
from crowline.ice.events import PairMoved
from crowline.ice.pair import CandidatePair
from crowline.ice.states import INITIAL, TRANSITIONS, PairInput, PairState, diagram, glossary
from ice_pair import IcePair

DOCUMENT = Path(__file__).parents[2] / "docs" / "ice-states.md"


def test_the_document_shows_the_table() -> None:
    """`docs/ice-states.md` has the diagram and the words of the code, to the letter."""
    text = DOCUMENT.read_text()
    assert f"```mermaid\n{diagram()}\n```\n" in text
    assert glossary() in text


def test_every_state_is_reached_and_left() -> None:
    """From the two beginnings the table leads to all states, and none is a dead end."""
    reached = set(INITIAL)
    for _ in PairState:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(PairState)
    assert {before for (before, _), after in TRANSITIONS.items() if before is not after} == set(PairState)


@pytest.mark.parametrize("cause", list(PairInput))
def test_what_the_other_side_causes_is_in_the_table_for_every_state_that_was_checked(
    cause: PairInput,
) -> None:
    """Once a pair has been asked, no answer, silence or check of the other side finds a hole."""
    asked = (PairState.WAITING, PairState.IN_PROGRESS, PairState.SUCCEEDED, PairState.FAILED)
    ours = (PairInput.THAW, PairInput.START)
    assert cause in ours or all((state, cause) in TRANSITIONS for state in asked)


def test_a_pair_moves_by_the_table_only() -> None:
    """An input that a state does not have is a fault of ours, and does not pass in silence."""
    candidate = CandidateFactory().host(Address("192.0.2.1", 1000))
    pair = CandidatePair(candidate, candidate)
    with pytest.raises(KeyError):
        pair.apply(PairInput.SUCCEED)
    for cause in (PairInput.THAW, PairInput.START, PairInput.SUCCEED, PairInput.LOSE):
        pair.apply(cause)
    assert pair.state is PairState.FAILED


@pytest.mark.parametrize("kinds", [(None,), tuple(TcpType)])
def test_every_move_of_a_pair_is_said_to_whoever_wants_to_know(kinds: tuple[TcpType | None, ...]) -> None:
    """Without a gap: each begins where the last one of that pair ended, and all are in the table."""
    pair = IcePair(bases=(2, 2), kinds=(kinds, kinds), renominate=True, regain=True, tells_moves=True)
    pair.drops = lambda _, __, now: 20.0 < now < 60.0
    pair.start()
    pair.run(10.0)
    pair.cut()
    pair.run(200.0)
    for side in pair.sides:
        states: dict[tuple[Address, Address], PairState] = {}
        for move in side.of(PairMoved):
            ends = (move.base, move.remote)
            assert states.get(ends, move.before) is move.before
            assert TRANSITIONS[move.before, move.cause] is move.after
            states[ends] = move.after
        assert {PairInput.START, PairInput.SUCCEED, PairInput.LOSE} <= {
            move.cause for move in side.of(PairMoved)
        }


def test_agents_say_no_moves_unless_asked_to() -> None:
    """Most users want to know what works, not how it was found."""
    pair = IcePair()
    pair.start()
    pair.run(5.0)
    assert not any(side.of(PairMoved) for side in pair.sides)
