"""`crowline receive`."""

from __future__ import annotations

import shutil
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

import click

from crowline.base.errors import UsageError
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output, printable, size
from crowline.cli.place import PlaceFlags, check, place_options, receiving_room
from crowline.cli.tokens import ask_token, show_token

if TYPE_CHECKING:
    from crowline.api.transfer import Decision, OfferMade

# Names of an offer that are shown before "and N more".
_NAMES_SHOWN = 5


@click.command()
@click.argument("code", required=False)
@click.option("--out", "folder", default=".", type=click.Path(path_type=FilePath), help="Where to save. [.]")
@click.option("-y", "--yes", is_flag=True, help="Take what is offered without asking.")
@click.option("--take-dotfiles", is_flag=True, help="Take names that programs obey, like .bashrc, too.")
@place_options("--from")
@meeting_options
def receive(
    code: str | None,
    folder: FilePath,
    yes: bool,
    take_dotfiles: bool,
    place: PlaceFlags,
    flags: MeetingFlags,
    output: Output,
) -> None:
    """Receive what somebody sends; asks for the code where none is given."""
    from crowline.cli.ask import can_ask
    from crowline.cli.run import run

    if not yes and not can_ask():
        raise UsageError("Nobody can be asked here.", hint="Use -y to take what is offered.")
    if not _is_folder(folder):
        raise UsageError(f"{folder} is not a folder.", hint="Create it first, or choose another with --out.")
    check(flags, place)
    if place.peer_host is not None and code is not None:
        raise UsageError("Where a host is named there is no code.")
    run(_receive(output, code, folder.absolute(), yes, take_dotfiles, flags, place))


async def _receive(
    output: Output,
    code: str | None,
    folder: FilePath,
    yes: bool,
    take_dotfiles: bool,
    flags: MeetingFlags,
    place: PlaceFlags,
) -> None:
    from crowline.api import transfer
    from crowline.cli.view import TransferView, show_done

    text = await _settle(output, code, place)
    async with receiving_room(flags, place, text) as room:
        if place.no_server:
            output.insist("Give this token back to the other side:")
            show_token(output, room.code)
        view = TransferView(output, total=0)
        room.on_path(view.on_path)
        room.on_warning(output.warn)
        peer = view.peer = await room.peer()
        output.emit("peer", words=list(peer.words))
        output.say(f"Connected. Both screens show: {' '.join(peer.words)}")

        async def decide(offer: OfferMade) -> Decision:
            view.total = offer.manifest.total
            view.quiet = True
            decision = await _decide(output, offer, folder, yes, take_dotfiles)
            view.quiet = False
            if decision.accept:
                view.__enter__()
            return decision

        stream = await peer.accept_stream()
        try:
            summary = await transfer.receive_into(stream, folder, decide=decide, on_event=view.on_event)
        finally:
            view.__exit__(None, None, None)
        if summary.declined:
            output.say("Nothing was saved.")
            return
        show_done(output, summary, peer)
        output.say(f"Saved in {folder}: {printable(', '.join(summary.saved[:_NAMES_SHOWN]))}")


def _is_folder(path: FilePath) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # It cannot even be looked at: an overlong name, a folder above that is closed to us.
        return False


async def _settle(output: Output, code: str | None, place: PlaceFlags) -> str:
    """What proves this side to the other: a code, a token, or nothing that is known here."""
    if place.no_server:
        return await ask_token(output, code)
    return "" if place.peer_host is not None else await _settle_code(output, code)


async def _settle_code(output: Output, code: str | None) -> str:
    """A code that can be right: asked for, or mended with the person's consent."""
    from crowline.api.room import CodeTypo, check_code
    from crowline.cli.ask import agree, ask, can_ask

    while True:
        text = code if code is not None else await ask("Code:")
        if text is None:
            raise UsageError("No code was given.")
        try:
            return check_code(text)
        except CodeTypo as typo:
            if not can_ask():
                raise
            for suggestion in typo.suggestions[:1]:
                if await agree(f"Did you mean {suggestion}?"):
                    return str(suggestion)
            output.insist(f"{typo.message} {typo.hint}")
            code = None


async def _decide(
    output: Output, offer: OfferMade, folder: FilePath, yes: bool, take_dotfiles: bool
) -> Decision:
    from crowline.api.transfer import Decision
    from crowline.cli.ask import agree

    manifest = offer.manifest
    items = manifest.items()
    output.emit(
        "offer",
        files=len(manifest.files),
        folders=len(manifest.folders),
        bytes=manifest.total,
        names=[item.name for item in items],
    )
    shown = [
        f"{item.name}{'/' if item.is_folder else ''} ({size(item.size)})" for item in items[:_NAMES_SHOWN]
    ]
    more = f" and {len(items) - _NAMES_SHOWN} more" if len(items) > _NAMES_SHOWN else ""
    output.say(f"Offered: {printable(', '.join(shown))}{more}")
    if yes:
        return Decision(True, take_unasked=take_dotfiles)
    free = size(shutil.disk_usage(folder).free)
    if await agree(f"Save in {folder}? Free: {free}."):
        return Decision(True, take_unasked=take_dotfiles)
    return Decision(False, reason="the other person said no")
