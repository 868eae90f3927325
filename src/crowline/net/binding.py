"""How STUN servers see a socket of the caller's: a `BindingClient` in an asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import ServerUnreachable, UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.net.lossy import lossy
from crowline.net.pump import Pump
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.stun.message import is_stun
from crowline.stun.transaction import UDP, Schedule

_Question: TypeAlias = tuple[Address, Address | None, Transport]


class Binding:
    """Asks STUN servers under which address they see a socket that the caller owns, reads and closes.

    `send` sends a `Transmit` by that socket; with several sockets, by the one whose address is its `local`.
    It may raise `OSError`, which counts as loss. What arrives there is handed to `receive`. Make it in a
    running event loop.
    """

    def __init__(self, send: Callable[[Transmit], object], *, schedule: Schedule = UDP) -> None:
        self._client = BindingClient(entropy=os.urandom, schedule=schedule)
        self._pump = Pump[Transmit, BindingEvent](self._client, lossy(send), self._on_event)
        self._waiting: dict[_Question, deque[asyncio.Future[Mapped]]] = {}
        self._closed = False

    async def ask(
        self, server: Address, local: Address | None = None, *, transport: Transport = Transport.UDP
    ) -> Mapped:
        """How `server` sees the socket `local`; over UDP it is asked seven times in 39.5 s (RFC 8489 §6.2.1).

        Raises `ServerUnreachable` when it does not answer, or with an error; `UsageError` when closed. A
        caller with less patience wraps this in `asyncio.timeout`. Over a stream, hand `receive` whole
        messages.
        """
        if self._closed:
            raise UsageError("A closed driver asks nobody.")
        answer: asyncio.Future[Mapped] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((server, local, transport), deque()).append(answer)
        self._client.query(server, self._pump.now, local, transport)
        self._pump.flush()
        return await answer

    def receive(self, data: Buffer, source: Address, local: Address | None = None) -> bool:
        """Take what arrived at the socket `local`; False when it is no answer to a question from here."""
        if not is_stun(data) or not self._client.owns(data):
            return False
        self._client.receive(data, source, self._pump.now, local)
        self._pump.flush()
        return True

    def close(self) -> None:
        """Stop asking; whoever still waits is cancelled. The socket stays open."""
        self._closed = True
        self._pump.close()
        for answers in self._waiting.values():
            for answer in answers:
                answer.cancel()
        self._waiting.clear()

    def _on_event(self, event: BindingEvent) -> None:
        """Questions that are alike have answers that are alike: all who wait get the first.

        Without an answer it is the oldest who has waited long enough.
        """
        question = (event.server, event.local, event.transport)
        answers = self._waiting[question]
        oldest = answers.popleft()
        if not answers:
            del self._waiting[question]
        if isinstance(event, Mapped):
            for answer in (oldest, *answers):
                if not answer.done():
                    answer.set_result(event)
        elif not oldest.done():
            why = f"answered with the error {event.code}" if event.code else "does not answer"
            oldest.set_exception(ServerUnreachable(f"{event.server} {why}."))
