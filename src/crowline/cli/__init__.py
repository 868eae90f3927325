"""The command line: one file for each verb, imported when it is called."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from crowline.base.errors import CrowlineError
from crowline.cli.memory import look_seldom
from crowline.cli.verbs import Verbs

INTERRUPTED = 130

# verb: module, one line of help
VERBS = {
    "send": ("crowline.cli.send", "Send files and folders to somebody with a code."),
    "receive": ("crowline.cli.receive", "Receive what somebody sends."),
    "pipe": ("crowline.cli.pipe", "Join standard input and output of two computers."),
    "chat": ("crowline.cli.chat", "Write to each other."),
    "forward": ("crowline.cli.forward", "Forward TCP and UDP ports between two computers."),
    "ping": ("crowline.cli.ping", "Measure the round trip to the other side, and say by which path."),
    "pair": ("crowline.cli.pair", "Get to know each other: no code is needed after that."),
    "peers": ("crowline.cli.peers", "List who is known, and who of them waits for you now."),
    "doctor": ("crowline.cli.doctor", "Say what this network allows, why, and what would help."),
    "serve": ("crowline.cli.serve", "Run a server: meeting point, STUN and TURN in one process."),
    "stun": ("crowline.cli.stun", "Ask a server under which address it sees this machine."),
    "map": ("crowline.cli.map", "Have this network's router open ports to the internet."),
    "demo": ("crowline.cli.demo", "Send a file through two NATs on this machine."),
    "lab": ("crowline.cli.lab", "Try any program behind every kind of NAT, on this machine."),
}


@click.command(cls=Verbs, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crowline", message="crowline %(version)s")
def group() -> None:
    """Connect two machines directly, through the NATs and firewalls between them."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave by `SystemExit` with its exit code; errors are a sentence and a hint."""
    if arguments is None:
        # The process is this command's own.
        look_seldom()
    try:
        result: Any = group.main(arguments, prog_name="crowline", standalone_mode=False)
        raise SystemExit(result if isinstance(result, int) else 0)
    except CrowlineError as error:
        _leave(error, arguments)
    except OSError as error:
        from crowline.cli.output import local_problem

        _leave(local_problem(error), arguments)
    except click.exceptions.Abort:
        raise SystemExit(INTERRUPTED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None


def _leave(error: CrowlineError, arguments: list[str] | None) -> NoReturn:
    from crowline.cli.output import show_error

    show_error(error, as_json="--json" in (arguments if arguments is not None else sys.argv))
    raise SystemExit(error.exit_code) from None
