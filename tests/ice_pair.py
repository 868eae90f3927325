"""Two ICE agents, the network and the signalling between them, in virtual time and without sockets."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Any

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import CandidateFactory, TcpType
from crowline.ice.events import (
    ConnectionUnwanted,
    ConnectionWanted,
    IceEvent,
    PairLost,
    PairValid,
    Restarted,
)
from crowline.ice.lite import LiteAgent
from crowline.ice.pair import PairKey, ValidPair

Kind = TcpType | None

DELAY = 0.01  # seconds one way
SIGNAL_DELAY = 0.03


class IceSide:
    """An agent that uses every pair that works, and tells the other side what it must know."""

    def __init__(
        self, pair: IcePair, agent: IceAgent | LiteAgent, bases: list[Address], kinds: tuple[Kind, ...]
    ) -> None:
        self.pair = pair
        self.agent = agent
        self.factory = CandidateFactory()
        self.bases = bases
        self.events: list[tuple[float, IceEvent]] = []
        self.usable: dict[PairKey, ValidPair] = {}
        for base in bases:
            for kind in kinds:
                agent.add_local_candidate(self.factory.host(base, kind), 0.0)

    @property
    def other(self) -> IceSide:
        one, two = self.pair.sides
        return two if self is one else one

    def describe(self) -> None:
        """Signal credentials and candidates."""
        agent = self.agent
        ufrag, pwd = agent.ufrag, agent.pwd
        lite = isinstance(agent, LiteAgent)
        self.signal(lambda other, now: other.set_remote(ufrag, pwd, now, lite=lite))
        for candidate in agent.local_candidates():
            self.signal(lambda other, now, each=candidate: other.add_remote_candidate(each, now))
        self.signal(lambda other, now: other.end_of_remote_candidates(now))
        agent.end_of_local_candidates(self.pair.now)

    def signal(self, act: Callable[[IceAgent | LiteAgent, float], None]) -> None:
        self.pair.later(SIGNAL_DELAY, lambda: act(self.other.agent, self.pair.now))

    def restart(self) -> bool:
        return self.agent.restart(self.pair.now)

    def of(self, kind: type) -> list[Any]:
        """The events of that kind so far."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def poll(self) -> None:
        """Send and note what the agent has."""
        while (transmit := self.agent.next_transmit()) is not None:
            self.pair.carry(self, transmit)
        while (event := self.agent.next_event()) is not None:
            self.events.append((self.pair.now, event))
            if isinstance(event, PairValid):
                self.usable[event.pair.key] = event.pair
                self.agent.use(event.pair, self.pair.now)
            elif isinstance(event, PairLost):
                self.usable.pop(event.pair.key, None)
            elif isinstance(event, Restarted):
                self.describe()
            elif isinstance(event, ConnectionWanted):
                self.pair.dial(self, event)
            elif isinstance(event, ConnectionUnwanted):
                self.pair.hang_up(self, event.local, event.remote)


class IcePair:
    """`drops` says which datagrams are lost, by sender's number, transmit and time.

    The first of the two begins. `lite` says which of them are lite; `kinds` which candidates each base is:
    ``None`` for UDP, and types of TCP. `listens` says of which addresses TCP connections are accepted.
    """

    def __init__(
        self,
        *,
        bases: tuple[int, int] = (1, 1),
        lite: tuple[bool, bool] = (False, False),
        kinds: tuple[tuple[Kind, ...], tuple[Kind, ...]] = ((None,), (None,)),
        seed: int = 1,
        ta: float = 0.005,
        **options: Any,
    ) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.drops: Callable[[int, Transmit, float], bool] = lambda *_: False
        self.listens: Callable[[Address], bool] = lambda _: True
        self.carried: list[tuple[float, int, Transmit]] = []
        # TCP connections, each by the two (own, other) views of it, and simultaneous opens that wait.
        self.connections: set[tuple[Address, Address]] = set()
        self._half_way: set[tuple[Address, Address]] = set()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.sides = tuple(
            IceSide(
                self,
                LiteAgent(number == 0, entropy=self.random.randbytes, **options)
                if lite[number]
                else IceAgent(number == 0, entropy=self.random.randbytes, ta=ta, **options),
                [Address(f"192.0.2.{10 * number + each + 1}", 1000) for each in range(bases[number])],
                kinds[number],
            )
            for number in range(2)
        )

    def start(self) -> None:
        for side in self.sides:
            side.describe()

    def later(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._order), call))

    def carry(self, sender: IceSide, transmit: Transmit) -> None:
        number = self.sides.index(sender)
        self.carried.append((self.now, number, transmit))
        receiver, source, target = sender.other, transmit.local, transmit.destination
        if source is None or target not in receiver.bases:
            return
        if transmit.transport is Transport.TCP:
            # No stream loses anything while it lasts.
            if (source, target) in self.connections:
                self.later(
                    DELAY,
                    lambda: receiver.agent.receive(transmit.data, source, self.now, target, Transport.TCP),
                )
        elif not self.drops(number, transmit, self.now):
            self.later(DELAY, lambda: receiver.agent.receive(transmit.data, source, self.now, target))

    def dial(self, side: IceSide, wanted: ConnectionWanted) -> None:
        """Connect, after a round trip; a simultaneous open, a round trip after the later of the two."""
        way, back = (wanted.local, wanted.remote), (wanted.remote, wanted.local)
        if wanted.simultaneous and back not in self._half_way:
            self._half_way.add(way)
        elif wanted.simultaneous or (wanted.remote in side.other.bases and self.listens(wanted.remote)):
            self.later(2 * DELAY, lambda: self._connect(side, *way))
        else:
            self.later(2 * DELAY, lambda: side.agent.disconnected(*way, self.now))

    def hang_up(self, side: IceSide, local: Address, remote: Address) -> None:
        """One side closes; the other one hears of it."""
        self._half_way.discard((local, remote))
        if (local, remote) in self.connections:
            self.connections -= {(local, remote), (remote, local)}
            self.later(DELAY, lambda: side.other.agent.disconnected(remote, local, self.now))

    def cut(self) -> None:
        """All connections end at once."""
        for local, remote in sorted(self.connections):
            side = next(side for side in self.sides if local in side.bases)
            side.agent.disconnected(local, remote, self.now)
        self.connections.clear()

    def _connect(self, side: IceSide, local: Address, remote: Address) -> None:
        self.connections |= {(local, remote), (remote, local)}
        side.other.agent.connected(remote, local, self.now)
        side.agent.connected(local, remote, self.now)

    def run(self, seconds: float, *, each_step: Callable[[], None] = lambda: None) -> None:
        """Let `seconds` pass; `each_step` is called after everything that happens."""
        end = self.now + seconds
        self._poll()
        while (at := self._next()) is not None and at <= end:
            self.now = max(self.now, at)
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            for side in self.sides:
                due = side.agent.next_timeout()
                if due is not None and due <= self.now:
                    side.agent.handle_timeout(self.now)
            self._poll()
            each_step()
        self.now = end

    def _poll(self) -> None:
        for side in self.sides:
            side.poll()

    def _next(self) -> float | None:
        times = [side.agent.next_timeout() for side in self.sides]
        if self._queue:
            times.append(self._queue[0][0])
        return min((time for time in times if time is not None), default=None)
