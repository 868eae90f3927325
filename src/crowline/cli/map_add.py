"""`crowline map add`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from crowline.cli.map import output_options, port_options
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.api.port_mapping.ports import OpenedPort

_HOURS_2 = 7200  # seconds
_MOST = 86400


@click.command("add")
@click.argument("port", type=click.IntRange(1, 65535))
@port_options
@click.option(
    "--outside", type=click.IntRange(1, 65535), metavar="PORT", help="The router's port.  [default: the same]"
)
@click.option(
    "--lifetime",
    type=click.IntRange(120, _MOST),
    default=_HOURS_2,
    show_default=True,
    metavar="S",
    help="Seconds for which it stays open.",
)
@output_options
def add(
    port: int,
    transport: str,
    host: str | None,
    outside: int | None,
    lifetime: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Open a port of this machine to the internet, and leave it open.

    Where it can be reached goes to standard output. The router may give another port, or a shorter time.
    """
    from crowline.api.port_mapping.ports import open_port
    from crowline.base.transport import Transport
    from crowline.cli.run import run

    opened = run(
        open_port(port, Transport(transport), host=host, outside_port=outside or 0, lifetime=lifetime)
    )
    _show(opened, Output(as_json=as_json, quiet=quiet))


def _show(opened: OpenedPort, output: Output) -> None:
    show_row(opened, output)
    if output.as_json:
        return
    click.echo(str(opened.outside) if opened.outside else f"port {opened.port}")
    if opened.outside is None:
        output.say("The router does not say at which address.")
    elif warning := not_public(opened):
        output.warn(warning)
    if not opened.lifetime:
        output.warn("The router knows no end of it: close it with `crowline map remove`.")
    else:
        output.say(f"leads to {opened.inside} over {opened.transport.upper()} for {opened.lifetime:.0f} s")
    output.say(f"opened by {opened.protocol} at {opened.gateway}")


def show_row(opened: OpenedPort, output: Output) -> None:
    """A port as JSON."""
    output.emit(
        "port",
        transport=opened.transport,
        port=opened.port,
        outside=str(opened.outside) if opened.outside else None,
        inside=str(opened.inside),
        lifetime=round(opened.lifetime) or None,
        protocol=opened.protocol,
        gateway=opened.gateway,
        description=opened.description,
        ours=opened.is_ours,
        listed=opened.is_listed,
    )


def not_public(opened: OpenedPort) -> str:
    """A sentence where the outside address is of no use to the internet; else nothing."""
    from crowline.base.addresses import AddressClass, classify

    if opened.outside is None or classify(opened.outside.host) is AddressClass.OPEN:
        return ""
    return (
        f"{opened.outside.host} is not a public address: another router is in front of this one, and has to "
        "open the port as well."
    )
