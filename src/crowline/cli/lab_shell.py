"""`crowline lab shell`: look around behind a NAT of one's choice."""

from __future__ import annotations

from typing import Any

import click

from crowline.cli.lab_bed_options import bed_of, bed_options
from crowline.cli.lab_progress import stoppable
from crowline.cli.output import Output

_INTERRUPTED = 130


@click.command("shell")
@bed_options
@click.option(
    "--on",
    "role",
    type=click.Choice(["a", "b", "server"]),
    default="a",
    show_default=True,
    help="Where the shell is.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not say what there is.")
def shell(role: str, quiet: bool, no_serve: bool, **wishes: Any) -> int:
    """Open a shell on a host behind a NAT of your choice; needs root.

    In it, `a`, `b` and `server` run a command on that host, or open a shell there: `b ping -c1 44.1.0.1`.
    Everything is removed when the shell ends.
    """
    # The laboratory is large, and help must be quick.
    from crowline.lab.run import open_shell

    output = Output(quiet=quiet)
    try:
        with stoppable(), bed_of(**wishes) as bed:
            if not no_serve:
                bed.serve()
            for line in bed.describe():
                output.say(line)
            output.say("`a CMD`, `b CMD` and `server CMD` run there; `exit` removes it all.")
            return open_shell(bed, role)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        output.say("Interrupted; everything that was built is removed.")
        return _INTERRUPTED
