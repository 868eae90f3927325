"""What this machine's network allows, measured in a few seconds: all checks side by side, then a verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crowline.api.doctor.checks import Checks
from crowline.api.options import default_server
from crowline.base.errors import CrowlineError, ServerUnreachable
from crowline.diagnosis.diagnosis import Diagnosis, diagnose
from crowline.diagnosis.facts import Facts
from crowline.diagnosis.report import to_fields, to_lines
from crowline.diagnosis.terms import Term, explain
from crowline.diagnosis.verdict import Verdict

__all__ = ["LIMIT", "Diagnosis", "Examination", "Facts", "Term", "Verdict", "examine", "explain"]

LIMIT = 5.0
"""Seconds for everything; what is not known by then is left out, and said to be."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found, what follows from it, and how many seconds it took."""

    facts: Facts
    diagnosis: Diagnosis
    seconds: float

    def to_fields(self) -> dict[str, Any]:
        """The body of schema `doctor/1`: plain values, ready for JSON."""
        return to_fields(self.facts, self.diagnosis, self.seconds)

    def to_lines(self) -> Iterator[tuple[str, str]]:
        """The same for people: a heading ("" where the one before goes on) and what stands beside it."""
        return to_lines(self.facts, self.diagnosis, self.seconds)


async def examine(server: str | None = None, *, limit: float = LIMIT) -> Examination:
    """Look at this machine's network towards that server, by default the one that meetings would use.

    `limit` is in seconds. A server that is not reached is a result, too; so is none that is named. Raises
    `UsageError` for a URL that is none.
    """
    problem: CrowlineError | None = None
    if server is None:
        try:
            server = default_server()
        except ServerUnreachable as error:
            server, problem = "", error
    loop = asyncio.get_running_loop()
    started = loop.time()
    checks = Checks(server, limit, problem)
    left_out = await _run(checks, limit)
    facts = checks.facts(left_out)
    return Examination(facts, diagnose(facts), loop.time() - started)


async def _run(checks: Checks, limit: float) -> list[str]:
    """The names of those that did not end in time, or at all."""
    tasks = {asyncio.ensure_future(check()): name for name, check in checks.all.items()}
    try:
        await asyncio.wait(tasks, timeout=limit)
        return sorted(name for task, name in tasks.items() if not task.done() or _has_failed(task))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _has_failed(task: asyncio.Future[None]) -> bool:
    """Whether the machine refused it: no sockets, no names. What else goes wrong is a defect, and raised."""
    error = task.exception()
    if error is None:
        return False
    if isinstance(error, (CrowlineError, OSError)):
        return True
    raise error
