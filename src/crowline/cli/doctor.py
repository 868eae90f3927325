"""`crowline doctor`: what does this network allow, why, and what would help?"""

from __future__ import annotations

import asyncio
import shutil
import textwrap
import time
from typing import TYPE_CHECKING

import click

from crowline.base.errors import UsageError
from crowline.cli.output import Output, printable

if TYPE_CHECKING:
    from crowline.api.doctor.examination import Examination

_LIMIT = 5.0  # seconds
_INDENT = 11  # characters of the widest heading and a gap
_WIDEST, _NARROWEST = 110, 60  # characters of a line


@click.command("doctor")
@click.argument("code", required=False)
@click.option(
    "--pair", is_flag=True, help="Show a code, and look with the other side at what you two can do."
)
@click.option("--server", metavar="URL", help="The server, ws://HOST:PORT or wss://… [$CROWLINE_SERVER]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Say only the verdict.")
@click.option("--watch", type=click.FloatRange(min=1), metavar="S", help="Look again every S seconds.")
@click.option("--explain", metavar="TERM", help="Say what a word means, for instance mapping or cgn.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help=f"Seconds for everything, {_LIMIT:g} by default; with another person, to wait for them.",
)
def doctor(
    code: str | None,
    pair: bool,
    server: str | None,
    as_json: bool,
    quiet: bool,
    watch: float | None,
    explain: str | None,
    timeout: float | None,
) -> int:
    """Say whether this machine can connect directly, why (not), and what would help.

    With CODE, or with --pair on the first of two machines, both sides look at what they can do together.

    Exit code: 0 direct connections are likely, 20 a relay is needed, 21 UDP is blocked, 22 no server.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if explain is not None:
        _alone(explain=explain, code=code, pair=pair, watch=watch)
        return _explain(explain, output)
    if code is not None or pair:
        _alone(code=code, pair=pair, watch=watch)
        from crowline.cli.doctor_pair import doctor_pair

        return doctor_pair(output, code, server=server, timeout=timeout)
    # Help must be quick, and the event loop is large.
    from crowline.cli.run import run

    return run(_examine(server, timeout or _LIMIT, watch, output))


def _alone(**chosen: str | float | bool | None) -> None:
    """Raises `UsageError` for two things at once."""
    names = {"code": "a code", "pair": "--pair", "watch": "--watch", "explain": "--explain"}
    both = [names[name] for name, value in chosen.items() if value]
    if len(both) > 1:
        raise UsageError(f"{both[0]} and {both[1]} exclude each other.")


def _explain(word: str, output: Output) -> int:
    from crowline.api.doctor.examination import explain

    term = explain(word)
    if output.as_json:
        output.emit("term", name=term.name, names=list(term.names), text=term.text)
        return 0
    click.echo(f"{term.name}  (also: {', '.join(term.names[1:])})" if term.names[1:] else term.name)
    for paragraph in term.text.split("\n\n"):
        click.echo()
        click.echo(
            textwrap.fill(" ".join(paragraph.split()), _width(), initial_indent="  ", subsequent_indent="  ")
        )
    return 0


async def _examine(server: str | None, limit: float, watch: float | None, output: Output) -> int:
    """Once, or until somebody stops it. The exit code."""
    from crowline.api.doctor.examination import examine

    started = time.monotonic()
    last: Examination | None = None
    while True:
        examination = await examine(server, limit=limit)
        if output.as_json:
            output.emit("doctor", **examination.to_fields())
        elif last is None or last.diagnosis != examination.diagnosis:
            if last is not None:
                output.insist(f"After {time.monotonic() - started:.0f} s it is different:")
            _show(examination, output)
        if watch is None:
            return examination.diagnosis.verdict.exit_code
        last = examination
        await asyncio.sleep(watch)


def _show(examination: Examination, output: Output) -> None:
    if output.quiet:
        output.insist(examination.diagnosis.summary)
        return
    for heading, text in examination.to_lines():
        _say(heading, printable(text), output)


def _say(heading: str, text: str, output: Output) -> None:
    """One heading with its text, wrapped. Commands, which begin with blanks, stay on one line for copying."""
    if text.startswith(" "):
        output.say(" " * _INDENT + text)
        return
    lines = textwrap.wrap(text, _width() - _INDENT - 2, break_long_words=False, break_on_hyphens=False) or [
        ""
    ]
    for number, line in enumerate(lines):
        output.say(f"{heading if number == 0 else '':{_INDENT}}{line}")


def _width() -> int:
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))
