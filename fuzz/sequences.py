"""Runs sequences of operations on whole machines, the same ones for the same seed."""

from __future__ import annotations

from time import monotonic

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from fuzz.ice_operations import IceAgentsOperations
from fuzz.operations import TurnServerOperations
from fuzz.punch_operations import ConductorOperations

MACHINES: dict[str, type[RuleBasedStateMachine]] = {
    "turn-operations": TurnServerOperations,
    "ice-operations": IceAgentsOperations,
    "punch-operations": ConductorOperations,
}

_ROUND = 50
"""Sequences between two looks at the clock."""


def search(name: str, *, seconds: float, seed_number: int) -> int:
    """Run sequences on one machine for so long; how many there were. Raises what it does not survive."""
    end, rounds = monotonic() + seconds, 0
    while monotonic() < end:
        run(name, examples=_ROUND, seed_number=seed_number + rounds)
        rounds += 1
    return rounds * _ROUND


def run(name: str, *, examples: int, seed_number: int, steps: int = 40) -> None:
    """So many sequences of so many steps."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine = type("SeededOperations", (MACHINES[name],), {})
    run_state_machine_as_test(seed(seed_number)(machine), settings=chosen)
