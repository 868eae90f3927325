"""A short, repeatable run of every harness; `make fuzz` searches longer."""

from __future__ import annotations

import pytest

from fuzz import corpus, sequences
from fuzz.coverage import Coverage
from fuzz.harness import Harness, TooSlow, check
from fuzz.harnesses import HARNESSES
from fuzz.runner import Finding, search, shrink

INPUTS = 150
SEQUENCES = 40


@pytest.mark.parametrize("name", HARNESSES)
def test_every_codec_survives_its_corpus_and_what_is_made_from_it(name: str) -> None:
    """Nothing but the exceptions that a harness names leaves its codec."""
    result = search(HARNESSES[name], seed=1, inputs=INPUTS)
    assert result.inputs == INPUTS
    assert result.lines > 0


@pytest.mark.parametrize("name", HARNESSES)
def test_seeds_are_not_all_refused(name: str) -> None:
    """A harness whose every seed is malformed would only test the first check of its codec."""
    harness = HARNESSES[name]
    taken = 0
    for data in harness.seeds:
        try:
            harness.run(data)
        except harness.allowed:
            continue
        taken += 1
    assert taken


def test_the_corpus_belongs_to_harnesses() -> None:
    """No kept input is left behind by a harness that has another name now."""
    assert {folder.name for folder in (corpus.ROOT / "corpus").iterdir()} <= set(HARNESSES)


def test_the_turn_server_survives_sequences_of_operations() -> None:
    """Its books agree after each step, and nothing is left when every lifetime has passed."""
    sequences.run("turn-operations", examples=SEQUENCES, seed_number=1)


def test_two_ice_agents_survive_a_hostile_wire_and_a_hostile_peer() -> None:
    """Events and state agree, third parties get their share and no more, and everything ends."""
    sequences.run("ice-operations", examples=SEQUENCES, seed_number=1)


def test_a_conductor_of_plans_survives_a_hostile_other_side() -> None:
    """Nothing goes to a stranger, nobody gets more than a host may, and every socket is closed."""
    sequences.run("punch-operations", examples=SEQUENCES, seed_number=1)


def _breaks_on_two(data: bytes) -> None:
    if data[:1] == b"\x01":
        raise ValueError
    if b"\x02" in data:
        raise KeyError


BROKEN = Harness("broken", _breaks_on_two, __name__, (bytes(40),), (ValueError,), (b"\x02",))


def test_the_search_finds_what_is_broken_and_shrinks_it() -> None:
    """An exception that is not named is found from a seed that has nothing of it."""
    with pytest.raises(Finding) as found:
        search(BROKEN, seed=1, inputs=2000)
    assert isinstance(found.value.__cause__, KeyError)
    assert shrink(BROKEN, found.value.data) == b"\x02"


def test_the_same_seed_gives_the_same_run() -> None:
    """A finding can be found again."""

    def inputs(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        search(Harness("seen", seen.append, __name__, (bytes(40),)), seed=seed, inputs=60)
        return seen

    assert inputs(3) == inputs(3) != inputs(4)


def test_an_input_that_takes_too_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quadratic work shows as time, not as an exception."""
    monkeypatch.setattr("fuzz.harness.TIME_LIMIT", -1.0)
    with pytest.raises(TooSlow):
        check(BROKEN, b"")


def test_coverage_sees_the_lines_of_one_module_alone() -> None:
    """That is what leads the search into a codec and not around it."""
    coverage = Coverage("fuzz/mutation")
    with coverage.watching():
        search(BROKEN, seed=1, inputs=1)
    assert {path.rpartition("/")[2] for path, _ in coverage.lines} <= {"mutation.py"}
