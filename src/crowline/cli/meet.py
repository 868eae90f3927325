"""How every command meets the other side: the code, the words, and the path from the first one on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from crowline.base.errors import ServerUnreachable, UsageError
from crowline.cli.options import MeetingFlags
from crowline.cli.output import Output, describe_path
from crowline.cli.place import PlaceFlags, parse_host, room_at
from crowline.cli.tokens import ask_token, peer_of_answer, show_token

if TYPE_CHECKING:
    from crowline.api.path import Path
    from crowline.api.peer import Peer
    from crowline.api.room import Room

    OnPath: TypeAlias = Callable[[Path | None, Path | None], None]


@asynccontextmanager
async def meet(
    output: Output,
    flags: MeetingFlags,
    place: PlaceFlags,
    code: str | None,
    *,
    verb: str,
    on_path: OnPath | None = None,
) -> AsyncIterator[Peer]:
    """The other side. Without a `code` this one hosts, and says that `verb` is to be run over there.

    People are told the words and each path, programs get the objects ``code``, ``peer`` and ``path``.
    `on_path` is told of paths in place of them. Raises what `Room.peer` does.
    """
    hosts = code is None and not place.joins
    text = None if hosts else await settle(output, code, place)
    async with AsyncExitStack() as stack:
        room, place = await enter(stack, output, flags, place, text, verb=verb)
        if hosts:
            invite(output, room, place, verb)
        elif place.no_server:
            output.insist("Give this token back to the other side:")
            show_token(output, room.code)
        room.on_path(on_path or (lambda now, before: tell_path(output, now, before)))
        room.on_warning(output.warn)
        peer = await (peer_of_answer(output, room) if hosts and place.no_server else room.peer())
        greet(output, peer, place.peer)
        yield peer


async def settle(output: Output, code: str | None, place: PlaceFlags) -> str:
    """What proves a joining side to the other: a code, a token, or nothing that is known here."""
    if place.peer is not None:
        if code is not None:
            raise UsageError("Somebody who is known is met without a code.")
        return ""
    if place.peer_host is not None:
        if code is not None:
            raise UsageError("Where a host is named there is no code.")
        return ""
    return await ask_token(output, code) if place.no_server else await _settle_code(output, code)


async def enter(
    stack: AsyncExitStack,
    output: Output,
    flags: MeetingFlags,
    place: PlaceFlags,
    code: str | None,
    *,
    verb: str = "",
) -> tuple[Room, PlaceFlags]:
    """The room, and where it is: a person whose server is out of reach may host without one. Known peers meet
    by the `verb` that both run.
    """
    from crowline.cli.ask import agree, can_ask

    try:
        return await stack.enter_async_context(room_at(flags, place, code, verb)), place
    except ServerUnreachable as problem:
        cannot = code is not None or place.is_serverless or flags.relay_only or place.peer is not None
        if cannot or output.as_json or not can_ask():
            raise
        output.insist(problem.message)
        if not await agree("Meet in this network only, without a server?"):
            raise
    place = replace(place, lan=True)
    return await stack.enter_async_context(room_at(replace(flags, server=None), place, code)), place


def invite(output: Output, room: Room, place: PlaceFlags, verb: str) -> None:
    """Say what the other side has to do: run `verb`."""
    if place.peer is not None:
        output.say(
            f"Waiting for {place.peer}, who runs `crowline {verb} --peer` with your name. Ctrl-C stops."
        )
        return
    if place.no_server:
        output.insist(f"On the other computer:   crowline {verb} --no-server TOKEN")
        output.insist("with this token:")
        show_token(output, room.code)
        return
    if place.peer_host is not None:
        _, port = parse_host(place.peer_host)
        own = port if place.local_port is None else place.local_port
        output.insist(f"On the other computer:   crowline {verb} --from YOUR-PUBLIC-ADDRESS:{own}")
        output.say("Waiting … start this side first. Ctrl-C to stop.")
        return
    output.emit("code", code=room.code)
    output.insist(f"On the other computer:   crowline {verb} {room.code}")
    network = " in this network" if place.lan else ""
    output.say(f"Waiting … the code is good for one use{network}. Ctrl-C to stop.")


def greet(output: Output, peer: Peer, name: str | None = None) -> None:
    """The words, which show that nobody is in between; and the `name` of somebody who is known."""
    output.emit("peer", words=list(peer.words), **({} if name is None else {"name": name}))
    if name is not None:
        output.say(f"Connected to {name}.")
        return
    output.say(f"Connected. Both screens show: {' '.join(peer.words)}")


def tell_path(output: Output, now: Path | None, before: Path | None) -> None:
    """One line for each path, with its reason. How the paths go down at the end is no news."""
    if output.is_done:
        return
    output.path(now, before)
    if now is not None:
        output.say(f"Path: {describe_path(now)}  ({now.reason})")


def carriage(peer: Peer) -> dict[str, Any]:
    """What every ``done`` object says of the paths: bytes on each kind, and the milliseconds to the first."""
    carried = {f"{kind}_bytes": carried for kind, carried in peer.carried.items()}
    times = {"setup_ms": peer.setup_ms, "direct_ms": peer.direct_ms}
    return carried | {name: None if value is None else round(value, 1) for name, value in times.items()}


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
