"""Flags that every command with a meeting has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

import click

from crowline.cli.output import Output
from crowline.cli.rate import Rate


@dataclass(frozen=True, slots=True)
class MeetingFlags:
    """How to meet, as the command line says."""

    server: str | None
    relay_only: bool
    direct_only: bool
    hide_addresses: bool
    port_mapping: bool
    timeout: float | None
    limit: int | None = None
    deadline: float = 1200.0

    def keywords(self) -> dict[str, Any]:
        """The same for `host` and `enter`."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


_OPTIONS = (
    click.option("--server", metavar="URL", help="The server, ws://HOST:PORT or wss://… [$CROWLINE_SERVER]"),
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output."),
    click.option("-q", "--quiet", is_flag=True, help="Say only what cannot be left out."),
    click.option("--relay-only", is_flag=True, help="Show the other side no address; use the relay."),
    click.option("--direct-only", is_flag=True, help="Send nothing through a server."),
    click.option("--hide-addresses", is_flag=True, help="Tell the other side no address of this network."),
    click.option(
        "--no-port-mapping",
        "port_mapping",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Do not ask this network's router to open ports.",
    ),
    click.option(
        "--limit", type=Rate(), metavar="RATE", help="Move no more than that a second: 500k, 2.5MB, 20Mbit."
    ),
    click.option(
        "--timeout", type=click.FloatRange(min=0), metavar="S", help="Seconds to wait for the other side."
    ),
    click.option(
        "--deadline",
        type=click.FloatRange(min=0),
        default=1200.0,
        metavar="S",
        help="Seconds to look for the other side again when every path to it broke. [1200]",
    ),
)


def meeting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flags to a command, which gets them as `flags` and its voice as `output`."""

    @wraps(command)
    def gathered(**values: Any) -> None:
        output = Output(as_json=values.pop("as_json"), quiet=values.pop("quiet"))
        flags = MeetingFlags(**{each.name: values.pop(each.name) for each in fields(MeetingFlags)})
        command(flags=flags, output=output, **values)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
