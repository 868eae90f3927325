"""`crowline send`."""

from __future__ import annotations

import asyncio
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

import click

from crowline.base.errors import UsageError
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output, count, size
from crowline.cli.place import PlaceFlags, check, place_options

if TYPE_CHECKING:
    from crowline.api.transfer import Prepared, Summary

# Receivers at once: each is a session with buffers of its own.
MAX_RECEIVERS = 32
STDIN = FilePath("-")


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=FilePath, readable=False), metavar="PATH…|-"
)
@click.option(
    "--to-many",
    "receivers",
    type=click.IntRange(1, MAX_RECEIVERS),
    default=1,
    metavar="N",
    help="Send the same to N people, each with a code of their own.",
)
@click.option("--new", is_flag=True, help="Make a new code, also where these paths were broken off before.")
@click.option("--name", default="stdin", metavar="NAME", help="With -: what a file of it may be called.")
@place_options("--to")
@meeting_options
def send(
    paths: tuple[FilePath, ...],
    receivers: int,
    new: bool,
    name: str,
    place: PlaceFlags,
    flags: MeetingFlags,
    output: Output,
) -> None:
    """Send files and folders; the other side runs `crowline receive` with the code shown.

    With - for PATH, standard input is sent as it comes; `crowline receive --out -` writes it to standard
    output. The same command again goes on with a transfer that was broken off.
    """
    from crowline.cli.run import run

    check(flags, place)
    if STDIN in paths:
        if len(paths) > 1 or receivers > 1:
            raise UsageError("Standard input goes alone, and to one receiver.", hint="A file called - is ./-")
        if place.no_server:
            raise UsageError("Standard input is what is sent here: no token can be pasted.")
        run(_send_stream(output, name, flags, place))
    elif receivers == 1:
        run(_send(output, paths, new, flags, place))
    else:
        from crowline.cli.send_many import send_to_many

        if place.is_serverless or place.peer is not None:
            raise UsageError("Many receivers meet at a server, each with a code.")
        if code := run(send_to_many(output, paths, receivers, new, flags, place)):
            raise SystemExit(code)


async def prepare(output: Output, paths: tuple[FilePath, ...]) -> Prepared:
    """What is offered; people hear of what is left out."""
    from crowline.api import transfer

    prepared = await asyncio.to_thread(transfer.prepare, paths)
    for warning in prepared.warnings:
        output.warn(warning)
    output.say(f"{count(len(prepared.manifest.files), 'file')}, {size(prepared.manifest.total)}")
    return prepared


async def _send(
    output: Output, paths: tuple[FilePath, ...], new: bool, flags: MeetingFlags, place: PlaceFlags
) -> None:
    from crowline.api.unfinished import outgoing
    from crowline.cli.reunion import Reunion
    from crowline.cli.sending import Sending

    prepared = await prepare(output, paths)
    if place.is_serverless:
        await Sending(output, Reunion(output, flags, place, None, "send"), prepared).run()
        return
    with outgoing(paths, place.peer or "") as unfinished:
        if new:
            unfinished.forget()
        await Sending(output, Reunion(output, flags, place, unfinished, "send"), prepared).run()


async def _send_stream(output: Output, name: str, flags: MeetingFlags, place: PlaceFlags) -> Summary:
    from crowline.api.flow import StandardInput, check_name, send_flow
    from crowline.cli.reunion import Reunion
    from crowline.cli.view import TransferView, show_done

    check_name(name)
    view = TransferView(output, None)
    async with Reunion(output, flags, place, None, "send").peer(view) as peer:
        stream = await peer.open_stream()
        with view:
            summary = await send_flow(stream, StandardInput(), name, on_event=view.on_event)
        show_done(output, summary, peer)
        return summary
