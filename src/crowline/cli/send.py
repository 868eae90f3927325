"""`crowline send`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

import click

from crowline.base.errors import ServerUnreachable
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output, count, size
from crowline.cli.place import PlaceFlags, check, parse_host, place_options, sending_room
from crowline.cli.tokens import peer_of_answer, show_token

if TYPE_CHECKING:
    from crowline.api.room import Room


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=FilePath, readable=False), metavar="PATH…"
)
@place_options("--to")
@meeting_options
def send(paths: tuple[FilePath, ...], place: PlaceFlags, flags: MeetingFlags, output: Output) -> None:
    """Send files and folders; the other side runs `crowline receive` with the code shown."""
    from crowline.cli.run import run

    check(flags, place)
    run(_send(output, paths, flags, place))


async def _send(output: Output, paths: tuple[FilePath, ...], flags: MeetingFlags, place: PlaceFlags) -> None:
    from crowline.api import transfer
    from crowline.cli.view import TransferView, show_done

    prepared = await asyncio.to_thread(transfer.prepare, paths)
    for warning in prepared.warnings:
        output.warn(warning)
    manifest = prepared.manifest
    async with AsyncExitStack() as stack:
        room, place = await _enter(stack, output, flags, place)
        output.say(f"{count(len(manifest.files), 'file')}, {size(manifest.total)}")
        _invite(output, room, place)
        view = TransferView(output, manifest.total)
        room.on_path(view.on_path)
        room.on_warning(output.warn)
        peer = view.peer = await (peer_of_answer(output, room) if place.no_server else room.peer())
        output.emit("peer", words=list(peer.words))
        output.say(f"Connected. Both screens show: {' '.join(peer.words)}")
        with view:
            stream = await peer.open_stream()
            summary = await transfer.send(stream, prepared, on_event=view.on_event)
        show_done(output, summary, peer)


async def _enter(
    stack: AsyncExitStack, output: Output, flags: MeetingFlags, place: PlaceFlags
) -> tuple[Room, PlaceFlags]:
    """The room, and where it is: a person whose server is out of reach may do without one."""
    from crowline.cli.ask import agree, can_ask

    try:
        return await stack.enter_async_context(sending_room(flags, place)), place
    except ServerUnreachable as problem:
        if place.is_serverless or flags.relay_only or output.as_json or not can_ask():
            raise
        output.insist(problem.message)
        if not await agree("Meet in this network only, without a server?"):
            raise
    place = replace(place, lan=True)
    return await stack.enter_async_context(sending_room(replace(flags, server=None), place)), place


def _invite(output: Output, room: Room, place: PlaceFlags) -> None:
    """Say what the other side has to do."""
    if place.no_server:
        output.insist("On the other computer:   crowline receive --no-server")
        output.insist("and there this token:")
        show_token(output, room.code)
        return
    if place.peer_host is not None:
        _, port = parse_host(place.peer_host)
        own = port if place.local_port is None else place.local_port
        output.insist(f"On the other computer:   crowline receive --from YOUR-PUBLIC-ADDRESS:{own}")
        output.say("Waiting … start this side first. Ctrl-C to stop.")
        return
    output.emit("code", code=room.code)
    output.insist(f"On the other computer:   crowline receive {room.code}")
    network = " in this network" if place.lan else ""
    output.say(f"Waiting … the code is good for one use{network}. Ctrl-C to stop.")
