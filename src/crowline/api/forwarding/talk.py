"""Messages on streams, and what a connection that cannot be made comes to."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine
from typing import Any

from crowline.api.peer import Stream
from crowline.base.errors import CrowlineError
from crowline.forward.messages import (
    LENGTH,
    MAX_MESSAGE,
    Failed,
    MalformedForwardMessage,
    Reason,
    decode_answer,
)

_REASONS = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.EHOSTUNREACH: Reason.UNREACHABLE,
    errno.ENETUNREACH: Reason.UNREACHABLE,
    errno.ETIMEDOUT: Reason.SILENT,
}


class NotReached(CrowlineError):
    """What a program wanted to reach was not."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"{reason.sentence[:1].upper()}{reason.sentence[1:]}.")
        self.reason = reason


async def read_body(stream: Stream) -> bytes:
    """One message, without its length. Raises `MalformedForwardMessage` for one that is too long."""
    (size,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
    if size > MAX_MESSAGE:
        raise MalformedForwardMessage("The other side sent a message that is too long.")
    return await stream.readexactly(size)


async def read_answer(stream: Stream) -> None:
    """Raises `NotReached` where the other side could not or would not."""
    answer = decode_answer(await read_body(stream))
    if isinstance(answer, Failed):
        raise NotReached(Reason(answer.reason))


async def while_wanted(stream: Stream, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, unless the other side gives `stream` up before it is done: then that is raised."""
    working = asyncio.ensure_future(work)
    broken = asyncio.ensure_future(stream.broken())
    try:
        await asyncio.wait((working, broken), return_when=asyncio.FIRST_COMPLETED)
        await (working if working.done() else broken)
    finally:
        for task in (working, broken):
            task.cancel()
        await asyncio.gather(working, broken, return_exceptions=True)


def reason_of(error: Exception) -> Reason:
    """What to tell the other side of an attempt of this one."""
    if isinstance(error, NotReached):
        return error.reason
    if isinstance(error, TimeoutError):
        return Reason.SILENT
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0, Reason.FAILED)
    return Reason.FAILED
