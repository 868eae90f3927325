"""`crowline send`."""

from __future__ import annotations

import asyncio
from pathlib import Path as FilePath

import click

from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output, count, size


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=FilePath, readable=False), metavar="PATH…"
)
@meeting_options
def send(paths: tuple[FilePath, ...], flags: MeetingFlags, output: Output) -> None:
    """Send files and folders; the other side runs `crowline receive` with the code shown."""
    from crowline.cli.run import run

    run(_send(output, paths, flags))


async def _send(output: Output, paths: tuple[FilePath, ...], flags: MeetingFlags) -> None:
    from crowline.api import transfer
    from crowline.api.room import host
    from crowline.cli.view import TransferView, show_done

    prepared = await asyncio.to_thread(transfer.prepare, paths)
    for warning in prepared.warnings:
        output.warn(warning)
    manifest = prepared.manifest
    async with host(**flags.keywords()) as room:
        output.emit("code", code=room.code)
        output.say(f"{count(len(manifest.files), 'file')}, {size(manifest.total)}")
        output.insist(f"On the other computer:   crowline receive {room.code}")
        output.say("Waiting … the code is good for one use. Ctrl-C to stop.")
        view = TransferView(output, manifest.total)
        room.on_path(view.on_path)
        room.on_warning(output.warn)
        peer = view.peer = await room.peer()
        output.emit("peer", words=list(peer.words))
        output.say(f"Connected. Both screens show: {' '.join(peer.words)}")
        with view:
            stream = await peer.open_stream()
            summary = await transfer.send(stream, prepared, on_event=view.on_event)
        show_done(output, summary, peer)
