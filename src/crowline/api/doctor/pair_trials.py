"""What became of each pair of one meeting, noted while its agent tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.send_problem import SendProblem
from crowline.diagnosis.pair_trial import PairTrial, Result, ranked
from crowline.ice.candidate import Candidate
from crowline.ice.events import IceEvent, PairLost, PairMoved, PairValid, SendRefused
from crowline.ice.pair import CandidatePair, ValidPair, Way
from crowline.ice.states import PairInput, PairState
from crowline.punch.plan_choice import NatSummary

# Seconds after which a pair counts as silent, though its last check is not yet given up: three went out by
# then, at 0, 0.5 and 1.5 s (RFC 8489 §6.2.1).
SILENT_AFTER = 2.0
# Pairs noted: twice what a check list holds, since restarts and plans bring others.
_MAX_NOTES = 200

_RESULTS = {
    PairState.FROZEN: Result.UNTRIED,
    PairState.WAITING: Result.UNTRIED,
    PairState.IN_PROGRESS: Result.OPEN,
    PairState.SUCCEEDED: Result.WORKS,
    PairState.FAILED: Result.SILENT,
}


@dataclass(slots=True)
class _Note:
    """What is known of one pair; times are those of the loop."""

    local: Candidate
    remote: Candidate
    priority: int
    state: PairState
    begun: float | None = None
    worked: float | None = None
    is_lost: bool = False
    valid: ValidPair | None = None
    problem: SendProblem | None = None


class PairTrials:
    """Feed it an agent's events (`tells_moves`); `pairs` gives that agent's check list."""

    def __init__(
        self, pairs: Callable[[], Iterable[CandidatePair]], clock: Callable[[], float] | None = None
    ) -> None:
        self._pairs = pairs
        self._clock = clock or asyncio.get_running_loop().time
        self._notes: dict[Way, _Note] = {}

    def on_event(self, event: IceEvent) -> None:
        if isinstance(event, PairMoved):
            self._on_moved(event)
        elif isinstance(event, PairValid):
            self._on_valid(event.pair)
        elif isinstance(event, PairLost):
            if note := self._notes.get(event.pair.way):
                note.is_lost = True
        elif isinstance(event, SendRefused):
            self._on_refused(event.base, event.destination, event.problem)

    def trials(self, own: NatSummary | None = None, peer: NatSummary | None = None) -> list[PairTrial]:
        """Every pair with its result and reason, what works first."""
        self._look()
        now = self._clock()
        found = [_trial(way, note, now).explained(own, peer) for way, note in self._notes.items()]
        return ranked(found)

    def _on_moved(self, event: PairMoved) -> None:
        note = self._note(Way(event.base, event.remote, event.transport))
        if note is None:
            return
        note.state = event.after
        if event.cause is PairInput.START and note.begun is None:
            note.begun = self._clock()
        elif event.cause is PairInput.SUCCEED:
            note.is_lost = False
            note.worked = note.worked or self._clock()

    def _on_valid(self, pair: ValidPair) -> None:
        note = self._note(pair.way)
        if note is not None:
            note.valid, note.is_lost = pair, False

    def _on_refused(self, base: Address, destination: Address, problem: SendProblem) -> None:
        if note := self._note(Way(base, destination)):
            note.problem = problem

    def _note(self, way: Way) -> _Note | None:
        if way not in self._notes:
            self._look()
        return self._notes.get(way)

    def _look(self) -> None:
        """Note what the check list has now; what it has no longer stays as it was."""
        for pair in self._pairs():
            note = self._notes.get(pair.way)
            if note is not None:
                note.local, note.remote, note.priority = pair.local, pair.remote, pair.priority
                note.state = pair.state
            elif len(self._notes) < _MAX_NOTES:
                self._notes[pair.way] = _Note(pair.local, pair.remote, pair.priority, pair.state)


def _trial(way: Way, note: _Note, now: float) -> PairTrial:
    valid = note.valid
    local = note.local if valid is None else valid.local
    after = None
    if note.worked is not None and note.begun is not None:
        after = max(0.0, note.worked - note.begun)
    return PairTrial(
        base=way.base,
        local=local.address,
        local_type=local.type,
        remote=way.remote,
        remote_type=note.remote.type,
        transport=way.transport,
        result=_result(note, now),
        priority=note.priority,
        after=after,
        rtt=None if valid is None else valid.rtt,
        problem=note.problem,
    )


def _result(note: _Note, now: float) -> Result:
    if note.is_lost:
        return Result.LOST
    result = _RESULTS[note.state]
    if result is Result.OPEN and note.begun is not None and now >= note.begun + SILENT_AFTER:
        result = Result.SILENT
    if note.problem is not None and result in (Result.SILENT, Result.OPEN):
        return Result.REFUSED
    return result
