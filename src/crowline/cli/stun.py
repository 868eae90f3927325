"""`crowline stun`: under which address does a server see this machine?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from crowline.base.errors import UsageError
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.api.mapped_address import Mapped

_TIMEOUT = 10.0  # seconds; six of the seven questions of RFC 8489 §6.2.1 have left by then


@click.command("stun")
@click.argument("server", metavar="SERVER[:PORT]")
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
    server: str, transport: str | None, ipv6: str | None, timeout: float, as_json: bool, quiet: bool
) -> None:
    """Print the address under which a STUN server sees this machine.

    SERVER is a name or an address, an IPv6 one in brackets where a port follows. The port is 3478, or 5349
    with --tls. The address goes to standard output, what else is known to standard error.
    """
    host, port = _parse_server(server)
    # Help must be quick, and the event loop is large.
    from crowline.api.mapped_address import mapped_address
    from crowline.base.transport import Transport
    from crowline.cli.run import run

    wanted = None if ipv6 is None else ipv6 == "yes"
    mapped = run(
        mapped_address(host, port, transport=Transport(transport or "udp"), ipv6=wanted, timeout=timeout)
    )
    _show(mapped, Output(as_json=as_json, quiet=quiet))


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
