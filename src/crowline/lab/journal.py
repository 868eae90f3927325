"""A file that remembers which attempts are done, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crowline.base.errors import LocalProblem, MalformedMessage, UsageError
from crowline.lab.outcome import Outcome
from crowline.lab.trial import Trial

try:
    import fcntl
except ImportError:  # Windows: two runs with one file are then the user's business
    fcntl = None  # type: ignore[assignment]

_VERSION = 1
_BEGINNING = b'{"v":'  # of every file


class Journal:
    """JSON lines: what the run is about, then one line for each finished attempt, written at once.

    `about` are the parameters that the results depend on; `fresh` forgets what an earlier run did, also one
    with other parameters. Entering raises `UsageError` when the file belongs
    to a run with other parameters, and `LocalProblem` when it cannot be used or another run is using it.
    A line that was cut off when its writer was killed is dropped: its attempt is made again.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self._fresh = fresh
        self.outcomes: dict[Trial, Outcome] = {}
        self._about = json.loads(json.dumps(about))
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
        except BlockingIOError:
            self._close()
            raise LocalProblem(
                "Another run is at work with the same state.", hint="Wait for it, or give another --state."
            ) from None
        except OSError as error:
            self._close()
            raise LocalProblem(
                f"The state file cannot be used: {error.strerror}.", hint="Give another --state."
            ) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Remember an attempt. Raises `LocalProblem` where it cannot be written."""
        self.outcomes[trial] = outcome
        self._write({"a": trial.a, "b": trial.b, "n": trial.number, "outcome": outcome.to_fields()})

    def discard(self) -> None:
        """Remove the file: the run is complete and nobody asked to keep it."""
        with suppress(OSError):
            self.path.unlink()

    def _load(self) -> None:
        with self.path.open("rb") as file:
            data = file.read()
        header, *lines = data.split(b"\n")
        is_cut_off = not lines and header.startswith(_BEGINNING)  # its writer was killed at once
        if data and not is_cut_off and self._is_ours(header if lines else b""):
            os.ftruncate(self._descriptor, len(data) - len(lines[-1]))
            self._read(lines[:-1])
            return
        os.ftruncate(self._descriptor, 0)
        self._write({"v": _VERSION, "about": self._about})

    def _is_ours(self, header: bytes) -> bool:
        """Whether the file is to be gone on with, rather than begun anew. Raises `UsageError`."""
        try:
            found = json.loads(header)
            version, about = found["v"], found["about"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UsageError("That file is not the state of a run.", hint="Give another --state.") from None
        if self._fresh:
            return False
        if (version, about) != (_VERSION, self._about):
            raise UsageError(
                "The state belongs to a run with other parameters.",
                hint="Repeat those, give another --state, or start anew with --fresh.",
            )
        return True

    def _read(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            # Something else wrote into the file: those attempts are made again.
            with suppress(ValueError, KeyError, TypeError, MalformedMessage, RecursionError):
                entry = json.loads(line)
                trial = Trial(str(entry["a"]), str(entry["b"]), int(entry["n"]))
                self.outcomes[trial] = Outcome.from_fields(entry["outcome"])

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        try:
            if os.write(self._descriptor, line) != len(line):
                raise LocalProblem("The state file cannot be written: the disk is full.")
        except OSError as error:
            raise LocalProblem(f"The state file cannot be written: {error.strerror}.") from error

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
