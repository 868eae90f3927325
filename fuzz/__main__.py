"""`python -m fuzz [HARNESS…|all] [--seconds N] [--seed S] [--keep]`: search until the time is over."""

from __future__ import annotations

import argparse
import sys
import traceback

from fuzz import corpus, sequences
from fuzz.harnesses import HARNESSES
from fuzz.runner import Finding, search, shrink


def main() -> int:
    """The exit code: 0 when everything survived."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("harness", nargs="*", help="names, or all; without any the names are listed")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each harness  [30]")
    parser.add_argument("--seed", type=int, default=1, help="another search  [1]")
    parser.add_argument("--keep", action="store_true", help="put what reached new lines into the corpus")
    options = parser.parse_args()
    names = [*HARNESSES, *sequences.MACHINES]
    if not options.harness:
        print("\n".join(names))
        return 0
    chosen = names if options.harness == ["all"] else options.harness
    if unknown := set(chosen) - set(names):
        parser.error(f"no such harness: {', '.join(sorted(unknown))}")
    survived = [_fuzz(name, options.seconds, options.seed, keep=options.keep) for name in chosen]
    return 0 if all(survived) else 1


def _fuzz(name: str, seconds: float, seed: int, *, keep: bool) -> bool:
    if name in sequences.MACHINES:
        return _operate(name, seconds, seed)
    harness = HARNESSES[name]
    try:
        result = search(harness, seed=seed, seconds=seconds)
    except Finding as finding:
        traceback.print_exc()
        path = corpus.keep(corpus.ROOT / "findings" / name, shrink(harness, finding.data))
        print(f"{name}: FOUND, kept in {path}")
        return False
    print(f"{name}: {result.inputs:,} inputs, {result.lines} lines, {len(result.kept)} new ones led on")
    if keep:
        for data in result.kept:
            corpus.keep(corpus.ROOT / "corpus" / name, data)
    return True


def _operate(name: str, seconds: float, seed: int) -> bool:
    try:
        count = sequences.search(name, seconds=seconds, seed_number=seed)
    except Exception:
        traceback.print_exc()
        print(f"{name}: FOUND")
        return False
    print(f"{name}: {count:,} sequences")
    return True


if __name__ == "__main__":
    sys.exit(main())
