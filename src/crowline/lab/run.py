"""Runs commands of somebody's choice on the hosts of a test bed, and hands on what they say."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from crowline.base.errors import UsageError
from crowline.lab.bed import Bed
from crowline.lab.kernel import find_program
from crowline.lab.peer_script import Role

Channel: TypeAlias = Literal["out", "err"]
Tell: TypeAlias = Callable[[Role, Channel, str], None]

GRACE = 3.0  # seconds that what still runs gets to end by itself
READING = 1.0  # seconds after the end of a command in which its last words are waited for
TIMED_OUT = 124  # as timeout(1) says it
_KILLED_BY = 128  # plus the signal's number, as shells say it
_POLL = 0.01  # seconds between looks at the commands
_ROLES: tuple[Role, ...] = ("server", "a", "b")
_Process: TypeAlias = "subprocess.Popen[Any]"


def run_commands(
    bed: Bed, commands: Mapping[Role, Sequence[str]], tell: Tell, *, timeout: float | None = None
) -> dict[Role, int]:
    """Run one command on each of these hosts at once and wait until those of `a` and `b` have ended.

    The server's is started first, and ended when the others have; alone, it is waited for. A single command
    has this process's terminal; otherwise `tell` gets each line that one says, from other threads. Gives the
    exit codes of all that ended by themselves, and `TIMED_OUT` for those waited for in vain.
    """
    if not commands:
        raise UsageError("there is no command to run")
    for argv in commands.values():
        _check(argv)
    if len(commands) == 1:
        [(role, argv)] = commands.items()
        return {role: _run_on_terminal(bed, role, argv, timeout)}
    processes: dict[Role, _Process] = {}
    readers: list[threading.Thread] = []
    for role in (role for role in _ROLES if role in commands):
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes[role] = bed.spawn(role, commands[role], **pipes)
        readers += _listen(role, processes[role], tell)
    awaited = [process for role, process in processes.items() if role != "server"]
    _await(awaited, timeout)
    codes = {role: code for role, process in processes.items() if (code := _code(process)) is not None}
    for role, process in processes.items():
        if role not in codes and process in awaited:
            codes[role] = TIMED_OUT
        _end(process)
    deadline = time.monotonic() + READING
    for reader in readers:
        reader.join(max(0.0, deadline - time.monotonic()))
    return codes


def open_shell(bed: Bed, role: Role) -> int:
    """A shell on that host, in which `a`, `b` and `server` run a command on the other ones, or a shell
    there. Gives the shell's exit code."""
    tools = bed.internet.folder()
    for each in _ROLES:
        _write_tool(tools / each, bed, each)
    path = f"{tools}:{os.environ.get('PATH', os.defpath)}"
    return _run_on_terminal(bed, role, [_shell()], None, PATH=path)


def _check(argv: Sequence[str]) -> None:
    if not argv or not argv[0]:
        raise UsageError("there is no command to run")
    if shutil.which(argv[0]) is None:
        raise UsageError(f"There is no program {argv[0]} here.", hint="The hosts have this machine's files.")


def _run_on_terminal(bed: Bed, role: Role, argv: Sequence[str], timeout: float | None, **more: str) -> int:
    """Run a command that shares this process's input and output; Ctrl-C is for it alone."""
    with _deaf_to_interrupts():
        environment = bed.environment(role) | more
        process = bed.spawn(role, argv, env=environment, start_new_session=False)
        _await([process], timeout)
        code = _code(process)
    if code is None:
        process.terminate()
        return TIMED_OUT
    return code


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    # A handler, because programs would inherit it if the signal were ignored.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _listen(role: Role, process: _Process, tell: Tell) -> list[threading.Thread]:
    def read(channel: Channel, stream: IO[bytes]) -> None:
        with suppress(ValueError, OSError):  # closed under us
            for line in stream:
                tell(role, channel, line.decode(errors="replace").rstrip("\r\n"))

    assert process.stdout is not None and process.stderr is not None
    parts: list[tuple[Channel, IO[bytes]]] = [("out", process.stdout), ("err", process.stderr)]
    readers = [threading.Thread(target=read, args=part, daemon=True) for part in parts]
    for reader in readers:
        reader.start()
    return readers


def _await(processes: Sequence[_Process], timeout: float | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while any(process.poll() is None for process in processes):
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(_POLL)


def _code(process: _Process) -> int | None:
    """The exit code as a shell would give it; ``None`` while it runs."""
    code = process.poll()
    return code if code is None or code >= 0 else _KILLED_BY - code


def _end(process: _Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def _write_tool(file: Path, bed: Bed, role: Role) -> None:
    facts = " ".join(shlex.quote(f"{name}={value}") for name, value in bed.facts(role).items())
    enter = f"{find_program('ip')} netns exec {bed.host(role).namespace}"
    default = f"[ $# -gt 0 ] || set -- {shlex.quote(_shell())}"
    file.write_text(f'#!/bin/sh\n{default}\nexec env {facts} {enter} "$@"\n')
    file.chmod(0o700)


def _shell() -> str:
    return os.environ.get("SHELL") or "/bin/sh"
