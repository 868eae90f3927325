"""`crowline map list`."""

from __future__ import annotations

import click

from crowline.cli.map import output_options
from crowline.cli.output import Output, printable


@click.command("list")
@output_options
def list(as_json: bool, quiet: bool) -> None:
    """Say what the router has open, for this machine and for others.

    Only UPnP tells that. What `crowline map add` opened by another protocol is listed too.
    """
    from crowline.api.port_mapping.ports import list_ports
    from crowline.cli.map_add import show_row
    from crowline.cli.run import run

    output = Output(as_json=as_json, quiet=quiet)
    ports = run(list_ports())
    for port in ports:
        show_row(port, output)
    if as_json:
        return
    for port in ports:
        outside = str(port.outside) if port.outside else f"port {port.port}"
        left = f"{port.lifetime:.0f} s" if port.lifetime else "no end"
        notes = [port.protocol, left, *([port.description] if port.description else [])]
        whose = " (by crowline)" if port.is_ours else ""
        click.echo(printable(f"{port.transport}  {outside}  ->  {port.inside}  {', '.join(notes)}{whose}"))
    if not ports:
        output.say("Nothing is open, as far as the router tells.")
