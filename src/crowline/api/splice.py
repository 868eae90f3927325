"""A program on this machine and a stream to the other side, joined in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from crowline.api.peer import Stream
from crowline.net.conduit import CHUNK, Conduit


class Splice:
    """Bytes go both ways, each direction until its end; each end reaches the other side as an end.

    Whoever reads slowly slows down whoever writes: nothing is kept here but one piece of each direction.
    `sent` and `received` count the bytes. `before` reads what comes ahead of the other side's bytes.
    """

    def __init__(
        self, conduit: Conduit, stream: Stream, *, before: Callable[[Stream], Awaitable[None]] | None = None
    ) -> None:
        self.sent = self.received = 0
        self._conduit = conduit
        self._stream = stream
        self._before = before

    async def run(self) -> None:
        """Until both directions have ended. Raises `OSError` or `CrowlineError` where one fails."""
        outward = asyncio.ensure_future(self._outwards())
        inward = asyncio.ensure_future(self._inwards())
        broken = asyncio.ensure_future(self._stream.broken())

        def stop(_: asyncio.Future[NoReturn]) -> None:
            # Reading the other side's bytes ends with the stream by itself; waiting for the program does not.
            outward.cancel()
            # What came before the connection ended is still handed on; of a stream given up nothing is.
            if self._stream.is_given_up:
                inward.cancel()

        broken.add_done_callback(stop)
        tasks = (broken, outward, inward)
        try:
            await asyncio.gather(outward, inward)
        except BaseException as error:
            self._conduit.abort()
            if isinstance(error, asyncio.CancelledError) and broken.done():
                broken.result()
            raise
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                # Also where this is cancelled once more meanwhile.
                self._conduit.close()

    async def _outwards(self) -> None:
        while data := await self._conduit.read():
            self.sent += len(data)
            await self._stream.write(data)
        await self._stream.close()

    async def _inwards(self) -> None:
        if self._before is not None:
            await self._before(self._stream)
        while data := await self._stream.read(CHUNK):
            self.received += len(data)
            await self._conduit.write(data)
        await self._conduit.end()
