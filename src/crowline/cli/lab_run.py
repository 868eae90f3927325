"""`crowline lab run`: programs of one's choice behind NATs of one's choice."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from crowline.cli.lab_bed_options import bed_of, bed_options
from crowline.cli.lab_progress import stoppable
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.lab.peer_script import Role
    from crowline.lab.run import Channel, Tell

_INTERRUPTED = 130


@click.command("run", context_settings={"ignore_unknown_options": False})
@bed_options
@click.option("--on-a", metavar="LINE", help="A shell's line for host a.")
@click.option("--on-b", metavar="LINE", help="A shell's line for host b.")
@click.option("--on-server", metavar="LINE", help="A shell's line for the server; ended with the others.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Seconds for all of it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what the commands say.")
@click.argument("command", nargs=-1, metavar="[-- CMD…]")
def run(
    command: tuple[str, ...],
    on_a: str | None,
    on_b: str | None,
    on_server: str | None,
    timeout: float | None,
    no_serve: bool,
    as_json: bool,
    quiet: bool,
    **wishes: Any,
) -> int:
    """Run CMD on two hosts behind NATs of your choice, or another line on each of them; needs root.

    The commands see only the laboratory's network, and this machine's files. Environment variables tell them
    where they are: CROWLINE_LAB_ROLE (a, b, server), CROWLINE_LAB_ADDRESSES (their own),
    CROWLINE_LAB_SERVERS, CROWLINE_LAB_STUN, CROWLINE_LAB_FOLDER (shared), CROWLINE_SERVER. The exit code is
    that of the first command that failed.

    \b
    crowline lab run --a home --b symmetric -- sh -c 'ping -c1 ${CROWLINE_LAB_SERVERS%% *}'
    crowline lab run --on-server 'iperf3 -s' --on-a 'iperf3 -c 44.1.0.1' --rate 50 --loss 1
    """
    # The laboratory is large, and help must be quick.
    from crowline.base.errors import UsageError
    from crowline.lab.run import run_commands

    lines = {"a": on_a, "b": on_b, "server": on_server}
    commands: dict[Any, list[str]] = {role: ["sh", "-c", line] for role, line in lines.items() if line}
    for role in ("a", "b"):
        if command and role not in commands:
            commands[role] = list(command)
    if not commands:
        raise UsageError("There is no command to run.", hint="Write it after --, or use --on-a and --on-b.")
    output = Output(as_json=as_json, quiet=quiet)
    try:
        with stoppable(), bed_of(**wishes) as bed:
            if not no_serve:
                bed.serve()
            for line in bed.describe():
                output.say(line)
            codes = run_commands(bed, commands, _teller(output), timeout=timeout)
    except KeyboardInterrupt:
        output.say("Interrupted; everything that was built is removed.")
        return _INTERRUPTED
    for role, code in codes.items():
        output.emit("exit", role=role, code=code)
        if code:
            output.say(f"{role} ended with {code}.")
    return next((codes[role] for role in ("a", "b", "server") if codes.get(role)), 0)


def _teller(output: Output) -> Tell:
    """Writes each line with the name of its host before it, whole."""
    lock = threading.Lock()

    def tell(role: Role, channel: Channel, line: str) -> None:
        with lock:
            if output.as_json:
                output.emit("line", role=role, channel=channel, text=line)
            else:
                stream = sys.stdout if channel == "out" else sys.stderr
                stream.write(f"{role:<6} │ {line}\n")
                stream.flush()

    return tell
