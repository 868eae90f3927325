"""The command line: one file for each verb, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from crowline.base.errors import CrowlineError

INTERRUPTED = 130

# verb: module, one line of help
VERBS = {
    "send": ("crowline.cli.send", "Send files and folders to somebody with a code."),
    "receive": ("crowline.cli.receive", "Receive what somebody sends."),
    "serve": ("crowline.cli.serve", "Run a server: meeting point, STUN and TURN in one process."),
    "demo": ("crowline.cli.demo", "Send a file through two NATs on this machine."),
}


class Verbs(click.Group):
    """A group that knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = getattr(import_module(VERBS[cmd_name][0]), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crowline", message="crowline %(version)s")
def group() -> None:
    """Connect two machines directly, through the NATs and firewalls between them."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave by `SystemExit` with its exit code; errors are a sentence and a hint."""
    try:
        result: Any = group.main(arguments, prog_name="crowline", standalone_mode=False)
        raise SystemExit(result if isinstance(result, int) else 0)
    except CrowlineError as error:
        from crowline.cli.output import show_error

        show_error(error, as_json="--json" in (arguments if arguments is not None else sys.argv))
        raise SystemExit(error.exit_code) from None
    except click.exceptions.Abort:
        raise SystemExit(INTERRUPTED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
