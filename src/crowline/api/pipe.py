"""One stream of bytes in each direction, from one side's program to the other's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from crowline.api.peer import Peer
from crowline.api.service import Service, agreed_stream
from crowline.api.splice import Splice
from crowline.base.errors import CrowlineError
from crowline.net.conduit import Conduit
from crowline.net.standard_streams import StandardStreams

__all__ = ["PIPE", "Conduit", "Piped", "StandardStreams", "pipe"]

PIPE = Service("pipe")


@dataclass(frozen=True, slots=True)
class Piped:
    """Bytes in each direction, and the seconds that they took."""

    sent: int
    received: int
    seconds: float


async def pipe(peer: Peer, conduit: Conduit) -> Piped:
    """Join `conduit` to that of the other side, which calls this too, until both directions have ended.

    The other side has everything when this returns. Raises `ProtocolViolation` where it runs something else,
    `OSError` and `LocalProblem` where the program here does not go on, and what ends the connection.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        stream = await agreed_stream(peer, PIPE)
    except BaseException:
        conduit.close()
        raise
    splice = Splice(conduit, stream)
    await splice.run()
    try:
        await stream.delivered()
    except CrowlineError:
        # Whoever leaves in good order has read to our end: only the acknowledgement is missing.
        if not peer.has_left:
            raise
    return Piped(splice.sent, splice.received, loop.time() - started)
