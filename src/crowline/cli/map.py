"""`crowline map`: ports that routers open; one file for each of its commands, imported when it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from crowline.cli.verbs import Verbs

F = TypeVar("F", bound=Callable[..., Any])

# verb: module, one line of help
MAP_VERBS = {
    "add": ("crowline.cli.map_add", "Open a port for some time, and leave it open."),
    "list": ("crowline.cli.map_list", "Say what is open."),
    "remove": ("crowline.cli.map_remove", "Close a port."),
    "watch": ("crowline.cli.map_watch", "Keep ports open, and say what changes, until Ctrl-C."),
}


@click.command("map", cls=Verbs, verbs=MAP_VERBS)
def map() -> None:
    """Have this network's router open ports to the internet, by PCP, NAT-PMP or UPnP.

    No server is needed, and only the router is asked. `docs/port-mapping.md` says what routers do and what
    to do where they do nothing.
    """


_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output."),
    click.option("-q", "--quiet", is_flag=True, help="Say only what was asked for."),
)
_TRANSPORT = (
    click.option("--udp", "transport", flag_value="udp", default="udp", help="A UDP port.  [default]"),
    click.option("--tcp", "transport", flag_value="tcp", help="A TCP port."),
)
_HOST = (
    click.option("--host", metavar="ADDRESS", help="The address of this machine; IPv6 opens the firewall."),
)


def output_options(command: F) -> F:
    """The flags that say how to speak."""
    return _added(command, _OUTPUT)


def port_options(command: F) -> F:
    """The flags that say which kind of port."""
    return _added(command, (*_TRANSPORT, *_HOST))


def _added(command: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        command = option(command)
    return command
