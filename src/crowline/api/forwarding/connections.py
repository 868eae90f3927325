"""TCP connections: one stream each, from a program on one side to a host that the other reaches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from crowline.api.forwarding.events import ConnectionClosed, ConnectionOpened, ForwardEvent
from crowline.api.forwarding.gate import Gate
from crowline.api.forwarding.talk import NotReached, read_answer, reason_of, while_wanted
from crowline.api.peer import Peer, Stream
from crowline.api.splice import Splice
from crowline.base.errors import CrowlineError
from crowline.forward.messages import Failed, Head, Opened, Reason, encode
from crowline.forward.rules import Target
from crowline.net.local_tcp import TcpConduit, connect
from crowline.net.patience import within

# Connections and flows that one side has open at once; the session holds back more streams than that.
MAX_OPEN = 120
# Seconds in which the other side may take note of a refusal.
_REFUSAL_LIMIT = 10.0


class Connections:
    """Both those that begin here and those that end here."""

    def __init__(self, peer: Peer, gate: Gate, tell: Callable[[ForwardEvent], None]) -> None:
        self.slots = asyncio.Semaphore(MAX_OPEN)
        self.numbers = itertools.count(1)
        self._peer = peer
        self._gate = gate
        self._tell = tell

    async def carry(self, conduit: TcpConduit, head: Head, what: str) -> None:
        """Take a program's connection to the other side. Its bytes leave without waiting for the answer."""
        try:
            stream = await self._open(head)
        except BaseException:
            conduit.abort()
            conduit.close()
            raise
        await self._run(Splice(conduit, stream, before=read_answer), stream, what)

    async def reach(self, head: Head) -> Stream:
        """The stream on which the other side has reached what `head` says. Raises `NotReached`."""
        stream = await self._open(head)
        try:
            await read_answer(stream)
        except BaseException:
            stream.abort()
            raise
        return stream

    async def join(self, conduit: TcpConduit, stream: Stream, what: str) -> None:
        """Join a program's connection and a stream of `reach`."""
        await self._run(Splice(conduit, stream), stream, what)

    async def serve(self, stream: Stream, head: Head) -> None:
        """Take a connection of the other side to where it leads."""
        made: list[tuple[TcpConduit, Target]] = []

        async def dial() -> None:
            target, addresses = await self._gate.lead(head)
            made.append((await connect(addresses, target.port), target))

        try:
            await while_wanted(stream, dial())
            await stream.write(encode(Opened()))
        except (OSError, NotReached) as error:
            await refuse(stream, reason_of(error))
            return
        except BaseException:
            for conduit, _ in made:
                conduit.abort()
                conduit.close()
            raise
        [(conduit, target)] = made
        await self._run(Splice(conduit, stream), stream, f"the other side → {target}")

    async def _open(self, head: Head) -> Stream:
        stream = await self._peer.open_stream()
        await stream.write(encode(head))
        return stream

    async def _run(self, splice: Splice, stream: Stream, what: str) -> None:
        number = next(self.numbers)
        self._tell(ConnectionOpened(number, what))
        reason = "it was stopped"
        try:
            await splice.run()
            reason = ""
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
        except CrowlineError as error:
            reason = error.message.removesuffix(".")
        finally:
            if reason:
                stream.abort()
            self._tell(ConnectionClosed(number, splice.sent, splice.received, reason))


async def refuse(stream: Stream, reason: Reason) -> None:
    """Say that it will not be, and wait for the other side to take its own bytes back."""

    async def read_to_end() -> None:
        while await stream.read():
            pass

    try:
        await stream.write(encode(Failed(reason)))
        await stream.close()
        await within(_REFUSAL_LIMIT, read_to_end())
    except CrowlineError:
        return  # it gave the stream up, which is what we wait for
    finally:
        stream.abort()
