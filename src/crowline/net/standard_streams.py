"""Standard input and output as one conduit, whatever they are: terminals, pipes, files.

Neither is made non-blocking: that would change them for every other process that has them too. Input is read
in the event loop where the system can say that there is something, else in a thread. Output is always written
in one: no system says how much would be taken. Neither thread keeps the process alive.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from contextlib import suppress

from crowline.base.errors import LocalProblem
from crowline.base.machine import Buffer
from crowline.net.conduit import CHUNK
from crowline.net.handoff import Handoff

# Bytes that may wait between the event loop and a thread.
_LIMIT = 1 << 20
_STDIN, _STDOUT = 0, 1


class StandardStreams:
    """A `Conduit`. With `takes_input` False it is at its end from the beginning."""

    def __init__(self, *, takes_input: bool = True, stdin: int = _STDIN, stdout: int = _STDOUT) -> None:
        if sys.platform == "win32":
            import msvcrt

            for number in (stdin, stdout):
                msvcrt.setmode(number, os.O_BINARY)
        self._input = StandardInput(stdin) if takes_input else None
        self._output = StandardOutput(stdout)

    async def read(self) -> bytes:
        return b"" if self._input is None else await self._input.read()

    async def write(self, data: Buffer) -> None:
        await self._output.write(data)

    async def end(self) -> None:
        await self._output.end()

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        if self._input is not None:
            self._input.close()
        self._output.close()


class StandardInput:
    """Reads one descriptor without holding up the event loop; raises `OSError`."""

    def __init__(self, number: int = _STDIN) -> None:
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._is_ended = False
        # What a thread has read, where the event loop cannot wait for the descriptor.
        self._handoff: Handoff[bytes | OSError] | None = None

    async def read(self) -> bytes:
        """What is there, up to `CHUNK` bytes, as soon as there is anything; ``b""`` at the end."""
        if self._is_ended:
            return b""
        data: bytes | None = None
        while data is None:
            if self._handoff is None and await self._is_ready():
                with suppress(BlockingIOError):  # another process was quicker
                    data = os.read(self._number, CHUNK)
            else:
                data = await self._from_thread()
        self._is_ended = not data
        return data

    def close(self) -> None:
        if self._handoff is not None:
            self._handoff.close()

    async def _is_ready(self) -> bool:
        """Wait until there is something; False where that cannot be waited for: files, and other systems."""
        ready = asyncio.Event()
        try:
            self._loop.add_reader(self._number, ready.set)
        except (NotImplementedError, OSError, ValueError):
            return False
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(self._number)
        return True

    async def _from_thread(self) -> bytes:
        if self._handoff is None:
            self._handoff = Handoff(_LIMIT)
            threading.Thread(target=self._run, args=(self._handoff,), daemon=True).start()
        item = await self._handoff.get()
        if isinstance(item, OSError):
            raise item
        return item or b""

    def _run(self, handoff: Handoff[bytes | OSError]) -> None:
        data: bytes | OSError = b"-"
        while data and not isinstance(data, OSError):
            try:
                data = os.read(self._number, CHUNK)
            except OSError as error:
                data = error
            if not handoff.give(data, 1 if isinstance(data, OSError) else len(data) or 1):
                return


class StandardOutput:
    """Writes to one descriptor without holding up the event loop. Raises `OSError`, and `LocalProblem` where
    nobody reads any more.
    """

    def __init__(self, number: int = _STDOUT) -> None:
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._handoff = Handoff[Buffer](_LIMIT)
        self._over: asyncio.Future[OSError | None] = self._loop.create_future()
        threading.Thread(target=self._run, daemon=True).start()

    async def write(self, data: Buffer) -> None:
        """Take it over; it must not change afterwards. Waits while too much is waiting."""
        self._check()
        await self._handoff.put(data, len(data))
        self._check()

    async def end(self) -> None:
        """Everything is written, and whoever reads it sees the end now."""
        await self._handoff.put(b"")
        await asyncio.shield(self._over)
        self._check()
        if self._number == _STDOUT:
            _let_go(self._number)

    def close(self) -> None:
        self._handoff.close()

    def _check(self) -> None:
        if self._over.done() and (error := self._over.result()) is not None:
            if isinstance(error, BrokenPipeError):
                raise LocalProblem("Nobody reads what comes here any more.") from error
            raise error

    def _run(self) -> None:
        problem: OSError | None = None
        try:
            while (data := self._handoff.take()) is not None and len(data):
                _write(self._number, memoryview(data))
        except OSError as error:
            problem = error
            self._handoff.close()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, problem)

    def _end(self, problem: OSError | None) -> None:
        if not self._over.done():
            self._over.set_result(problem)


def _write(number: int, view: memoryview) -> None:
    """All of it, also where another process that has the same descriptor made it non-blocking."""
    while len(view):
        try:
            view = view[os.write(number, view) :]
        except BlockingIOError:
            select.select([], [number], [])


def _let_go(number: int) -> None:
    """Close standard output for whoever reads it, and leave something in its place to write to."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
    finally:
        os.close(nowhere)
