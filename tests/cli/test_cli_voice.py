"""What commands show and ask: nothing a stranger says moves a cursor, and no answer is no yes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crowline.api.path import Path as NetworkPath
from crowline.base.errors import Interrupted, UsageError
from crowline.cli import ask as asking
from crowline.cli import main, meet
from crowline.cli.output import Output
from crowline.cli.run import run
from crowline.cli.screen import Bar, Screen
from crowline.cli.view import TransferView

EVIL = "\x1b[2J\x9b31m\u202eowned\r\n"


def test_no_line_for_a_person_holds_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever finds its way into a sentence, a path's reason for one."""
    output = Output()
    output.say(EVIL)
    output.insist(EVIL)
    TransferView(output, 0).on_path(NetworkPath("direct", "udp", "a", "b", 0.1, EVIL), None)
    for line in capsys.readouterr().err.splitlines():
        assert line.isprintable(), line


def test_json_is_plain_ascii_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Any terminal and any encoding of standard output can take it, lone surrogates too."""
    Output(as_json=True).emit("file", path=EVIL + "ü\udc80")
    line = capsys.readouterr().out
    assert line.isascii() and line.rstrip("\n").isprintable()
    assert json.loads(line)["path"] == EVIL + "ü\udc80"


def test_the_live_path_line_holds_no_control_characters() -> None:
    """The same on a terminal, where the line is drawn again and again."""
    from rich.console import Console

    class Peer:
        path = NetworkPath("direct", "udp", "a", "b", 0.1, EVIL)

    view = TransferView(Output(), 10)
    view.peer = Peer()  # type: ignore[assignment]
    screen = Screen()
    screen._bars.append(Bar(view, 10))
    shown = io.StringIO()
    Console(file=shown, width=200).print(screen.render())
    assert all(line.isprintable() for line in shown.getvalue().splitlines())


@pytest.fixture
def at_the_end_of_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard input is open and has nothing more to say."""
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        monkeypatch.setattr(asking, "can_ask", lambda: True)
        yield


async def test_the_end_of_input_is_no_consent(at_the_end_of_input: None) -> None:
    """Ctrl-D, or a terminal that is gone, takes no files."""
    assert not await asking.agree("Save?")


async def test_the_end_of_input_is_no_code(at_the_end_of_input: None) -> None:
    """It is asked for once, not for ever."""
    with pytest.raises(UsageError):
        async with asyncio.timeout(30):
            await meet._settle_code(Output(), None)


@pytest.mark.parametrize("folder", ["x" * 300, "nowhere"])
def test_a_folder_that_cannot_even_be_looked_at_is_misuse(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence, not a traceback."""
    with pytest.raises(SystemExit) as leave:
        main(["receive", "7-a-b-c", "-y", "--out", folder])
    assert leave.value.code == 2
    assert capsys.readouterr().err.strip()


def test_trouble_of_the_system_that_nobody_foresaw_is_exit_8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A sentence that names it."""
    from crowline.cli import options

    def fail(**_: Any) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(options, "Output", fail)
    with pytest.raises(SystemExit) as leave:
        main(["send", str(tmp_path)])
    assert leave.value.code == 8
    assert "No space left on device" in capsys.readouterr().err


def test_an_error_of_the_clean_up_does_not_hide_ctrl_c() -> None:
    """Whoever stopped it is told so, by exit code 130."""

    async def work() -> None:
        os.kill(os.getpid(), 2)
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise Interrupted from None

    with pytest.raises(KeyboardInterrupt):
        run(work())


def test_a_reader_of_the_json_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    """As with `| head -1`."""
    script = (
        "import sys\n"
        "from crowline.cli.output import Output\n"
        "output = Output(as_json=True)\n"
        "sys.stdin.readline()\n"
        "for _ in range(3): output.emit('progress', bytes=1)\n"
        "output.insist('done')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read().strip() == "done"
        assert process.wait(10) == 0
