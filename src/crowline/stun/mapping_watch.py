"""How long mappings live, by asking again from the same socket: any STUN server will do.

A socket whose outside address is another one than before had lost its mapping. That needs a translator that
does not keep ports: one that does gives the next mapping the same address, and nothing shows. There
`stun/binding_lifetime.py` is better, with a server that has RESPONSE-PORT.

Two kinds of lifetimes are watched alike. A mapping that is idle lives for some time after the last packet:
each socket asks once more after another silence (`IDLE`). Some mobile carriers end a mapping also while it is
in use: one socket asks every few seconds (`BUSY`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.stun.attributes import MappedAddress, XorMappedAddress
from crowline.stun.binding_lifetime import WAITS, LifetimeEvent, LifetimeFound
from crowline.stun.message import TRANSACTION_ID_SIZE, MalformedStun, Message, MessageClass, Method, parse
from crowline.stun.nat_discovery import QUICK, BasesWanted
from crowline.stun.nat_findings import Reason
from crowline.stun.transaction import Transaction

IDLE = tuple((wait,) for wait in WAITS)
"""Silences before the questions of each socket, in seconds."""
# Short beside the shortest lifetime that is common, 30 s, and as long in all as the longest silence.
BUSY = ((5.0,) * 66,)
MAX_MISSES = 3  # questions in a row without an answer, after which a socket is given up


class MappingWatch:
    """Give it the bases it wants, drive it by the five verbs for some minutes, and take `LifetimeFound`.

    `silences` has one row for each socket. With `since_first` a life counts from a socket's first packet,
    else from its last one before the silence.
    """

    def __init__(
        self,
        server: Address,
        silences: Sequence[Sequence[float]],
        *,
        since_first: bool,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.server = server
        self.counters: Counter[str] = Counter()
        self._silences = silences
        self._since_first = since_first
        self._entropy = entropy
        self._lanes: list[_Lane] = []
        self._is_over = False
        self._transmits: deque[Transmit] = deque()
        self._events: deque[LifetimeEvent] = deque([BasesWanted(len(silences))])

    def start(self, bases: tuple[Address, ...], now: float) -> None:
        """Begin with these fresh sockets; with fewer than wanted the last silences are left out.

        Raises `UsageError` for none, for two that are the same, and for a second start.
        """
        if self._lanes or not bases or len(set(bases)) != len(bases):
            raise UsageError("a watch starts once, and needs sockets, each of them once")
        pairs = zip(bases, self._silences, strict=False)
        self._lanes = [_Lane(self.server, base, silences, self._entropy, now) for base, silences in pairs]
        self.handle_timeout(now)

    # --- the five verbs ---------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        try:
            message = parse(data).message
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        lane = next((lane for lane in self._lanes if lane.base == local and lane.asked(message)), None)
        if lane is None or source != self.server or message.method is not Method.BINDING:
            self.counters["not_ours"] += 1
            return
        mapped = message.get(XorMappedAddress) or message.get(MappedAddress)
        if message.message_class is not MessageClass.SUCCESS or mapped is None or mapped.address.port == 0:
            self.counters["without_address"] += 1
            return
        lane.answered(mapped.address, self._since_first)
        self.handle_timeout(now)

    def handle_timeout(self, now: float) -> None:
        if self._is_over:
            return
        for lane in self._lanes:
            transmit = lane.due(now)
            if transmit is not None:
                self._transmits.append(transmit)
        if self._lanes and not any(lane.is_new for lane in self._lanes):
            self._conclude()

    def next_timeout(self) -> float | None:
        if self._is_over:
            return None
        return min((at for lane in self._lanes if (at := lane.next_timeout()) is not None), default=None)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> LifetimeEvent | None:
        return self._events.popleft() if self._events else None

    # --- what follows -----------------------------------------------------------------------------------

    def _conclude(self) -> None:
        """End when nothing can be seen, when a mapping was lost, and when all have been asked."""
        reason = self._why_not()
        dead = min((lane.dead for lane in self._lanes if lane.dead is not None), default=None)
        if reason is None and dead is None and not all(lane.is_over for lane in self._lanes):
            return
        lives = [lane.alive for lane in self._lanes if lane.alive is not None]
        alive = max((life for life in lives if dead is None or life < dead), default=None)
        if reason is None and alive is None and dead is None:
            reason = Reason.NO_ANSWER
        self._is_over = True
        self._events.append(LifetimeFound(alive, dead) if reason is None else LifetimeFound(reason=reason))

    def _why_not(self) -> Reason | None:
        known = [lane for lane in self._lanes if lane.mapped is not None]
        if not known:
            return Reason.NO_ANSWER
        if all(lane.mapped == lane.base for lane in known):
            return Reason.NO_TRANSLATION
        if any(lane.mapped is not None and lane.mapped.port == lane.base.port for lane in known):
            return Reason.KEPT_PORTS
        return None


class _Lane:
    """One socket: it asks, is silent, and asks again."""

    def __init__(
        self,
        server: Address,
        base: Address,
        silences: Sequence[float],
        entropy: Callable[[int], bytes],
        now: float,
    ) -> None:
        self.base = base
        self.mapped: Address | None = None
        self.alive: float | None = None
        self.dead: float | None = None
        self._server = server
        self._entropy = entropy
        self._silences = deque(silences)
        self._first = self._last = now
        # Where the life began that the open question asks about.
        self._since = now
        self._misses = 0
        self._at: float | None = now
        self._question: Transaction | None = None

    @property
    def is_new(self) -> bool:
        """Whether its first question is still open."""
        return self.mapped is None and not self.is_over

    @property
    def is_over(self) -> bool:
        return self._question is None and self._at is None

    def asked(self, message: Message) -> bool:
        return self._question is not None and self._question.transaction_id == message.transaction_id

    def answered(self, mapped: Address, since_first: bool) -> None:
        assert self._question is not None
        started = self._question.started
        life = started - (self._first if since_first else self._since)
        self._question = None
        self._misses = 0
        if self.mapped is None:
            self.mapped = mapped
        elif mapped != self.mapped:
            self.dead = life
            self._silences.clear()
        else:
            self.alive = life
        self._plan()

    def due(self, now: float) -> Transmit | None:
        """What is to be sent now."""
        if self._question is None and self._at is not None and now >= self._at:
            self._ask(now)
        if self._question is None:
            return None
        if self._question.is_expired(now):
            self._question = None
            self._misses += 1
            if self.mapped is None or self._misses == MAX_MISSES:
                self._silences.clear()
            self._plan()
            return None
        transmit = self._question.due(now)
        if transmit is not None:
            self._last = now
        return transmit

    def next_timeout(self) -> float | None:
        return self._question.next_timeout() if self._question is not None else self._at

    def _ask(self, now: float) -> None:
        key = self._entropy(TRANSACTION_ID_SIZE)
        request = Message(Method.BINDING, MessageClass.REQUEST, key).encode()
        self._since, self._at = self._last, None
        self._question = Transaction(key, request, self._server, now, schedule=QUICK, local=self.base)

    def _plan(self) -> None:
        self._at = self._last + self._silences.popleft() if self._silences else None
