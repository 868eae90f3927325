"""Every place in the world with every other: which pairs to try, the attempts, and what they amount to."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from crowline.base.errors import UsageError
from crowline.lab.journal import Journal
from crowline.lab.outcome import DIRECT_KINDS, KINDS, Kind, Outcome
from crowline.lab.trial import Trial
from crowline.lab.workers import run_all

Attempt: TypeAlias = Callable[[Trial], Outcome]
Watcher: TypeAlias = Callable[[Trial, Outcome], None]

MOST_RUNS = 1000  # attempts of one pair


@dataclass(frozen=True, slots=True)
class Plan:
    """Which attempts make up a matrix. `parameters` are those that the results depend on, for people too.

    Where rows and columns are the same, a pair is tried once and stands in the matrix twice; with `both_ways`
    it is tried with either side as the host.
    """

    program: str
    world: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    runs: int = 1
    both_ways: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.runs <= MOST_RUNS:
            raise UsageError(f"{self.runs} runs of a pair are not between 1 and {MOST_RUNS}")
        if not self.rows or not self.columns:
            raise UsageError("a matrix needs at least one preset")

    def pairs(self) -> list[tuple[str, str]]:
        """Host and joining side of every pair, in the order of rows and columns."""
        found: dict[tuple[str, str], None] = {}
        for row in self.rows:
            for column in self.columns:
                if self.both_ways or (column, row) not in found:
                    found[row, column] = None
        return list(found)

    def trials(self) -> list[Trial]:
        """All first runs, then all second ones: a run that is stopped has seen as many pairs as possible."""
        return [Trial(a, b, number) for number in range(self.runs) for a, b in self.pairs()]

    def about(self) -> dict[str, Any]:
        """What a state file must agree on."""
        return {
            "program": self.program,
            "world": self.world,
            "both_ways": self.both_ways,
            "parameters": dict(self.parameters),
        }


@dataclass(frozen=True, slots=True)
class Tally:
    """What several attempts amount to; at least one."""

    outcomes: tuple[Outcome, ...]

    @property
    def counts(self) -> dict[Kind, int]:
        """Attempts of each kind, best kind first; kinds that did not occur are left out."""
        seen = Counter(outcome.kind for outcome in self.outcomes)
        return {kind: seen[kind] for kind in KINDS if seen[kind]}

    @property
    def kind(self) -> Kind:
        """The most frequent kind; of two as frequent ones the worse."""
        counts = self.counts
        return max(reversed(counts), key=lambda kind: counts[kind])

    @property
    def is_mixed(self) -> bool:
        return len(self.counts) > 1

    @property
    def setup_ms(self) -> float | None:
        """The median over the attempts that connected."""
        return _median(outcome.setup_ms for outcome in self.outcomes)

    @property
    def direct_ms(self) -> float | None:
        """The median over the attempts that had a direct link."""
        return _median(outcome.direct_ms for outcome in self.outcomes)

    @property
    def technique(self) -> str:
        """What made the path most often, of the attempts of the most frequent kind."""
        return self._most_frequent(lambda outcome: outcome.technique)

    @property
    def reason(self) -> str:
        return self._most_frequent(lambda outcome: outcome.reason)

    def share(self, *kinds: Kind) -> float:
        """The share of 1 of the attempts that ended as one of these kinds."""
        return sum(outcome.kind in kinds for outcome in self.outcomes) / len(self.outcomes)

    def shares(self) -> dict[str, float]:
        """Shares of 1, that of a path between neighbours among the direct ones."""
        shares = {kind: self.share(kind) for kind in ("relay", "hub", "failed")}
        return {"direct": self.share(*DIRECT_KINDS), **shares}

    def _most_frequent(self, text: Callable[[Outcome], str]) -> str:
        kind = self.kind
        texts = Counter(text(outcome) for outcome in self.outcomes if outcome.kind == kind)
        return max(texts, key=lambda each: (texts[each], bool(each)))


@dataclass(frozen=True, slots=True)
class Matrix:
    """The outcomes of a plan, or of the part of it that was done."""

    plan: Plan
    outcomes: Mapping[Trial, Outcome]

    def as_tried(self, row: str, column: str) -> tuple[str, str] | None:
        """Host and joining side of the attempts that belong to a cell; None where it was not tried."""
        for pair in ((row, column), (column, row)):
            if self._of(*pair) is not None:
                return pair
            if self.plan.both_ways:
                break
        return None

    def cell(self, row: str, column: str) -> Tally | None:
        """What the pair amounts to; a pair that was tried the other way round only is found too."""
        pair = self.as_tried(row, column)
        return None if pair is None else self._of(*pair)

    def cells(self) -> list[tuple[str, str, Tally]]:
        """Every pair that was tried, in the order of the plan."""
        found = ((a, b, self._of(a, b)) for a, b in self.plan.pairs())
        return [(a, b, tally) for a, b, tally in found if tally is not None]

    def row(self, name: str) -> Tally | None:
        """All attempts in a row of the matrix."""
        tallies = [self.cell(name, column) for column in self.plan.columns]
        outcomes = tuple(outcome for tally in tallies if tally for outcome in tally.outcomes)
        return Tally(outcomes) if outcomes else None

    def total(self) -> Tally | None:
        """All attempts; None where none was made."""
        outcomes = tuple(self.outcomes[trial] for trial in self.plan.trials() if trial in self.outcomes)
        return Tally(outcomes) if outcomes else None

    def to_fields(self) -> dict[str, Any]:
        """Plain values for JSON."""
        total = self.total()
        return {
            **self.plan.about(),
            "runs": self.plan.runs,
            "rows": list(self.plan.rows),
            "columns": list(self.plan.columns),
            "attempts": len(total.outcomes) if total else 0,
            **({name: round(share, 6) for name, share in total.shares().items()} if total else {}),
            "pairs": [
                {
                    "a": a,
                    "b": b,
                    "kind": tally.kind,
                    "counts": tally.counts,
                    "setup_ms": tally.setup_ms,
                    "direct_ms": tally.direct_ms,
                    "technique": tally.technique,
                    "reason": tally.reason,
                }
                for a, b, tally in self.cells()
            ],
        }

    def _of(self, a: str, b: str) -> Tally | None:
        trials = (Trial(a, b, number) for number in range(self.plan.runs))
        outcomes = tuple(self.outcomes[trial] for trial in trials if trial in self.outcomes)
        return Tally(outcomes) if outcomes else None


def run_matrix(
    plan: Plan,
    attempt: Attempt,
    *,
    jobs: int = 1,
    journal: Journal | None = None,
    watch: Watcher | None = None,
) -> Matrix:
    """Make every attempt of the plan that the journal does not know yet; `watch` sees each as it is done.

    `attempt` must be picklable for more than one job. What it raises ends the run: a failed attempt is an
    outcome, an exception is a fault of the laboratory.
    """
    trials = plan.trials()
    known = journal.outcomes if journal is not None else {}
    outcomes = {trial: known[trial] for trial in trials if trial in known}
    open_trials = [trial for trial in trials if trial not in outcomes]
    with closing(run_all(attempt, open_trials, jobs=jobs)) as results:
        for trial, outcome in results:
            outcomes[trial] = outcome
            if journal is not None:
                journal.add(trial, outcome)
            if watch is not None:
                watch(trial, outcome)
    return Matrix(plan, outcomes)


def choose(names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names without repetition; all that are known where none is given. Raises `UsageError`."""
    available = tuple(known)
    for name in names:
        if name not in available:
            raise UsageError(f"{name} is no preset.", hint=f"There are: {', '.join(available)}.")
    return tuple(dict.fromkeys(names)) or available


def _median(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return round(statistics.median(numbers), 1) if numbers else None
