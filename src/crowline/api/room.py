"""Where two sides meet: `host` makes a code, `join` uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from crowline.api.connection import Connection
from crowline.api.options import DEADLINE, Options, default_server
from crowline.api.peer import Peer
from crowline.base.errors import CrowlineError, LocalProblem, ServerUnreachable
from crowline.rendezvous.code import Code, CodeTypo
from crowline.rendezvous.role import Role

if TYPE_CHECKING:
    from crowline.api.lan_point import NearbyOrServer

__all__ = ["CodeTypo", "Room", "check_code", "enter", "host", "join", "opened"]

# What the other side is told when the block is left by another exception: the code of `Interrupted`.
STOPPED = 10


class Room:
    """A meeting that waits for its second side. `code` is what the other side needs: its code, or a token."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._peer = Peer(connection)

    @property
    def code(self) -> str:
        return self._connection.token or str(self._connection.code)

    @property
    def server(self) -> str:
        """The URL of the server at which the two meet; empty without one."""
        place = self._connection._place
        return place.url if place.has_server else ""

    def answer(self, token: str) -> None:
        """Take the token that answers this side's. Raises `WrongCode` where it does not."""
        self._connection.answer(token)

    async def peer(self) -> Peer:
        """The other side, as soon as it has proven the code and bytes can flow.

        Raises `NobodyCame`, `WrongCode` (somebody guessed wrong: the code is dead), `NoPath`,
        `ServerUnreachable`.
        """
        await asyncio.shield(self._connection.opened)
        return self._peer

    def on_path(self, tell: Callable[..., None]) -> None:
        """As `Peer.on_path`, from the first path on."""
        self._peer.on_path(tell)

    def on_warning(self, tell: Callable[[str], None]) -> None:
        """Call `tell(sentence)` for what a person should know, such as the server's message of the day.

        What nobody has heard yet is told at once.
        """
        self._connection.observers.add_warning_listener(tell)


def check_code(text: str) -> str:
    """The code that a person meant by `text`, in its usual form. Raises `CodeTypo` with suggestions."""
    return str(Code.parse(text))


@asynccontextmanager
async def host(
    server: str | None = None,
    *,
    relay_only: bool = False,
    direct_only: bool = False,
    timeout: float | None = None,
    hide_addresses: bool = False,
    port_mapping: bool = True,
    limit: int | None = None,
    deadline: float = DEADLINE,
) -> AsyncIterator[Room]:
    """Open a room and have its code; leaving the block closes the connection.

    `server` is the hub's URL, by default that of `CROWLINE_SERVER` or the config file; `Options` says what
    the others mean. Raises `ServerUnreachable` where no hub answers.
    """
    options = Options(
        server or default_server(),
        relay_only,
        direct_only,
        timeout,
        hide_addresses,
        port_mapping=port_mapping,
        limit=limit,
        deadline=deadline,
    )
    async with opened(Connection(Role.HOST, options)) as room:
        await asyncio.shield(room._connection.code_ready)
        yield room


@asynccontextmanager
async def enter(
    code: str,
    server: str | None = None,
    *,
    relay_only: bool = False,
    direct_only: bool = False,
    timeout: float | None = None,
    hide_addresses: bool = False,
    port_mapping: bool = True,
    limit: int | None = None,
    deadline: float = DEADLINE,
) -> AsyncIterator[Room]:
    """As `join`, with the room: for callers who want to hear of paths and warnings from the beginning.

    A code that may have been made without a server is looked for in this network first.
    """
    parsed = Code.parse(code)
    place = None if relay_only or not parsed.is_of_lan else _nearby(server)
    options = Options(
        (server or default_server()) if place is None else place.url,
        relay_only,
        direct_only,
        timeout,
        hide_addresses,
        port_mapping=port_mapping,
        place=place,
        limit=limit,
        deadline=deadline,
    )
    async with opened(Connection(Role.JOIN, options, parsed)) as room:
        yield room


@asynccontextmanager
async def join(
    code: str,
    server: str | None = None,
    *,
    relay_only: bool = False,
    direct_only: bool = False,
    timeout: float | None = None,
    hide_addresses: bool = False,
    port_mapping: bool = True,
    limit: int | None = None,
    deadline: float = DEADLINE,
) -> AsyncIterator[Peer]:
    """Meet whoever made `code`; leaving the block closes the connection.

    Raises `CodeTypo` without asking the server for a code that cannot be right, `WrongCode` for one that
    is wrong, used or expired, and what `Room.peer` raises.
    """
    async with enter(
        code,
        server,
        relay_only=relay_only,
        direct_only=direct_only,
        timeout=timeout,
        hide_addresses=hide_addresses,
        port_mapping=port_mapping,
        limit=limit,
        deadline=deadline,
    ) as room:
        yield await room.peer()


@asynccontextmanager
async def opened(connection: Connection) -> AsyncIterator[Room]:
    """A room with that connection, which is opened, and closed at the end of the block."""
    room = Room(connection)
    code, sentence = STOPPED, "it was stopped"
    try:
        await connection.open()
        yield room
        code, sentence = 0, ""
    except LocalProblem as error:
        # Its words name files and folders, which are nobody's business over there.
        code, sentence = error.exit_code, LocalProblem().message
        raise
    except CrowlineError as error:
        code, sentence = error.exit_code, error.message
        raise
    finally:
        await room._peer.close(code, sentence)


def _nearby(server: str | None) -> NearbyOrServer:
    """Whoever has the code in this network, else the server, where one is named at all."""
    from crowline.api.lan_point import NearbyOrServer

    try:
        return NearbyOrServer(server or default_server())
    except ServerUnreachable:
        return NearbyOrServer("")
