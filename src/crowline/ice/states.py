"""The states of a candidate pair, and what moves it from one to another (RFC 8445 §6.1.2.6, §7.2.5, §7.3.1).

`TRANSITIONS` is all there is: a pair changes its state by `PairInput` only, and what the table does not have
cannot happen. `docs/ice-states.md` shows `diagram()`.
"""

from __future__ import annotations

from enum import Enum


class PairState(Enum):
    """RFC 8445 §6.1.2.6."""

    FROZEN = "frozen"
    WAITING = "waiting"
    IN_PROGRESS = "in-progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class PairInput(Enum):
    """What happens to a pair; the values say it in words."""

    THAW = "its foundation is worth trying, or nobody else tries it"
    TRIGGER = "a check of the other side came, or a lost pair is tried again"
    START = "its check leaves, or the one that nominates it"
    SUCCEED = "a check of it was answered"
    CONFLICT = "the answer was a role conflict: it is checked again"
    FAIL = "its check was refused, or nobody answered in time"
    LOSE = "it worked and may no longer be used"


OUTSTANDING = (PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS)
# How a pair begins (RFC 8838 §12); it ends when its candidate is removed or the session restarts.
INITIAL = (PairState.FROZEN, PairState.WAITING)

TRANSITIONS: dict[tuple[PairState, PairInput], PairState] = {
    (PairState.FROZEN, PairInput.THAW): PairState.WAITING,
    (PairState.FROZEN, PairInput.TRIGGER): PairState.WAITING,
    (PairState.WAITING, PairInput.TRIGGER): PairState.WAITING,
    (PairState.WAITING, PairInput.START): PairState.IN_PROGRESS,
    # An answer to a check that a newer one has superseded still counts (RFC 8445 §7.3.1.4).
    (PairState.WAITING, PairInput.SUCCEED): PairState.SUCCEEDED,
    (PairState.WAITING, PairInput.CONFLICT): PairState.WAITING,
    (PairState.WAITING, PairInput.FAIL): PairState.FAILED,
    (PairState.WAITING, PairInput.LOSE): PairState.FAILED,
    (PairState.IN_PROGRESS, PairInput.TRIGGER): PairState.WAITING,
    (PairState.IN_PROGRESS, PairInput.SUCCEED): PairState.SUCCEEDED,
    (PairState.IN_PROGRESS, PairInput.CONFLICT): PairState.WAITING,
    (PairState.IN_PROGRESS, PairInput.FAIL): PairState.FAILED,
    (PairState.IN_PROGRESS, PairInput.LOSE): PairState.FAILED,
    (PairState.SUCCEEDED, PairInput.START): PairState.SUCCEEDED,
    (PairState.SUCCEEDED, PairInput.TRIGGER): PairState.SUCCEEDED,
    (PairState.SUCCEEDED, PairInput.SUCCEED): PairState.SUCCEEDED,
    # Nobody else would settle who controls, so that even a pair that works is checked again.
    (PairState.SUCCEEDED, PairInput.CONFLICT): PairState.WAITING,
    (PairState.SUCCEEDED, PairInput.FAIL): PairState.FAILED,
    (PairState.SUCCEEDED, PairInput.LOSE): PairState.FAILED,
    (PairState.FAILED, PairInput.TRIGGER): PairState.WAITING,
    (PairState.FAILED, PairInput.SUCCEED): PairState.SUCCEEDED,
    (PairState.FAILED, PairInput.CONFLICT): PairState.WAITING,
    (PairState.FAILED, PairInput.FAIL): PairState.FAILED,
    (PairState.FAILED, PairInput.LOSE): PairState.FAILED,
}


def diagram() -> str:
    """The table as a Mermaid state diagram; arrows from a state to itself are left out."""
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {_name(state)}" for state in INITIAL]
    arrows: dict[tuple[PairState, PairState], list[str]] = {}
    for (before, cause), after in TRANSITIONS.items():
        if before is not after:
            arrows.setdefault((before, after), []).append(cause.name.lower())
    lines += [
        f"    {_name(before)} --> {_name(after)} : {', '.join(causes)}"
        for (before, after), causes in arrows.items()
    ]
    lines += [f"    {_name(state)} --> [*] : removed, restart" for state in PairState]
    return "\n".join(lines)


def glossary() -> str:
    """The inputs in words, as a Markdown table."""
    rows = [f"| {cause.name.lower()} | {cause.value} |" for cause in PairInput]
    return "\n".join(["| input | what happened |", "| --- | --- |", *rows])


def _name(state: PairState) -> str:
    """Mermaid takes no hyphen in the name of a state."""
    return state.value.replace("-", "_")
