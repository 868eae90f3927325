"""The worked examples tell people what is wrong in a line, not in a traceback."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60.0  # seconds until something must have happened
PASSWORD = {"TURN_PASSWORD": "password"}
CTRL_C, CTRL_D = b"\x03", b"\x04"
# The first process of a session that opens a terminal gets its Ctrl-C.
ON_A_TERMINAL = """
import os, runpy, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

WRONG = {
    "stun_address: nobody to ask": (["stun_address.py"], {}, "which server"),
    "turn_echo: nothing": (["turn_echo.py"], PASSWORD, "Usage"),
    "turn_echo: no password": (["turn_echo.py", "127.0.0.1", "user"], {}, "Usage"),
    "turn_echo: no address": (["turn_echo.py", "127.0.0.1", "user", "1.2.3.x"], PASSWORD, "1.2.3.x"),
    "turn_echo: no port": (["turn_echo.py", "127.0.0.1:x", "user"], PASSWORD, "'x'"),
    "turn_echo: no name": (["turn_echo.py", "no..name", "user"], PASSWORD, ""),
    "ice_chat: no port": (["ice_chat.py", "call", "--stun", "127.0.0.1:x"], {}, "'x'"),
    "ice_chat: no name": (["ice_chat.py", "call", "--turn", "no..name"], {}, ""),
    "ice_chat: no input": (["ice_chat.py", "call"], {}, "input ended"),
    "echo: nothing": (["echo.py"], {}, "Usage"),
    "echo: no code": (["echo.py", "join"], {}, "Usage"),
    "echo: no server": (["echo.py", "host"], {}, "No server is named"),
    "echo: a typo": (["echo.py", "join", "1-a-b-c"], {}, "typo"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_is_said_in_a_line(case: str) -> None:
    """On standard error, with an exit code that says so."""
    arguments, variables, expected = WRONG[case]
    unset = ("TURN_PASSWORD", "CROWLINE_SERVER")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    async with asyncio.timeout(PATIENCE):
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=environment | variables,
        )
        _, complaint = await running.communicate()
    assert running.returncode == 1
    assert expected in complaint.decode() and "Traceback" not in complaint.decode()


@pytest.mark.parametrize(("typed", "code"), [(CTRL_C, 0), (CTRL_D, 1)], ids=["Ctrl-C", "Ctrl-D"])
async def test_a_chat_on_a_terminal_ends_when_told_to(typed: bytes, code: int) -> None:
    """Whatever was typed before that, bytes that are no text and lines that are no candidates."""
    terminal, end = pty.openpty()
    async with asyncio.timeout(PATIENCE):
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ON_A_TERMINAL, str(EXAMPLES / "ice_chat.py"), "call"),
            stdin=end,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        os.close(end)
        try:
            await until_it_waits(running)
            os.write(terminal, b"\xff\xfe\n\ncandidate:\na=ice-pwd:short\n" + typed)
            _, complaint = await running.communicate()
        finally:
            os.close(terminal)
    assert running.returncode == code
    assert "Traceback" not in complaint.decode()


async def until_it_waits(running: Process) -> None:
    assert running.stdout is not None
    while await running.stdout.readline() != b"end-of-candidates\n":
        pass
