"""The search: change an input, run it, keep it when it reached a new line."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from fuzz import corpus
from fuzz.coverage import Coverage
from fuzz.harness import Harness, check
from fuzz.mutation import mutate


class Finding(AssertionError):
    """An input that a codec does not survive. `__cause__` is what escaped."""

    def __init__(self, harness: Harness, data: bytes) -> None:
        shown = data if len(data) <= 200 else data[:200] + b"..."
        super().__init__(f"{harness.name} on {len(data)} bytes: {shown!r}")
        self.data = data


@dataclass(slots=True)
class Result:
    """What a run did. `kept` are the inputs that reached something new, in the order in which they did."""

    inputs: int = 0
    lines: int = 0
    kept: list[bytes] = field(default_factory=list)


def search(harness: Harness, *, seed: int, inputs: int | None = None, seconds: float | None = None) -> Result:
    """Run the corpus, then inputs made from it: so many, or so long. Raises `Finding`.

    The same seed, corpus and number of inputs give the same run.
    """
    dice = random.Random(f"{seed} {harness.name}")
    coverage = Coverage(harness.module)
    pool = corpus.load(harness)
    result = Result()
    with coverage.watching():
        for data in pool:
            _run(harness, data)
        more = _until(inputs, seconds)
        while more(result.inputs):
            # What was found last has been changed least so far.
            base = pool[-1 - int(len(pool) * dice.random() ** 2)]
            data = mutate(base, pool, harness.tokens, dice)
            known = len(coverage.lines)
            _run(harness, data)
            result.inputs += 1
            if len(coverage.lines) > known:
                pool.append(data)
                result.kept.append(data)
    result.lines = len(coverage.lines)
    return result


def shrink(harness: Harness, data: bytes) -> bytes:
    """A shorter input with the same failure: parts are taken out as long as it stays."""
    wanted = _failure(harness, data)
    size = len(data) // 2
    while size:
        start = 0
        while start < len(data):
            shorter = data[:start] + data[start + size :]
            if _failure(harness, shorter) is wanted:
                data = shorter
            else:
                start += size
        size //= 2
    return data


def _run(harness: Harness, data: bytes) -> None:
    try:
        check(harness, data)
    except Exception as error:
        raise Finding(harness, data) from error


def _failure(harness: Harness, data: bytes) -> type[Exception] | None:
    try:
        check(harness, data)
    except Exception as error:
        return type(error)
    return None


def _until(inputs: int | None, seconds: float | None) -> Callable[[int], bool]:
    if inputs is not None:
        return lambda done: done < inputs
    end = monotonic() + (seconds or 0.0)
    return lambda done: monotonic() < end
