"""`crowline serve`: meeting point, STUN and TURN in one process."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crowline.base.errors import LocalProblem
from crowline.cli.output import Output, size

if TYPE_CHECKING:
    from crowline.server.config import ServerConfig
    from crowline.server.server import Server

_INTERRUPTED = 130
_OPTIONAL = ("starlette", "uvicorn")


@click.command("serve")
@click.option("--listen", metavar="ADDR:PORT", help="The meeting point and its page.  [default: all, 8080]")
@click.option("--stun-listen", metavar="ADDR:PORT", help="STUN and TURN, UDP and TCP.  [default: all, 3478]")
@click.option(
    "--alternate-address", metavar="ADDR", help="A second IP address, for NAT discovery (RFC 5780)."
)
@click.option("--public-address", metavar="ADDR", help="The IP address by which clients reach STUN and TURN.")
@click.option("--relay-ports", metavar="LO-HI", help="Ports to relay by.  [default: 49152-65535]")
@click.option(
    "--allow-peer", metavar="CIDR", multiple=True, help="A private range to which TURN may relay; repeatable."
)
@click.option(
    "--trust-proxy",
    metavar="CIDR",
    multiple=True,
    help="A reverse proxy to believe about its clients; repeatable.",
)
@click.option("--budget", metavar="SIZE", help="Bytes a meeting may send through the hub.  [default: 4M]")
@click.option("--hub-rate", metavar="SIZE", help="Bytes a second for a meeting beyond that.  [default: 0]")
@click.option("--hub-rate-total", metavar="SIZE", help="The same for all meetings together.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML; flags win."
)
def serve(file: Path | None, as_json: bool, **flags: Any) -> int:
    """Run a server. It needs no flag: clients need only its URL.

    A configuration file has the flags as keys (listen = "192.0.2.1:8080", allow-peer = ["10.0.0.0/8"]),
    and also motd, origins, claims-per-minute and allocations-per-minute.
    """
    # Help must be quick, and the server's parts are large.
    from crowline.cli.run import run_plainly
    from crowline.server.settings import Settings, build, load, merge

    config = build(merge(load(file) if file else Settings(), flags))
    return run_plainly(_serve(config, Output(as_json=as_json)))


async def _serve(config: ServerConfig, output: Output) -> int:
    """Listen until a signal comes; the exit code."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    _on_signal(signal.SIGTERM, ended, 0)
    _on_signal(signal.SIGINT, ended, _INTERRUPTED)
    async with _server(config) as server:
        _announce(server, output)
        code = await ended
    output.say("Stopped.")
    return code


def _server(config: ServerConfig) -> Server:
    try:
        from crowline.server.server import Server
    except ModuleNotFoundError as error:
        if error.name not in _OPTIONAL:
            raise
        raise LocalProblem(
            "The server's part of Crowline is not installed.",
            hint="Install it: pip install 'crowline[server]'",
        ) from error
    return Server(config)


def _announce(server: Server, output: Output) -> None:
    config = server.config
    output.emit("listening", url=server.url, stun=str(server.stun))
    output.say(f"Meeting point   {server.url}")
    output.say(f"STUN and TURN   {', '.join(str(each) for each in server.stun_addresses)} (UDP, TCP)")
    if config.alternate_address:
        output.say(f"NAT discovery   second address {config.alternate_address}")
    low, high = config.relay_ports
    opened = ", ".join(str(network) for network in config.allow_peers)
    output.say(f"Relay           ports {low}-{high}" + (f", also to {opened}" if opened else ""))
    rate = config.limits.link_rate
    beyond = f", then {size(rate)} a second" if rate else ""
    output.say(f"Limits          {size(config.limits.budget)} through the hub a meeting{beyond}")
    output.say(f"Use it:         crowline send FILE --server {server.outside_url}")
    output.say("Ctrl-C to stop.")


def _on_signal(number: signal.Signals, ended: asyncio.Future[int], code: int) -> None:
    """The first signal ends the server in order; a second Ctrl-C does not wait."""
    loop = asyncio.get_running_loop()

    def arrived() -> None:
        if not ended.done():
            ended.set_result(code)
        loop.remove_signal_handler(number)

    # Where the loop takes no signals, Ctrl-C raises KeyboardInterrupt, which ends the command too.
    with suppress(NotImplementedError):
        loop.add_signal_handler(number, arrived)
