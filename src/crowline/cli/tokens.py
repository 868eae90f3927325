"""Two tokens between two people: shown as text and as a picture, and read from who pastes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from crowline.base.errors import UsageError, WrongCode
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.api.peer import Peer
    from crowline.api.room import Room

# Modules of light border around a picture, on each side.
_BORDER = 2


def show_token(output: Output, token: str) -> None:
    """On a line of its own, to be copied; as a picture too where that fits on the screen."""
    output.emit("token", token=token)
    if output.as_json:
        return
    output.insist("")
    sys.stderr.write(f"{token}\n")
    output.insist("")
    if output.is_terminal:
        _show_picture(token)


async def peer_of_answer(output: Output, room: Room) -> Peer:
    """The other side, once somebody has pasted what it gave back; asked again after what is no answer."""
    import asyncio

    waiting = asyncio.ensure_future(room.peer())
    asking = asyncio.ensure_future(_ask_answer(output, room))
    try:
        await asyncio.wait({waiting, asking}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            asking.result()
        return await waiting
    finally:
        for task in (waiting, asking):
            task.cancel()
        await asyncio.gather(waiting, asking, return_exceptions=True)


async def ask_token(output: Output, token: str | None) -> str:
    """The first token: given, or asked for. Raises `UsageError` where nobody gives one."""
    from crowline.api.serverless import check_token

    if token is not None:
        return token
    return await _ask(output, "Paste the other side's token:", check_token)


async def _ask_answer(output: Output, room: Room) -> None:
    await _ask(output, "Paste the token that it gives back:", room.answer)


async def _ask(output: Output, question: str, take: Callable[[str], object]) -> str:
    """What somebody pasted and `take` took: of as many lines as a chat or a mail made of it. Whatever that
    refuses is asked for again.
    """
    from crowline.api.serverless import TOKEN_PREFIX
    from crowline.cli.ask import ask

    pasted = ""
    while (line := await ask(question)) is not None:
        if not line:
            continue
        pasted = line if TOKEN_PREFIX in line else f"{pasted}\n{line}"
        try:
            take(pasted)
        except WrongCode as problem:
            output.warn(f"{problem.message} {problem.hint}")
        else:
            return pasted
    raise UsageError("No token was given.")


def _show_picture(token: str) -> None:
    import shutil

    import segno

    picture = segno.make(token, error="l", micro=False)
    width = picture.symbol_size(border=_BORDER)[0]
    if width <= shutil.get_terminal_size().columns:
        picture.terminal(out=sys.stderr, border=_BORDER, compact=True)
