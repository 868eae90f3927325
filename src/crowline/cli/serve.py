"""`crowline serve`: meeting point, STUN and TURN in one process."""

from __future__ import annotations

import asyncio
import errno
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
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_WARN_INTERVAL = 60.0  # seconds


@click.command("serve")
@click.option("--listen", metavar="ADDR:PORT", help="The meeting point and its page.  [default: all, 8080]")
@click.option("--stun-listen", metavar="ADDR:PORT", help="STUN and TURN, UDP and TCP.  [default: all, 3478]")
@click.option(
    "--tls-listen", metavar="ADDR:PORT", help="All of it over TLS.  [default with --cert: all, 443]"
)
@click.option("--cert", metavar="FILE", help="The certificate chain for TLS, in PEM.")
@click.option("--key", metavar="FILE", help="Its key, in PEM.")
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
@click.option("--workers", type=int, metavar="N", help="Processes that carry UDP, one a core.  [default: 1]")
@click.option(
    "--drain", type=float, metavar="SECONDS", help="How long SIGTERM waits for users.  [default: 30]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML; flags win."
)
def serve(file: Path | None, as_json: bool, **flags: Any) -> int:
    """Run a server. It needs no flag: clients need only its URL.

    A configuration file has the flags as keys (listen = "192.0.2.1:8080", allow-peer = ["10.0.0.0/8"]),
    and also motd, origins, claims-per-minute and allocations-per-minute; for TURN a table [users] of names
    and passwords, auth-secret, realm, allocations, allocations-per-user, allocations-per-source,
    bytes-per-second, binding-rate and alternate-server.

    SIGTERM takes nothing new and ends when nothing is in use; a second one ends at once. SIGHUP reads the
    certificate again.
    """
    # Help must be quick, and the server's parts are large.
    from crowline.cli.run import run_plainly
    from crowline.server.descriptors import raise_limit
    from crowline.server.settings import Settings, build, load, merge

    raise_limit()
    config = build(merge(load(file) if file else Settings(), flags))
    return run_plainly(_serve(config, Output(as_json=as_json)))


async def _serve(config: ServerConfig, output: Output) -> int:
    """Listen until a signal comes; the exit code."""
    from crowline.server.collector import relax

    arrived: asyncio.Queue[signal.Signals | LocalProblem] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        _on_signal(number, arrived)
    _warn_of_exhaustion(output)
    async with _server(config) as server:
        relax()
        server.on_failure = arrived.put_nowait
        _reload_on_hangup(server, output)
        _announce(server, output)
        ending = await arrived.get()
        if isinstance(ending, LocalProblem):
            raise ending
        if ending is signal.SIGTERM:
            await _drain(server, arrived, output)
        _forget_signals()
    output.say("Stopped.")
    return 0 if ending is signal.SIGTERM else _INTERRUPTED


async def _drain(
    server: Server, arrived: asyncio.Queue[signal.Signals | LocalProblem], output: Output
) -> None:
    """Wait for what is in use, but not for longer than the next signal."""
    output.say("Ending: nothing new is taken.")
    waiting = [asyncio.ensure_future(server.drain()), asyncio.ensure_future(arrived.get())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


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
    secure = [str(address) for address in server.tls_addresses]
    output.emit("listening", url=server.url, stun=str(server.stun), tls=secure)
    output.say(f"Meeting point   {server.url}")
    output.say(f"STUN and TURN   {', '.join(str(each) for each in server.stun_addresses)} (UDP, TCP)")
    if secure:
        output.say(f"All over TLS    {', '.join(secure)}")
    if config.alternate_address:
        output.say(f"NAT discovery   second address {config.alternate_address}")
    low, high = config.relay_ports
    opened = ", ".join(str(network) for network in config.allow_peers)
    output.say(f"Relay           ports {low}-{high}" + (f", also to {opened}" if opened else ""))
    rate = config.limits.link_rate
    beyond = f", then {size(rate)} a second" if rate else ""
    output.say(f"Limits          {size(config.limits.budget)} through the hub a meeting{beyond}")
    _warn_of_passwords(config, output)
    output.say(f"Use it:         crowline send FILE --server {server.outside_url}")
    output.say("Ctrl-C to stop.")


def _warn_of_passwords(config: ServerConfig, output: Output) -> None:
    from crowline.server.turn_settings import MIN_SECRET, short_passwords

    short = short_passwords(config.users)
    if short:
        others = f" and {len(short) - 1} more" if len(short) > 1 else ""
        output.warn(
            f"Short password: {short[0]}{others}. Whoever sees a user come in can try words until one fits; "
            f"{MIN_SECRET} random characters stand against that."
        )


def _warn_of_exhaustion(output: Output) -> None:
    """When no connection can be accepted, the event loop would say so once a second, with a traceback."""
    warn_again = float("-inf")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal warn_again
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _EXHAUSTED):
            loop.default_exception_handler(context)
        elif loop.time() >= warn_again:
            warn_again = loop.time() + _WARN_INTERVAL
            output.warn(f"New connections have to wait: {error.strerror}.")

    asyncio.get_running_loop().set_exception_handler(handle)


def _on_signal(number: signal.Signals, arrived: asyncio.Queue[signal.Signals | LocalProblem]) -> None:
    # Where the loop takes no signals, Ctrl-C raises KeyboardInterrupt, which ends the command too.
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(number, arrived.put_nowait, number)


def _forget_signals() -> None:
    """The next signal ends the process, whatever it does."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):
            asyncio.get_running_loop().remove_signal_handler(number)


def _reload_on_hangup(server: Server, output: Output) -> None:
    def reload() -> None:
        try:
            server.reload()
        except LocalProblem as problem:
            output.say(f"The old certificate stays: {problem.message}")

    if hasattr(signal, "SIGHUP"):
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
