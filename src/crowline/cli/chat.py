"""`crowline chat`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from crowline.base.errors import Interrupted
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output, count
from crowline.cli.place import PlaceFlags, check, place_options

if TYPE_CHECKING:
    from crowline.api.chat import Chat
    from crowline.api.peer import Peer
    from crowline.cli.chat_lines import Voice

# What the other side is called where it has no name.
_NAMELESS = "peer"


@click.command()
@click.argument("code", required=False)
@place_options("--to", "--from")
@meeting_options
def chat(code: str | None, place: PlaceFlags, flags: MeetingFlags, output: Output) -> None:
    """Write to each other. Without CODE this side shows one; the other one runs `crowline chat` with it.

    In a pipe each line of standard input is a message, and standard output has the other side's.
    """
    from crowline.cli.run import run

    check(flags, place)
    run(_chat(output, code, flags, place))


async def _chat(output: Output, code: str | None, flags: MeetingFlags, place: PlaceFlags) -> None:
    from crowline.api.chat import Chat
    from crowline.cli.ask import can_ask
    from crowline.cli.meet import meet

    talk = Chat()
    # Where nobody is asked anything, what is written before the other side comes waits for it.
    early = None if can_ask() or place.no_server else _Conversation(output, talk, place)
    stop: asyncio.CancelledError | None = None
    try:
        async with meet(output, flags, place, code, verb="chat") as peer:
            conversation = early or _Conversation(output, talk, place)
            try:
                await conversation.run(peer)
            except asyncio.CancelledError as ctrl_c:
                # That is how people leave: no failure that the other side should hear of.
                stop = ctrl_c
    finally:
        if early is not None:
            await early.close()
    if stop is not None:
        raise stop
    if left := talk.undelivered:
        raise Interrupted(
            f"{count(len(left), 'message')} could not be delivered.", hint="Nothing keeps them any longer."
        )


class _Conversation:
    """The person's side: reads what is written, shows what happens."""

    def __init__(self, output: Output, talk: Chat, place: PlaceFlags) -> None:
        self._output = output
        self._talk = talk
        self._voice = _voice(output, talk, place)
        self._listening = asyncio.create_task(self._listen())
        self._showing = asyncio.create_task(self._show())

    async def run(self, peer: Peer) -> None:
        """Until either side leaves."""
        try:
            await self._talk.run(peer)
        finally:
            await self.close()

    async def close(self) -> None:
        """Show what is left to be shown, and give the terminal back."""
        self._talk.stop()
        self._listening.cancel()
        await asyncio.gather(self._listening, self._showing, return_exceptions=True)
        self._output.screen = None
        self._voice.close()

    async def _listen(self) -> None:
        with suppress(asyncio.CancelledError):
            await self._voice.listen()
            self._talk.end()

    async def _show(self) -> None:
        async for event in self._talk.events():
            self._voice.show(event)


def _voice(output: Output, talk: Chat, place: PlaceFlags) -> Voice:
    from crowline.cli.ask import can_ask
    from crowline.cli.chat_lines import JsonVoice, PlainVoice

    name = place.peer or _NAMELESS
    if output.as_json:
        return JsonVoice(output, talk)
    if not can_ask() or not sys.stdout.isatty():
        return PlainVoice(output, talk, name)
    try:
        from crowline.cli.chat_screen import Screen

        screen = Screen(talk, name)
    except ImportError:
        # A system without termios: lines it is.
        return PlainVoice(output, talk, name)
    output.screen = lambda line: screen.print(f"  {line}")
    return screen
