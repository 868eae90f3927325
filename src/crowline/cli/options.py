"""Flags that every command with a meeting has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--server", metavar="URL", help="The server, ws://HOST:PORT or wss://… [$CROWLINE_SERVER]"),
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output."),
    click.option("-q", "--quiet", is_flag=True, help="Say only what cannot be left out."),
    click.option("--relay-only", is_flag=True, help="Show the other side no address; use the relay."),
    click.option("--direct-only", is_flag=True, help="Send nothing through a server."),
    click.option("--hide-addresses", is_flag=True, help="Tell the other side no address of this network."),
    click.option(
        "--timeout", type=click.FloatRange(min=0), metavar="S", help="Seconds to wait for the other side."
    ),
)


def meeting_options(command: F) -> F:
    """Add the flags to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
