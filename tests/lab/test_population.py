"""The weighted population: its file, its draws, its shares and how sure they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem, UsageError
from crowline.lab.confidence import wilson
from crowline.lab.outcome import Outcome
from crowline.lab.population import Population, load_population
from crowline.lab.population_run import PairOutcome, PopulationResult, run_population
from crowline.lab.profile import Ipv6, PortMapping

SMALL = """
title = "two kinds"
[ipv6]
share = 0.5
kind = "open"
[paths]
to_server = [5, 10]
between = [20, 40]
loss = 0.01
[[classes]]
name = "easy"
weight = 3
place = "home"
port_mapping = 0.5
[[classes]]
name = "hard"
weight = 1
place = "symmetric"
source = "somebody"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "weights.toml"
    path.write_text(text)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Population:
    return load_population(write(tmp_path, SMALL))


# --- the file -------------------------------------------------------------------------------------------


def test_our_population_names_a_source_for_every_class() -> None:
    """Its weights are percent, and its places presets."""
    population = load_population()
    assert sum(each.weight for each in population.classes) == pytest.approx(100)
    assert all(each.source for each in population.classes)
    assert len({each.name for each in population.classes}) == len(population.classes)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('place = "home"', 'place = "igloo"', "igloo is no place"),
        ("weight = 3", "weight = -3", "weight"),
        ("share = 0.5", "share = 1.5", "share"),
        ('kind = "open"', 'kind = "sometimes"', "sometimes"),
        ("port_mapping = 0.5", "port_maping = 0.5", "port_maping"),
        ('title = "two kinds"', "", "title"),
        ('title = "two kinds"', 'title = "two', "is not TOML"),
        ("to_server = [5, 10]", "to_server = [5]", "to_server"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_its_place(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    """One sentence that names what is wrong."""
    assert old in SMALL
    with pytest.raises(UsageError) as refused:
        load_population(write(tmp_path, SMALL.replace(old, new)))
    assert complaint in refused.value.message


def test_a_file_without_classes_or_weights_is_refused(tmp_path: Path) -> None:
    """Nothing could be drawn from it."""
    with pytest.raises(UsageError):
        load_population(write(tmp_path, 'title = "nobody"\nclasses = []'))
    with pytest.raises(UsageError):
        load_population(write(tmp_path, SMALL.replace("weight = 3", "weight = 0").replace("= 1\n", "= 0\n")))


def test_a_missing_file_is_a_local_problem(tmp_path: Path) -> None:
    """With the reason of the system."""
    with pytest.raises(LocalProblem) as missing:
        load_population(tmp_path / "nothing.toml")
    assert "nothing.toml cannot be read" in missing.value.message


# --- the draws ------------------------------------------------------------------------------------------


def test_members_are_as_common_as_their_weights(small: Population) -> None:
    """4,000 draws, within four standard deviations: classes, port mapping and IPv6."""
    members = [
        member for number in range(2000) for member in (small.pair(1, number).a, small.pair(1, number).b)
    ]
    kinds = Counter(member.kind for member in members)
    assert kinds["easy"] == pytest.approx(3000, abs=110)
    mapped = [member for member in members if member.profile.port_mapping is not PortMapping.NONE]
    assert {member.kind for member in mapped} == {"easy"}
    assert len(mapped) == pytest.approx(kinds["easy"] / 2, abs=110)
    with_ipv6 = [member for member in members if member.profile.ipv6 is Ipv6.OPEN]
    assert len(with_ipv6) == pytest.approx(2000, abs=127)


def test_a_pair_is_drawn_by_seed_and_number(small: Population) -> None:
    """The same ones always, others for another number or seed."""
    assert small.pair(1, 5) == small.pair(1, 5)
    assert len({small.pair(seed, number).seed for seed in range(5) for number in range(5)}) == 25


def test_distances_lie_where_the_file_says(small: Population) -> None:
    """Milliseconds there, seconds here."""
    for number in range(100):
        geometry = small.pair(1, number).geometry
        assert 0.005 <= geometry.to_server <= 0.01
        assert 0.02 <= geometry.between <= 0.04
        assert geometry.loss == 0.01


# --- shares and intervals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_interval_is_wilsons(hits: int, trials: int, low: float, high: float) -> None:
    """Published examples, and the ends."""
    assert wilson(hits, trials) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_a_result_counts_link_zero_as_a_relay() -> None:
    """A server carries the bytes; the part of link zero is told beside it."""
    result = PopulationResult()
    for kind, technique in (
        ("direct", "srflx"),
        ("lan", "host"),
        ("relay", "relay"),
        ("hub", "hub"),
        ("failed", ""),
    ):
        result.add(PairOutcome("x", "y", Outcome(kind, technique=technique)))  # type: ignore[arg-type]
    fields = result.to_fields()
    assert (fields["pairs"], fields["direct"], fields["relay"], fields["hub"], fields["failed"]) == (
        5, 0.4, 0.4, 0.2, 0.2,
    )  # fmt: skip
    assert fields["techniques"] == {"host": 0.2, "hub": 0.2, "relay": 0.2, "srflx": 0.2}
    assert fields["direct_by_class"] == {"x": 0.4, "y": 0.4}
    low, high = fields["confidence"]["direct"]
    assert low < 0.4 < high


def test_a_pair_of_one_class_counts_once_for_it() -> None:
    """Else its share would be weighed twice."""
    result = PopulationResult()
    result.add(PairOutcome("x", "x", Outcome("direct")))
    assert result.by_class["x"].total() == 1


# --- runs -----------------------------------------------------------------------------------------------


def test_a_run_depends_on_its_seed_and_not_on_its_jobs(small: Population) -> None:
    """Two processes give what one gives; another seed gives something else."""
    alone = run_population(small, 40, 3)
    watched: list[int] = []
    shared = run_population(small, 40, 3, jobs=2, watch=lambda number, pair: watched.append(number))
    assert alone.to_fields() == shared.to_fields() != run_population(small, 40, 4).to_fields()
    assert sorted(watched) == list(range(40))


def test_our_population_connects_always_and_as_often_directly_as_computed() -> None:
    """No pair fails. 95 % direct is what hole punching, IPv6, opened and guessed ports give together."""
    result = run_population(load_population(), 400, 1)
    assert result.count("failed") == 0
    low, high = result.interval("direct")
    assert low - 0.02 <= 0.952 <= high + 0.02
    assert result.share("direct") + result.share("relay") == pytest.approx(1)


@pytest.mark.parametrize("pairs", [0, -1, 100_000_000])
def test_a_run_of_no_sensible_size_is_refused(small: Population, pairs: int) -> None:
    """Before anything is tried."""
    with pytest.raises(UsageError):
        run_population(small, pairs)
