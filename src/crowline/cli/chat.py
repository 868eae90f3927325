"""`crowline chat`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from crowline.base.errors import (
    Interrupted,
    LocalProblem,
    NoPath,
    PeerRestarted,
    ServerUnreachable,
    UsageError,
)
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output, count, local_problem
from crowline.cli.place import PlaceFlags, check, place_options

if TYPE_CHECKING:
    from crowline.api.chat import Chat
    from crowline.cli.chat_lines import Voice

# What the other side is called where it has no name.
_NAMELESS = "peer"
# Seconds before the next attempt to meet, where the last one failed.
_PAUSE = 2.0


@click.command()
@click.argument("code", required=False)
@click.option("--stay", is_flag=True, help="With --peer: when the other side leaves, wait for it again.")
@place_options("--to", "--from")
@meeting_options
def chat(code: str | None, stay: bool, place: PlaceFlags, flags: MeetingFlags, output: Output) -> None:
    """Write to each other. Without CODE this side shows one; the other one runs `crowline chat` with it.

    In a pipe each line of standard input is a message, and standard output has the other side's.
    """
    from crowline.cli.run import run

    check(flags, place)
    if stay and place.peer is None:
        raise UsageError("Only somebody who is known can be met again: --stay goes with --peer.")
    run(_chat(output, code, flags, place, stays=stay))


async def _chat(
    output: Output, code: str | None, flags: MeetingFlags, place: PlaceFlags, *, stays: bool
) -> None:
    from crowline.api.chat import Chat
    from crowline.cli.ask import can_ask

    talk = Chat()
    # Where nobody is asked anything, what is written before the other side comes waits for it.
    asks = place.peer is None and (can_ask() or place.no_server)
    conversation = _Conversation(output, talk, place)
    if not asks:
        conversation.open()
    try:
        if place.peer is not None:
            once = partial(_once, output, code, flags, place)
            await _again_and_again(conversation, talk, once, stays=stays)
        else:
            await _once(output, code, flags, place, conversation)
    finally:
        await conversation.close()
    if conversation.problem is not None:
        raise conversation.problem
    if left := talk.undelivered:
        raise Interrupted(
            f"{count(len(left), 'message')} could not be delivered.", hint="Nothing keeps them any longer."
        )


async def _once(
    output: Output,
    code: str | None,
    flags: MeetingFlags,
    place: PlaceFlags,
    conversation: _Conversation,
    *,
    stays: bool = False,
) -> None:
    """One meeting, until either side leaves."""
    from crowline.cli.meet import meet

    stop: asyncio.CancelledError | None = None
    try:
        async with meet(output, flags, place, code, verb="chat") as peer:
            conversation.open()
            conversation.has_met = conversation.has_ever_met = True
            try:
                await conversation.talk.run(peer, stays=stays)
            except asyncio.CancelledError as ctrl_c:
                # That is how people leave: no failure that the other side should hear of.
                stop = ctrl_c
    finally:
        conversation.has_met = False
    if stop is not None:
        raise stop


async def _again_and_again(
    conversation: _Conversation,
    talk: Chat,
    once: Callable[..., Coroutine[Any, Any, None]],
    *,
    stays: bool,
) -> None:
    """Meet, and meet again where the other side came again as another process, or, for a side that `stays`,
    where it left; until this side has said everything and it is delivered.
    """
    # Without anybody who stays, who has nothing to say waits for the other side all the same.
    done = asyncio.create_task(talk.all_said() if stays else asyncio.Event().wait())
    meeting: asyncio.Task[None] | None = None
    try:
        goes_on = True
        while goes_on and not done.done():
            meeting = asyncio.create_task(once(conversation, stays=True))
            await asyncio.wait({meeting, done}, return_when=asyncio.FIRST_COMPLETED)
            if meeting.done() or conversation.has_met:
                goes_on = await _goes_on(meeting, conversation, stays=stays)
    finally:
        for task in (done, meeting):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def _goes_on(meeting: asyncio.Task[None], conversation: _Conversation, *, stays: bool) -> bool:
    """Whether another meeting follows this one, which is over when that is known."""
    try:
        await meeting
    except PeerRestarted as problem:
        conversation.tell(problem.message)
    except (Interrupted, NoPath, ServerUnreachable) as problem:
        if not (stays and conversation.has_ever_met):
            raise
        conversation.tell(f"{problem.message} Trying again.")
        await asyncio.sleep(_PAUSE)
    else:
        return stays
    return True


class _Conversation:
    """The person's side: reads what is written, shows what happens.

    `has_met`: the other side is there; `has_ever_met`: it was, at some time. `problem`: why what happens
    cannot be shown, as on a full disk; then this side leaves.
    """

    def __init__(self, output: Output, talk: Chat, place: PlaceFlags) -> None:
        self.talk = talk
        self.has_met = self.has_ever_met = False
        self.problem: LocalProblem | None = None
        self._output = output
        self._place = place
        self._voice: Voice | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Begin, if that has not been done; on a terminal nobody can be asked anything from now on."""
        if self._voice is None:
            self._voice = _voice(self._output, self.talk, self._place)
            works = (self._listen(self._voice), self._show(self._voice))
            self._tasks = [asyncio.create_task(work) for work in works]

    def tell(self, sentence: str) -> None:
        self._output.warn(sentence)

    async def close(self) -> None:
        """Show what is left to be shown, and give the terminal back."""
        self.talk.stop()
        if self._voice is None:
            return
        self._tasks[0].cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._output.screen = None
        self._voice.close()

    async def _listen(self, voice: Voice) -> None:
        # A terminal that was closed is the end of what is written there.
        with suppress(OSError):
            await voice.listen()
        self.talk.end()

    async def _show(self, voice: Voice) -> None:
        async for event in self.talk.events():
            try:
                voice.show(event)
            except OSError as error:
                self.problem = local_problem(error)
                self.talk.end()


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
    output.screen = screen.print
    return screen
