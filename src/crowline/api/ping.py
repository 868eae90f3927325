"""Round trips to the other side, by whatever path the bytes take at that moment.

Each side opens one stream for its own questions, eight bytes each, and gives the other side's back as they
came. Both have begun with `agreed_stream`, whose stream says by its end that a side has no more questions.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from crowline.api.path import Path
from crowline.api.peer import Peer, Stream
from crowline.api.service import Service, agreed_stream
from crowline.base.errors import CrowlineError, ProtocolViolation
from crowline.net.patience import within

PING = Service("ping")
# Seconds after the last question in which its answer may still come.
ANSWER_LIMIT = 5.0
# Seconds that a side which has no more questions stays for those of the other.
LINGER = 5.0
# Questions without an answer that are remembered; the path is broken then, and answers come late if at all.
_MOST_OUTSTANDING = 1024
_QUESTION = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Pong:
    """An answer: its number from 0 on, the round trip in seconds, and the path that was in use as it came."""

    number: int
    rtt: float
    path: Path | None


class Pinger:
    """This side's questions. `sent` and `answered` count them."""

    def __init__(self, peer: Peer, stream: Stream) -> None:
        self.sent = self.answered = 0
        self._peer = peer
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._asked: dict[int, float] = {}
        self._results: asyncio.Queue[Pong | CrowlineError | None] = asyncio.Queue()

    async def pongs(self) -> AsyncIterator[Pong]:
        """Answers as they come, until there are no more to wait for, or the other side leaves."""
        while (result := await self._results.get()) is not None:
            if isinstance(result, CrowlineError):
                raise result
            yield result

    async def ask(self, count: int, interval: float) -> None:
        """A question every `interval` seconds and at each change of path; `count` of them, with 0 no end."""
        changed = asyncio.Event()
        self._peer.on_path(lambda *_: changed.set())
        with suppress(CrowlineError):  # `hear` meets the same, and tells it
            while not count or self.sent < count:
                await self._ask_once()
                changed.clear()
                await within(interval, changed.wait())
            await asyncio.sleep(ANSWER_LIMIT - interval)
            self._results.put_nowait(None)

    async def hear(self, count: int) -> None:
        """Take the answers."""
        try:
            while not count or self.answered < count:
                self._take(*_QUESTION.unpack(await self._stream.readexactly(_QUESTION.size)))
            self._results.put_nowait(None)
        except CrowlineError as error:
            self._results.put_nowait(None if self._peer.has_left else error)

    async def _ask_once(self) -> None:
        if len(self._asked) == _MOST_OUTSTANDING:
            self._asked.pop(next(iter(self._asked)))
        self._asked[self.sent] = self._loop.time()
        self.sent += 1
        await self._stream.write(_QUESTION.pack(self.sent - 1))

    def _take(self, number: int) -> None:
        if number >= self.sent:
            raise ProtocolViolation("The other side answered what nobody asked.")
        if (asked := self._asked.pop(number, None)) is not None:
            self.answered += 1
            self._results.put_nowait(Pong(number, self._loop.time() - asked, self._peer.path))


@asynccontextmanager
async def pinging(peer: Peer, *, count: int = 0, interval: float = 1.0) -> AsyncIterator[Pinger]:
    """Ask and answer inside the block; at its end, stay a moment for the other side's questions.

    Raises `ProtocolViolation` where the other side runs something else.
    """
    agreement = await agreed_stream(peer, PING)
    stream = await peer.open_stream()
    pinger = Pinger(peer, stream)
    work = [_answer(peer), pinger.hear(count), pinger.ask(count, interval)]
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield pinger
        tasks[-1].cancel()
        with suppress(CrowlineError):  # it has left: that is all there was to wait for
            await agreement.close()
            await within(LINGER, agreement.read())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(peer: Peer) -> None:
    """Give the other side's questions back."""
    stream = await peer.accept_stream()
    while data := await stream.read():
        await stream.write(data)
