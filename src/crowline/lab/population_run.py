"""Thousands of pairs of a population, each a complete attempt in virtual time, and what they amount to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from crowline.base.errors import UsageError
from crowline.lab.confidence import wilson
from crowline.lab.outcome import Outcome
from crowline.lab.population import Population
from crowline.lab.virtual_attempt import virtual_attempt
from crowline.lab.workers import run_all

MOST_PAIRS = 10_000_000
_SHARES = ("direct", "relay", "hub", "failed")


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """What became of one pair; the two names are those of their classes."""

    a: str
    b: str
    outcome: Outcome


Watcher: TypeAlias = Callable[[int, PairOutcome], None]


@dataclass(frozen=True, slots=True)
class PopulationAttempt:
    """Tries a pair by its number; can be pickled, so that workers may have their own."""

    population: Population
    seed: int

    def __call__(self, number: int) -> PairOutcome:
        pair = self.population.pair(self.seed, number)
        outcome = virtual_attempt(pair.a.profile, pair.b.profile, pair.seed, geometry=pair.geometry)
        return PairOutcome(pair.a.kind, pair.b.kind, outcome)


@dataclass(slots=True)
class PopulationResult:
    """Counts of outcomes. `techniques` are those that made the final path."""

    pairs: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    techniques: Counter[str] = field(default_factory=Counter)
    by_class: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, pair: PairOutcome) -> None:
        outcome = pair.outcome
        kind = "direct" if outcome.is_direct else outcome.kind
        self.pairs += 1
        self.kinds[kind] += 1
        if outcome.technique:
            self.techniques[outcome.technique] += 1
        for name in {pair.a, pair.b}:
            self.by_class.setdefault(name, Counter())[kind] += 1

    def count(self, kind: str) -> int:
        """Pairs that ended so. Link zero through the hub counts as a relay: a server carries the bytes."""
        return self.kinds["relay"] + self.kinds["hub"] if kind == "relay" else self.kinds[kind]

    def share(self, kind: str) -> float:
        """The share of 1 that ended ``direct``, by ``relay`` (``hub`` is a part of these), or ``failed``."""
        return self.count(kind) / self.pairs if self.pairs else 0.0

    def interval(self, kind: str) -> tuple[float, float]:
        """Where the share lies with 95 % confidence, for the weights as they are."""
        return wilson(self.count(kind), self.pairs)

    def to_fields(self) -> dict[str, Any]:
        """Plain values for JSON: `pairs`, the shares of 1, `confidence` intervals, `techniques` as shares."""
        shares = {kind: round(self.share(kind), 6) for kind in _SHARES}
        intervals = {kind: [round(end, 6) for end in self.interval(kind)] for kind in _SHARES}
        by_count = sorted(self.techniques.items(), key=lambda item: (-item[1], item[0]))
        techniques = {name: round(count / self.pairs, 6) for name, count in by_count}
        classes = {
            name: round(counts["direct"] / counts.total(), 6)
            for name, counts in sorted(self.by_class.items())
        }
        return {
            "pairs": self.pairs,
            **shares,
            "confidence": intervals,
            "techniques": techniques,
            "direct_by_class": classes,
        }


def run_population(
    population: Population, pairs: int, seed: int = 1, *, jobs: int = 1, watch: Watcher | None = None
) -> PopulationResult:
    """Try so many pairs. The result depends on `population`, `pairs` and `seed` alone, not on `jobs`.

    `watch` gets each pair's number and outcome as it is done.
    """
    if not 0 < pairs <= MOST_PAIRS:
        raise UsageError(f"{pairs} pairs are not between 1 and {MOST_PAIRS}")
    result = PopulationResult()
    for number, outcome in run_all(PopulationAttempt(population, seed), range(pairs), jobs=jobs):
        result.add(outcome)
        if watch is not None:
            watch(number, outcome)
    return result
