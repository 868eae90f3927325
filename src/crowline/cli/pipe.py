"""`crowline pipe`."""

from __future__ import annotations

import click

from crowline.base.errors import UsageError
from crowline.cli.meet import carriage, meet
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output, size
from crowline.cli.place import PlaceFlags, check, place_options


@click.command()
@click.argument("code", required=False)
@click.option("-n", "--no-input", is_flag=True, help="Send nothing: do not read standard input.")
@place_options("--to", "--from")
@meeting_options
def pipe(code: str | None, no_input: bool, place: PlaceFlags, flags: MeetingFlags, output: Output) -> None:
    """Join standard input and output of two computers: what goes in here comes out there, and back.

    Without CODE this side shows one for the other, where `crowline pipe CODE` is run. Each direction ends
    with its input; the command ends with both. Standard output is data, so --json writes to standard error.
    """
    from crowline.cli.run import run

    check(flags, place)
    if place.no_server and code is None:
        raise UsageError("Standard input is data here: no token can be pasted.")
    with output.data_on_stdout():
        run(_pipe(output, code, flags, place, takes_input=not no_input))


async def _pipe(
    output: Output, code: str | None, flags: MeetingFlags, place: PlaceFlags, *, takes_input: bool
) -> None:
    from crowline.api.pipe import StandardStreams
    from crowline.api.pipe import pipe as join

    async with meet(output, flags, place, code, verb="pipe") as peer:
        done = await join(peer, StandardStreams(takes_input=takes_input))
        fields = {"sent": done.sent, "received": done.received, "seconds": round(done.seconds, 3)}
        output.emit("done", bytes=done.sent + done.received, **fields, **carriage(peer))
        output.say(f"Done: {size(done.sent)} sent, {size(done.received)} received in {done.seconds:.1f} s.")
