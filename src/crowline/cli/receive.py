"""`crowline receive`."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import TYPE_CHECKING

import click

from crowline.base.errors import UsageError
from crowline.cli.meet import settle
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output
from crowline.cli.place import PlaceFlags, check, place_options

if TYPE_CHECKING:
    from crowline.cli.receiving import Wishes

STDOUT = FilePath("-")


@click.command()
@click.argument("code", required=False)
@click.option(
    "--out",
    "folder",
    default=".",
    type=click.Path(path_type=FilePath),
    metavar="DIR|-",
    help="Where to save; - writes what `send -` sends to standard output. [.]",
)
@click.option("-y", "--yes", is_flag=True, help="Take what is offered without asking.")
@click.option("--take-dotfiles", is_flag=True, help="Take names that programs obey, like .bashrc, too.")
@click.option("--merge", is_flag=True, help="Put new files into folders of the same names.")
@place_options("--from")
@meeting_options
def receive(
    code: str | None,
    folder: FilePath,
    yes: bool,
    take_dotfiles: bool,
    merge: bool,
    place: PlaceFlags,
    flags: MeetingFlags,
    output: Output,
) -> None:
    """Receive what somebody sends; asks for the code where none is given.

    The same command again goes on with a transfer that was broken off.
    """
    from crowline.cli.ask import can_ask
    from crowline.cli.receiving import Wishes
    from crowline.cli.run import run

    if folder != STDOUT:
        if not yes and not can_ask():
            raise UsageError("Nobody can be asked here.", hint="Use -y to take what is offered.")
        if not _is_folder(folder):
            raise UsageError(
                f"{folder} is not a folder.", hint="Create it first, or choose another with --out."
            )
    check(flags, place)
    if folder == STDOUT:
        with output.data_on_stdout():
            run(_receive(output, code, Wishes(None, True, take_dotfiles), flags, place))
        return
    run(_receive(output, code, Wishes(folder.absolute(), yes, take_dotfiles, merge), flags, place))


async def _receive(
    output: Output, code: str | None, wishes: Wishes, flags: MeetingFlags, place: PlaceFlags
) -> None:
    from crowline.api.unfinished import incoming
    from crowline.cli.receiving import Receiving
    from crowline.cli.reunion import Reunion

    text = await settle(output, code, place)
    if place.is_serverless or wishes.folder is None:
        await Receiving(output, Reunion(output, flags, place, None, "receive", text), wishes).run()
        return
    with incoming(text, wishes.folder, place.peer or "") as unfinished:
        await Receiving(output, Reunion(output, flags, place, unfinished, "receive", text), wishes).run()


def _is_folder(path: FilePath) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # It cannot even be looked at: an overlong name, a folder above that is closed to us.
        return False
