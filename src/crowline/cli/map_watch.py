"""`crowline map watch`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from crowline.cli.map import output_options, port_options
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.api.port_mapping.mapper import PortMap, RouterNews


@click.command("watch")
@click.argument("ports", nargs=-1, required=True, type=click.IntRange(1, 65535), metavar="PORT…")
@port_options
@output_options
def watch(ports: tuple[int, ...], transport: str, host: str | None, as_json: bool, quiet: bool) -> None:
    """Keep ports of this machine open, say what changes, and close them at Ctrl-C.

    They are renewed in time, opened anew when the router has restarted, and follow this machine to another
    network.
    """
    from crowline.cli.run import run

    run(_watch(Output(as_json=as_json, quiet=quiet), ports, transport, host))


async def _watch(output: Output, ports: tuple[int, ...], transport: str, host: str | None) -> None:
    from crowline.api.port_mapping.mapper import PortMapper
    from crowline.base.transport import Transport

    def on_news(news: RouterNews) -> None:
        output.emit("router", gateway=news.gateway, message=news.words)
        output.say(f"The router at {news.gateway}: {news.words}.")

    async with PortMapper(on_news=on_news) as mapper:
        for port in dict.fromkeys(ports):
            mapper.open(port, Transport(transport), host=host, on_change=lambda each: _show(each, output))
        # Until a signal ends it, which unwinds the block.
        await asyncio.Event().wait()


def _show(port: PortMap, output: Output) -> None:
    output.emit(
        "port",
        transport=port.transport.value,
        port=port.port or None,
        outside=str(port.outside) if port.outside else None,
        inside=str(port.local),
        open=port.is_open,
        public=port.is_public,
        protocol=port.protocol if port.is_open else None,
        gateway=port.gateway,
        reason=port.reason,
    )
    if output.as_json:
        return
    name = f"{port.transport.name} {port.local}"
    if port.is_open:
        where = port.outside or f"port {port.port}"
        click.echo(f"{name} is open at {where} ({port.protocol})")
    else:
        output.insist(f"{name} is not open: {port.reason}")
