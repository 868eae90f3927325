"""`crowline pair`."""

from __future__ import annotations

import click

from crowline.base.errors import ServerUnreachable, UsageError
from crowline.cli.meet import meet
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output
from crowline.cli.place import PlaceFlags, check, place_options


@click.command()
@click.argument("code", required=False)
@click.option("--as", "called", metavar="NAME", help="What to call the other side. [as it calls itself]")
@click.option("--name", "own", metavar="NAME", help="What to call this computer. [its host name]")
@place_options("--to", "--from")
@meeting_options
def pair(
    code: str | None,
    called: str | None,
    own: str | None,
    place: PlaceFlags,
    flags: MeetingFlags,
    output: Output,
) -> None:
    """Get to know each other, so that `--peer NAME` stands for the code from then on.

    Without CODE this side shows one for the other, where `crowline pair CODE` is run. Both keep a name, a key
    and a secret, which `crowline peers remove` forgets.
    """
    from crowline.cli.run import run

    check(flags, place)
    if place.peer is not None:
        raise UsageError("Who is known need not be paired with.")
    run(_pair(output, code, called or "", own or "", flags, place))


async def _pair(
    output: Output, code: str | None, called: str, own: str, flags: MeetingFlags, place: PlaceFlags
) -> None:
    from crowline.api import pairing

    for name in (called, own):
        if name:
            pairing.check_name(name)
    known = pairing.KnownPeers()
    # Before anybody is met: a folder that cannot be written should cost no code.
    known.own_key()
    async with meet(output, flags, place, code, verb="pair") as peer:
        server = _server(flags)
        kept = await pairing.pair(peer, server=server, own=own, called=called, known=known)
    output.emit("known", name=kept.name, key=kept.public_key.hex(), server=kept.server)
    output.say(f"From now on `--peer {kept.name}` stands for a code: `crowline chat --peer {kept.name}`.")
    if not server:
        output.say("No server is named here yet: to meet again one is needed.")


def _server(flags: MeetingFlags) -> str:
    """Where both will meet; empty where no server is named, as on a LAN without one."""
    from crowline.api.options import default_server

    try:
        return flags.server or default_server()
    except ServerUnreachable:
        return ""
