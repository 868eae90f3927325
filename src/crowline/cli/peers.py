"""`crowline peers`: who is known, and who of them waits for this side now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.api.pairing import KnownPeer, Standing

# Digits of a key that are shown to people: enough to compare.
_KEY_DIGITS = 16


@click.group(invoke_without_command=True)
@click.option("--server", metavar="URL", help="Ask this server who waits. [the one where you paired]")
@click.option("--offline", is_flag=True, help="Ask no server who waits.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.pass_context
def peers(context: click.Context, server: str | None, offline: bool, as_json: bool) -> None:
    """List who is known from `crowline pair`, and with which command they wait for you now."""
    if context.invoked_subcommand is not None:
        return
    from crowline.cli.run import run

    run(_list(Output(as_json=as_json), server, is_offline=offline))


@peers.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget NAME. The other side keeps what it has, and cannot meet you with it any more."""
    from crowline.api.pairing import KnownPeers

    gone = KnownPeers().remove(name)
    Output().insist(f"{gone.name} is forgotten.")


@peers.command()
@click.argument("old")
@click.argument("new")
def rename(old: str, new: str) -> None:
    """Call OLD by the name NEW, on this computer."""
    from crowline.api.pairing import KnownPeers

    peer = KnownPeers().rename(old, new)
    Output().insist(f"{old} is called {peer.name} now.")


async def _list(output: Output, server: str | None, *, is_offline: bool) -> None:
    from crowline.api.pairing import KnownPeers

    known = KnownPeers().all()
    if not known:
        output.say("Nobody is known yet: `crowline pair` adds somebody.")
        return
    standings = [] if is_offline else await _ask(output, server, known)
    waits = {standing.peer.public_key: standing.waits for standing in standings}
    width = max(len(peer.name) for peer in known)
    for peer in known:
        _show(output, peer, waits.get(peer.public_key), width)


async def _ask(output: Output, server: str | None, known: Sequence[KnownPeer]) -> list[Standing]:
    """What each one's server says; a server that does not answer is a warning."""
    from crowline.api.options import default_server
    from crowline.api.pairing import standing_of
    from crowline.base.errors import CrowlineError

    by_server: dict[str, list[KnownPeer]] = {}
    found: list[Standing] = []
    try:
        for peer in known:
            by_server.setdefault(server or peer.server or default_server(), []).append(peer)
    except CrowlineError as problem:
        output.warn(f"{problem.message} {problem.hint}")
    for url, some in by_server.items():
        try:
            found += await standing_of(url, some)
        except CrowlineError as problem:
            output.warn(f"{url}: {problem.message}")
    return found


def _show(output: Output, peer: KnownPeer, waits: tuple[str, ...] | None, width: int) -> None:
    """`waits` is None where nobody could say."""
    key = peer.public_key.hex()
    output.emit(
        "known",
        name=peer.name,
        key=key,
        server=peer.server,
        waits=None if waits is None else list(waits),
    )
    now = "" if not waits else f"   waits with {', '.join(f'`crowline {verb}`' for verb in waits)}"
    if not output.as_json:
        output.data(f"{peer.name:{width}}   {key[:_KEY_DIGITS]}   {peer.server}{now}")
