"""A transfer that goes on although a side had to begin again: in this process, and in a later one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from crowline.base.errors import Declined, Interrupted, PeerRestarted, Refused
from crowline.base.secrets import Secret
from crowline.cli.meet import enter, greet, invite
from crowline.cli.options import MeetingFlags
from crowline.cli.output import Output
from crowline.cli.place import PlaceFlags
from crowline.cli.tokens import peer_of_answer, show_token

if TYPE_CHECKING:
    from crowline.api.peer import Peer
    from crowline.api.room import Room
    from crowline.api.unfinished import Unfinished
    from crowline.cli.view import TransferView

T = TypeVar("T")

AGAIN = "Run the same command again, on both sides if both have ended: what has arrived is kept."


class Reunion:
    """How one side meets the other for a transfer, and meets it again until the transfer is done.

    `verb` is this side's: ``send`` hosts, ``receive`` joins with a `code` or with what stands for one.
    `unfinished` is what is remembered of the transfer; None where nothing is.
    """

    def __init__(
        self,
        output: Output,
        flags: MeetingFlags,
        place: PlaceFlags,
        unfinished: Unfinished | None,
        verb: str,
        code: str = "",
    ) -> None:
        self._output = output
        self._flags = flags
        self._place = place
        self._unfinished = unfinished
        self._verb = verb
        self._code = code
        self._sends = verb == "send"
        self._invited = False

    async def until_done(self, transfer: Callable[[], Awaitable[T]]) -> T:
        """What `transfer` gives, called again whenever the other side comes again as another process."""
        try:
            while True:
                try:
                    done = await transfer()
                except PeerRestarted:
                    if not self._is_known:
                        raise
                    self._output.say("The other side began again; going on with what it has.")
                else:
                    self.forget()
                    return done
        except Declined:
            self.forget()
            raise
        except (Interrupted, Refused) as error:
            error.hint = AGAIN if self._is_known else error.hint
            raise
        except asyncio.CancelledError:
            if self._is_known:
                self._output.say(f"Stopped. {AGAIN}")
            raise

    @asynccontextmanager
    async def peer(self, view: TransferView) -> AsyncIterator[Peer]:
        """The other side, and from now on both are known to each other, also in a later process."""
        async with AsyncExitStack() as stack:
            room, place = await self._enter(stack)
            room.on_path(view.on_path)
            room.on_warning(self._output.warn)
            hosts_by_token = self._sends and place.no_server
            peer = await (peer_of_answer(self._output, room) if hosts_by_token else room.peer())
            view.peer = peer
            greet(self._output, peer, place.peer)
            self._remember(room, peer)
            yield peer

    def forget(self) -> None:
        """There is nothing that a later process could go on with."""
        if self._unfinished is not None:
            self._unfinished.forget()

    @property
    def _is_known(self) -> bool:
        return self._unfinished is not None and self._unfinished.is_known

    async def _enter(self, stack: AsyncExitStack) -> tuple[Room, PlaceFlags]:
        # Whoever is known by name is met where that says, each time, and proves again who it is.
        if self._unfinished is not None and self._unfinished.is_known and self._place.peer is None:
            room = await stack.enter_async_context(self._known_room(self._unfinished))
            self._invite_again(self._unfinished.code)
            return room, self._place
        code = None if self._sends else self._code
        room, place = await enter(stack, self._output, self._flags, self._place, code, verb=self._verb)
        if self._sends:
            invite(self._output, room, place, "receive")
        elif place.no_server:
            self._output.insist("Give this token back to the other side:")
            show_token(self._output, room.code)
        self._invited = True
        return room, place

    def _known_room(self, unfinished: Unfinished) -> AbstractAsyncContextManager[Room]:
        from crowline.api.key_room import room_at_key

        options = {name: value for name, value in self._flags.keywords().items() if name != "server"}
        server = self._flags.server or unfinished.url
        return room_at_key(unfinished.secret, server, hosts=unfinished.hosts, **options)

    def _invite_again(self, code: str) -> None:
        if self._invited:
            return
        self._invited = True
        if not self._sends:
            self._output.say("Going on where it was broken off; the other side runs its command again too.")
            return
        if code:
            self._output.emit("code", code=code)
            self._output.insist(f"On the other computer:   crowline receive {code}")
        self._output.say("Going on where it was broken off: the same command there too; --new begins anew.")

    def _remember(self, room: Room, peer: Peer) -> None:
        if self._unfinished is None or not (room.server and peer.resume_secret):
            return
        is_shown = self._sends and self._place.peer is None
        code = self._unfinished.code or (room.code if is_shown else "")
        self._unfinished.keep(code, room.server, Secret(peer.resume_secret), hosts=peer.is_host)
