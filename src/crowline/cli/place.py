"""Where to meet, as the command line says: at a server, or without one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from crowline.base.errors import UsageError
from crowline.cli.options import MeetingFlags

if TYPE_CHECKING:
    from crowline.api.room import Room

PASSWORD_VARIABLE = "CROWLINE_PASSWORD"


@dataclass(frozen=True, slots=True)
class PlaceFlags:
    """`peer_host`: what stands behind --to or --from, a host with or without a port. `joins`: it was --from,
    in a command that may do either. `peer`: the name of somebody who is known, and met without a code.
    """

    no_server: bool
    lan: bool
    peer_host: str | None
    local_port: int | None
    password: str
    stun: tuple[str, ...]
    joins: bool = False
    peer: str | None = None

    @property
    def is_serverless(self) -> bool:
        return self.no_server or self.lan or self.peer_host is not None


def place_options(*directions: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the flags to a command, which gets them as `place`. `directions`: ``--to``, ``--from``, or both
    where the command may host and join.
    """
    direction, *others = directions
    named = " or ".join(directions)
    options = (
        click.option(
            "--peer", metavar="NAME", help="Meet somebody whom you paired with; no code. [`crowline peers`]"
        ),
        click.option("--lan", is_flag=True, help="Meet in this network, without a server."),
        click.option("--no-server", is_flag=True, help="Meet by two tokens that you hand each other."),
        click.option(
            "--stun", multiple=True, metavar="HOST:PORT", help="With --no-server: who says what leads here."
        ),
        click.option(
            direction,
            "peer_host",
            metavar="HOST[:PORT]",
            help="Meet without anybody's help: the other side's public address. It names yours.",
        ),
        *(
            click.option(
                other, "joined_host", metavar="HOST[:PORT]", help=f"The same, where it uses {direction}."
            )
            for other in others
        ),
        click.option(
            "--local-port", type=click.IntRange(1024, 65535), metavar="N", help=f"With {named}: own port."
        ),
        click.option(
            "--password",
            default="",
            envvar=PASSWORD_VARIABLE,
            metavar="WORD",
            help=f"With {named}: what proves you to each other. [${PASSWORD_VARIABLE}]",
        ),
    )

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def gathered(**values: Any) -> None:
            joined = values.pop("joined_host", None)
            if joined is not None and values["peer_host"] is not None:
                raise UsageError(f"One side uses {direction}, the other {others[0]}.")
            values |= {"joins": joined is not None, "peer_host": joined or values["peer_host"]}
            place = PlaceFlags(**{each.name: values.pop(each.name) for each in fields(PlaceFlags)})
            source = click.get_current_context().get_parameter_source("password")
            if place.peer_host is None and source is ParameterSource.COMMANDLINE:
                raise UsageError(f"A password goes with {named}: codes and tokens do without.")
            command(place=place, **values)

        for option in reversed(options):
            gathered = option(gathered)
        return gathered

    return add


def check(flags: MeetingFlags, place: PlaceFlags) -> None:
    """Raises `UsageError` for flags that exclude each other."""
    ways = [place.no_server, place.lan, place.peer_host is not None]
    if sum(ways) > 1:
        raise UsageError("--lan, --no-server and a named host exclude each other.")
    if any(ways) and place.peer is not None:
        raise UsageError("A known peer is met at a server.")
    if any(ways) and (flags.server is not None or flags.relay_only):
        raise UsageError("Without a server there is none to name, and no relay.")
    if place.stun and not place.no_server:
        raise UsageError("--stun goes with --no-server: a server of one's own says what leads here.")
    if place.local_port is not None and place.peer_host is None:
        raise UsageError("A port of one's own goes with a named host.")


def sending_room(flags: MeetingFlags, place: PlaceFlags) -> AbstractAsyncContextManager[Room]:
    """The room of the side that sends."""
    check(flags, place)
    if place.peer is not None:
        return _known_room(flags, place.peer, "send")
    if not place.is_serverless:
        from crowline.api import room

        return room.host(**flags.keywords())
    from crowline.api import serverless

    options = _without_server(flags)
    if place.no_server:
        return serverless.host_by_token(stun=place.stun, **options)
    if place.lan:
        return serverless.host_on_lan(**options)
    host, named = _named_host(place)
    return serverless.host_towards(host, **named, **options)


def receiving_room(flags: MeetingFlags, place: PlaceFlags, code: str) -> AbstractAsyncContextManager[Room]:
    """The room of the side that receives; `code` is its code or token, or nothing where a host or a peer is
    named.
    """
    check(flags, place)
    if place.peer is not None:
        return _known_room(flags, place.peer, "receive")
    if not place.is_serverless:
        from crowline.api import room

        return room.enter(code, **flags.keywords())
    from crowline.api import serverless

    options = _without_server(flags)
    if place.no_server:
        return serverless.join_by_token(code, stun=place.stun, **options)
    if place.lan:
        return serverless.join_on_lan(code, **options)
    host, named = _named_host(place)
    return serverless.join_from(host, **named, **options)


def room_at(
    flags: MeetingFlags, place: PlaceFlags, code: str | None, verb: str = ""
) -> AbstractAsyncContextManager[Room]:
    """The room of a side that may do either: without a `code` it hosts; an empty one joins at a host. Known
    peers meet by the `verb` that both run, or, to send and to receive, by the one that this side runs.
    """
    if place.peer is not None:
        check(flags, place)
        return _known_room(flags, place.peer, verb)
    return sending_room(flags, place) if code is None else receiving_room(flags, place, code)


def _known_room(flags: MeetingFlags, name: str, verb: str) -> AbstractAsyncContextManager[Room]:
    from crowline.api.pairing import room_with

    if verb in ("send", "receive"):
        return room_with(name, "send", sends=verb == "send", **flags.keywords())
    return room_with(name, verb, **flags.keywords())


def _named_host(place: PlaceFlags) -> tuple[str, dict[str, Any]]:
    host, port = parse_host(place.peer_host or "")
    return host, {"port": port, "password": place.password, "local_port": place.local_port}


def parse_host(text: str) -> tuple[str, int]:
    """A name or address with or without a port, an IPv6 address in brackets where a port follows."""
    from crowline.api.direct_point import DEFAULT_PORT

    is_bare = text.endswith("]") or (text.count(":") > 1 and not text.startswith("["))
    host, colon, port = (text, "", "") if is_bare or ":" not in text else text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or (colon and not (port.isdecimal() and port.isascii() and len(port) <= 5)):
        raise UsageError(f"{text} is no host.", hint="It looks like host.example.org or 192.0.2.7:47000.")
    return host, int(port) if port else DEFAULT_PORT


def _without_server(flags: MeetingFlags) -> dict[str, Any]:
    return {name: value for name, value in flags.keywords().items() if name != "server"}
