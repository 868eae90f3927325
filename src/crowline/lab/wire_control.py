"""The owner's end of the process that carries the laboratory's packets."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import msgspec

from crowline.base.errors import LocalProblem
from crowline.lab.wire_commands import Answer, AnyCommand, Bye

_PATIENCE = 3.0  # seconds that it gets to end by itself


class WireControl:
    """Starts the wire for the laboratory of that prefix, commands it, and ends it."""

    def __init__(self, prefix: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crowline.lab.wire_process", prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C on the terminal is for this process alone
        )
        self._decoder = msgspec.json.Decoder(Answer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def command(self, command: AnyCommand) -> Answer:
        """Raises `LocalProblem` where the wire refuses or is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(command) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise LocalProblem("The process that carries the laboratory's packets has died.")
        answer = self._decoder.decode(line)
        if answer.error:
            raise LocalProblem(f"The laboratory's wire refused: {answer.error}")
        return answer

    def close(self) -> None:
        """Say goodbye, and end it where it does not listen."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(msgspec.json.encode(Bye()) + b"\n")
            self._process.stdin.flush()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
