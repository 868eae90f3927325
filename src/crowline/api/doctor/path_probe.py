"""How long packets take on one pair, and how many are lost: asked by checks of its own."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass

from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.ice.pair import ValidPair
from crowline.stun.message import TRANSACTION_ID_SIZE

# Fifty checks show a loss of 2 %; at 50/s they are 5 kB/s each way, which disturbs no line.
COUNT = 50
INTERVAL = 0.02
# Seconds that the last answers may take: more than any round trip that people can bear.
_PATIENCE = 1.0

_ID = slice(8, 8 + TRANSACTION_ID_SIZE)  # where a STUN header has it, RFC 8489 §5


@dataclass(frozen=True, slots=True)
class Probed:
    """Checks sent and answered, and the median round trip in seconds; None where nothing was answered."""

    sent: int
    answered: int
    rtt: float | None

    @property
    def loss(self) -> float | None:
        """The share of questions that were lost, or whose answers were; None where none could be sent."""
        return 1 - self.answered / self.sent if self.sent else None


class PathProbe:
    """Asks over one pair at a time. It hears by `Traversal.on_heard`, which is its own meanwhile."""

    def __init__(self, traversal: Traversal) -> None:
        self._traversal = traversal
        self._loop = asyncio.get_running_loop()
        self._asked: dict[bytes, tuple[Address, float]] = {}
        self._trips: list[float] = []
        self._all_came = asyncio.Event()

    async def run(self, pair: ValidPair, *, count: int = COUNT, interval: float = INTERVAL) -> Probed:
        """Ask `count` times, or less where ICE restarts meanwhile. Only for a pair over UDP that works."""
        self._asked.clear()
        self._trips.clear()
        self._all_came.clear()
        before, self._traversal.on_heard = self._traversal.on_heard, self._heard
        sent = 0
        try:
            while sent < count and self._ask(pair):
                sent += 1
                await asyncio.sleep(interval)
            async with asyncio.timeout(_PATIENCE):
                while self._asked:
                    self._all_came.clear()
                    await self._all_came.wait()
        except TimeoutError:
            pass
        finally:
            self._traversal.on_heard = before
        rtt = statistics.median(self._trips) if self._trips else None
        return Probed(sent, len(self._trips), rtt)

    def _ask(self, pair: ValidPair) -> bool:
        """Whether anything can be asked: after a restart the other side's password is another one."""
        try:
            data = self._traversal.agent.probe(pair.base, pair.remote.address)
        except UsageError:
            return False
        self._asked[data[_ID]] = (pair.remote.address, self._loop.time())
        self._traversal.send(Transmit(data, pair.remote.address, pair.base))
        return True

    def _heard(self, data: memoryview, source: Address, local: Address) -> None:
        """An answer is known by its random number, and comes from where the question went."""
        asked = self._asked.get(bytes(data[_ID]))
        if asked is None or asked[0] != source:
            return
        del self._asked[bytes(data[_ID])]
        self._trips.append(self._loop.time() - asked[1])
        if not self._asked:
            self._all_came.set()
