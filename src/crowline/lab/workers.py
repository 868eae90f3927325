"""Spreads pieces of work over processes; whoever is stopped in the middle leaves nothing running."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Generic, TypeVar

from crowline.base.errors import LocalProblem, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST_JOBS = 64  # processes: more than anybody's cores, fewer than the machine's limit
_GRACE = 20.0  # seconds that a stopped worker gets to take down what it had built


def run_all(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int = 1
) -> Generator[tuple[Task, Result], None, None]:
    """Yield each task with its result, as they are done; one job works in this process.

    `work`, tasks and results must be picklable for more than one job. What `work` raises is raised here, and
    so is `LocalProblem` when a worker dies. Leaving the iterator early ends all workers; each gets SIGTERM,
    which raises `KeyboardInterrupt` in its work.
    """
    if not 0 < jobs <= MOST_JOBS:
        raise UsageError(f"{jobs} jobs are not between 1 and {MOST_JOBS}")
    waiting = deque(tasks)
    jobs = min(jobs, len(waiting))
    if jobs <= 1:
        for task in waiting:
            yield task, work(task)
        return
    workers: list[_Worker[Task, Result]] = []
    try:
        while len(workers) < jobs:
            workers.append(_Worker.start(work))
        for worker in workers:
            worker.give(waiting.popleft())
        busy = {worker.pipe: worker for worker in workers}
        while busy:
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                task, result = worker.take()
                if waiting:
                    worker.give(waiting.popleft())
                else:
                    del busy[worker.pipe]
                yield task, result
    finally:
        _end(workers)


@dataclass(eq=False, slots=True)
class _Worker(Generic[Task, Result]):
    process: Any  # a Process of the spawn context
    pipe: Connection[Any, Any]
    task: Task | None = None
    is_busy: bool = False

    @classmethod
    def start(cls, work: Callable[[Task], Result]) -> _Worker[Task, Result]:
        # Neither threads nor open files of this process may end up in a worker.
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        process.start()
        theirs.close()
        return cls(process, mine)

    def give(self, task: Task) -> None:
        self.task, self.is_busy = task, True
        with suppress(OSError):  # a worker that has died is noticed when its result is awaited
            self.pipe.send(task)

    def take(self) -> tuple[Task, Result]:
        assert self.task is not None
        try:
            result, error = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(_GRACE)
            raise LocalProblem(
                f"A worker of the laboratory died (exit code {self.process.exitcode}).",
                hint="Fewer --jobs need less memory.",
            ) from None
        self.is_busy = False
        if error is not None:
            raise error
        return self.task, result


def _serve(pipe: Connection[Any, Any], work: Callable[[Any], Any]) -> None:
    """The life of a worker: until its parent closes the pipe, dies, or ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    signal.signal(signal.SIGTERM, _terminated)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            pipe.send(_attempt(work, pipe.recv()))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is on its way out already


def _attempt(work: Callable[[Any], Any], task: Any) -> tuple[Any, Exception | None]:
    try:
        return work(task), None
    except Exception as error:
        error.add_note(f"In a worker of the laboratory:\n{traceback.format_exc()}")
        return None, error


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(workers: list[_Worker[Any, Any]]) -> None:
    for worker in workers:
        worker.pipe.close()
        if worker.is_busy and worker.process.is_alive():
            worker.process.terminate()
    for worker in workers:
        worker.process.join(_GRACE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
