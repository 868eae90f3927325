"""`crowline stun`: under which address does a server see this machine, and by what kind of NAT?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from crowline.base.errors import UsageError
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.api.mapped_address import Mapped
    from crowline.api.measured_nat import NatProfile

_TIMEOUT = 10.0  # seconds; six of the seven questions of RFC 8489 §6.2.1 have left by then


@click.command("stun")
@click.argument("servers", metavar="SERVER[:PORT]...", nargs=-1, required=True)
@click.option("--nat", is_flag=True, help="Measure the NAT in between, in two seconds.")
@click.option("--lifetime", is_flag=True, help="With --nat: how long its mappings live, too. Takes minutes.")
@click.option("--tcp", "transport", flag_value="tcp", help="Ask over TCP.")
@click.option("--tls", "transport", flag_value="tls", help="Ask over TLS.")
@click.option("-4", "ipv6", flag_value="no", help="Ask by IPv4 only.")
@click.option("-6", "ipv6", flag_value="yes", help="Ask by IPv6 only.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=_TIMEOUT,
    show_default=True,
    metavar="S",
    help="Seconds to wait for an answer.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Say only the address.")
def stun(
    servers: tuple[str, ...],
    nat: bool,
    lifetime: bool,
    transport: str | None,
    ipv6: str | None,
    timeout: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print the address under which a STUN server sees this machine.

    SERVER is a name or an address, an IPv6 one in brackets where a port follows. The port is 3478, or 5349
    with --tls. The address goes to standard output, what else is known to standard error.

    With --nat it prints what kind of NAT is in between, by the name in RFC 3489, and its facets by RFC 4787.
    One server with two addresses (RFC 5780) shows them all; several servers show more than one.
    """
    parsed = [_parse_server(each) for each in servers]
    output = Output(as_json=as_json, quiet=quiet)
    wanted = None if ipv6 is None else ipv6 == "yes"
    if nat:
        if click.get_current_context().get_parameter_source("timeout") is not ParameterSource.DEFAULT:
            raise UsageError("--timeout does not go with --nat, which knows how long to wait.")
        _measure(parsed, wanted, lifetime, transport, output)
        return
    if len(parsed) > 1 or lifetime:
        raise UsageError("Several servers, and --lifetime, go with --nat.")
    ((host, port),) = parsed
    # Help must be quick, and the event loop is large.
    from crowline.api.mapped_address import mapped_address
    from crowline.base.transport import Transport
    from crowline.cli.run import run

    mapped = run(
        mapped_address(host, port, transport=Transport(transport or "udp"), ipv6=wanted, timeout=timeout)
    )
    _show(mapped, output)


def _measure(
    servers: list[tuple[str, int | None]],
    ipv6: bool | None,
    lifetime: bool,
    transport: str | None,
    output: Output,
) -> None:
    if transport is not None:
        raise UsageError("--nat asks over UDP and TCP by itself.")
    from crowline.api.measured_nat import LONGEST, measured_nat
    from crowline.cli.run import run

    if lifetime:
        output.say(f"Mappings are watched for up to {LONGEST / 60:.0f} minutes.")
    _show_nat(run(measured_nat(servers, ipv6=ipv6, lifetimes=lifetime)), output)


def _show_nat(profile: NatProfile, output: Output) -> None:
    if output.as_json:
        output.emit("nat", **profile.as_dict())
        return
    click.echo(profile.classic_name)
    tables = [("UDP", profile.rows())]
    if profile.tcp is not None:
        tables.append(("TCP", profile.tcp.rows()))
    for name, rows in tables:
        for facet, value in rows:
            output.say(f"{name} {facet:<12} {value}")
    for sign in profile.carrier:
        output.say(f"Note: {sign.value}.")
    if profile.lifetimes.is_measured:
        output.say(f"UDP {profile.lifetimes.words()}")


def _parse_server(text: str) -> tuple[str, int | None]:
    """Host and port. Raises `UsageError`."""
    host, port = text, ""
    if text.startswith("["):
        host, end, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        is_fine = end != "" and (rest == "" or (rest.startswith(":") and port != ""))
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        is_fine = port != ""
    else:
        is_fine = True
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    if not (host and is_fine and (port == "" or is_port)):
        raise UsageError(
            f"{text!r} is not a server.", hint="Write it like stun.example.org:3478 or [2001:db8::1]:3478."
        )
    return host, int(port) if port else None


def _show(mapped: Mapped, output: Output) -> None:
    round_trip = None if mapped.round_trip is None else round(mapped.round_trip * 1000, 1)
    if output.as_json:
        output.emit(
            "mapped",
            address=str(mapped.address),
            local=str(mapped.local),
            server=str(mapped.server),
            transport=mapped.transport.value,
            rtt_ms=round_trip,
        )
        return
    click.echo(str(mapped.address))
    time = "" if round_trip is None else f" in {round_trip:g} ms"
    output.say(f"seen by {mapped.server} over {mapped.transport.name}{time}")
    if mapped.address == mapped.local:
        output.say("That is this machine's own address: no NAT is in between.")
    else:
        output.say(f"This machine's own address is {mapped.local}: a NAT is in between.")
