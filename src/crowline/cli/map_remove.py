"""`crowline map remove`."""

from __future__ import annotations

import click

from crowline.cli.map import output_options, port_options
from crowline.cli.output import Output


@click.command("remove")
@click.argument("port", type=click.IntRange(1, 65535))
@port_options
@output_options
def remove(port: int, transport: str, host: str | None, as_json: bool, quiet: bool) -> None:
    """Close a port of this machine that the router has open. PORT is this machine's."""
    from crowline.api.port_mapping.ports import close_port
    from crowline.base.transport import Transport
    from crowline.cli.run import run

    run(close_port(port, Transport(transport), host=host))
    output = Output(as_json=as_json, quiet=quiet)
    output.emit("closed", transport=transport, port=port)
    output.say(f"{transport.upper()} port {port} is closed.")
