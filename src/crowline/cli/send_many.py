"""The same files to several people: a code, a session and a summary for each."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from crowline.api.transfer import Prepared
from crowline.api.unfinished import Unfinished, outgoing
from crowline.base.errors import CrowlineError
from crowline.cli.options import MeetingFlags
from crowline.cli.output import Output
from crowline.cli.place import PlaceFlags
from crowline.cli.reunion import Reunion
from crowline.cli.screen import Screen
from crowline.cli.send import prepare
from crowline.cli.sending import Sending


class _Voice(Output):
    """What is said of one receiver: lines and objects have its number."""

    def __init__(self, output: Output, number: int) -> None:
        super().__init__(as_json=output.as_json, quiet=output.quiet)
        self._number = number

    def emit(self, type_: str, /, **fields: Any) -> None:
        super().emit(type_, receiver=self._number, **fields)

    def insist(self, text: str) -> None:
        super().insist(f"[{self._number}] {text}")


async def send_to_many(
    output: Output,
    paths: tuple[Path, ...],
    receivers: int,
    new: bool,
    flags: MeetingFlags,
    place: PlaceFlags,
) -> int:
    """Each receiver's transfer goes on whatever becomes of the others. The first one's exit code that is
    not 0, if any."""
    prepared = await prepare(output, paths)
    screen = Screen()
    with ExitStack() as stack:
        kept = [stack.enter_context(outgoing(paths)) for _ in range(receivers)]
        if new:
            for unfinished in kept:
                unfinished.forget()
        results = await asyncio.gather(
            *(
                _send_to(_Voice(output, number), prepared, screen, flags, place, unfinished)
                for number, unfinished in enumerate(kept, 1)
            )
        )
    done = [code for code in results if code == 0]
    output.say(f"{len(done)} of {receivers} receivers have everything.")
    return next((code for code in results if code), 0)


async def _send_to(
    voice: Output,
    prepared: Prepared,
    screen: Screen,
    flags: MeetingFlags,
    place: PlaceFlags,
    unfinished: Unfinished,
) -> int:
    """The exit code of this receiver's transfer."""
    try:
        await Sending(voice, Reunion(voice, flags, place, unfinished, "send"), prepared, screen).run()
    except CrowlineError as error:
        voice.error(error)
        voice.insist(f"{error.message} {error.hint}".rstrip())
        return error.exit_code
    return 0
