"""One worker as its owner sees it: started, replaced when it dies, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from crowline.base.errors import LocalProblem
from crowline.server.worker_link import OnMessage, WorkerLink

STEADY = 10.0
"""Seconds after which a worker counts as one that works."""
MOST_FAILURES = 5
"""Deaths of workers that were not steady, one after the other, before the server gives up."""
FIRST_DELAY = 0.1
"""Seconds before the second replacement; the first one is started at once, each later one twice as late."""
GRACE = 3.0
"""Seconds that a worker gets to end by itself."""

IS_SUPPORTED = sys.platform == "linux"
"""Whether the kernel shares a UDP port out among processes and passes descriptors."""


class WorkerProcess:
    """A process, or the one that took its place. `ready` is done when the first one works."""

    def __init__(
        self,
        number: int,
        *,
        greet: Callable[[WorkerProcess], None],
        on_message: OnMessage,
        on_failure: Callable[[LocalProblem], None],
    ) -> None:
        """`greet` tells a new process everything. `on_failure` is called when one after the other dies."""
        self.number = number
        self.pid = 0
        self._greet = greet
        self._on_message = on_message
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] | None = None
        self._is_closing = False
        self._failures = 0
        self._started = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._link: WorkerLink | None = None
        self._watch = -1

    def start(self) -> None:
        """Start a process. Raises `LocalProblem`."""
        self._again = None
        mine, theirs = WorkerLink.pair()
        try:
            # -P: what lies in the working directory is none of the server's modules.
            command = [sys.executable, "-P", "-m", "crowline.server.worker"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(self.number)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Ctrl-C is for the owner alone.
                process_group=0,
            )
            self._watch = os.pidfd_open(self._process.pid)
        except OSError as error:
            mine.close()
            raise LocalProblem(f"A worker process could not be started: {error.strerror}.") from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._gone = self._loop.create_future()
        self._loop.add_reader(self._watch, self._exited)
        self._started = self._loop.time()
        self._link = WorkerLink(mine, self._received, self._kill)
        self._greet(self)

    async def close(self) -> None:
        """End the process; by force if it does not end by itself."""
        self._is_closing = True
        if self._again is not None:
            self._again.cancel()
        if self._link is not None:
            self._link.close()
        if not self.ready.done():
            self.ready.cancel()
        if self._gone is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._gone), GRACE)
        self._kill()
        await self._gone

    def send(self, message: bytes, sock: socket.socket | None = None) -> None:
        """Something that must not get lost. Nothing happens between two processes: `greet` tells the next."""
        if self._link is not None:
            self._link.send(message, sock)

    def send_datagram(self, message: bytes) -> bool:
        """Something that may get lost; False if it was."""
        return self._link is not None and self._link.send_datagram(message)

    def _received(self, message: bytes, sock: socket.socket | None) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        self._on_message(message, sock)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _exited(self) -> None:
        assert self._process is not None and self._gone is not None
        self._loop.remove_reader(self._watch)
        os.close(self._watch)
        self._process.wait()
        self._process = None
        if self._link is not None:
            self._link.close()
            self._link = None
        self._gone.set_result(None)
        if not self._is_closing:
            self._replace()

    def _replace(self) -> None:
        self._failures = 1 if self._loop.time() - self._started >= STEADY else self._failures + 1
        if self._failures > MOST_FAILURES:
            self._give_up(
                LocalProblem(
                    "The server's worker processes die again and again.",
                    hint="Without --workers one process does everything.",
                )
            )
            return
        delay = 0.0 if self._failures == 1 else FIRST_DELAY * 2.0 ** (self._failures - 2)
        self._again = self._loop.call_later(delay, self._start_again)

    def _start_again(self) -> None:
        try:
            self.start()
        except LocalProblem as problem:
            self._give_up(problem)

    def _give_up(self, problem: LocalProblem) -> None:
        if self.ready.done():
            self._on_failure(problem)
        else:
            self.ready.set_exception(problem)
