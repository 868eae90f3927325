"""How long an idle mapping lives: RFC 5780 §4.6, with one socket for each time, all of them at once.

Every socket but one, the asker, sends a single request and falls silent. When its time has come, the asker
asks the server to answer to that socket's outside port (RESPONSE-PORT): the answer arrives while the mapping
lives. The search takes as long as the mapping lives and ends with the first that is dead. Its first socket is
asked for at once, for a server that does not know RESPONSE-PORT would make every mapping look dead.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.stun.attributes import ErrorCode, MappedAddress, ResponsePort, XorMappedAddress
from crowline.stun.message import TRANSACTION_ID_SIZE, MalformedStun, Message, MessageClass, Method, parse
from crowline.stun.nat_discovery import QUICK, BasesWanted
from crowline.stun.nat_findings import Reason
from crowline.stun.transaction import Transaction

WAITS = (1.0, 25.0, 35.0, 50.0, 80.0, 110.0, 150.0, 200.0, 330.0)
"""Seconds of silence, between the lifetimes that are common: 30, 40, 60, 120, 180 and 300 s. The first is the
control. Nine sockets and the asker, three times each at most, and the nine questions: 57 packets."""

_ASKER = -1


@dataclass(frozen=True, slots=True)
class LifetimeFound:
    """A mapping lived through `alive` seconds of silence, and one was gone after `dead` seconds.

    ``None`` for `dead`: it outlived the longest test. `reason`: why nothing is known, with both ``None``.
    """

    alive: float | None = None
    dead: float | None = None
    reason: Reason | None = None


LifetimeEvent: TypeAlias = BasesWanted | LifetimeFound


class BindingLifetime:
    """Give it the bases it wants, drive it by the five verbs for some minutes, and take `LifetimeFound`."""

    def __init__(
        self, server: Address, *, entropy: Callable[[int], bytes], waits: Sequence[float] = WAITS
    ) -> None:
        """`waits` are seconds of silence, the shortest first."""
        self.server = server
        self._waits = waits
        self.counters: Counter[str] = Counter()
        self._entropy = entropy
        self._bases: tuple[Address, ...] = ()
        self._openings: dict[bytes, tuple[int, Transaction]] = {}
        self._question: Transaction | None = None
        self._asked_at = 0.0
        self._next = 0  # the number of the socket that is asked for, or will be
        self._mapped: dict[int, Address] = {}
        self._silent_since: dict[int, float] = {}
        self._alive: float | None = None
        self._is_over = False
        self._transmits: deque[Transmit] = deque()
        self._events: deque[LifetimeEvent] = deque([BasesWanted(len(waits) + 1)])

    def start(self, bases: tuple[Address, ...], now: float) -> None:
        """Begin with these fresh sockets.

        Raises `UsageError` when they are not as many as wanted and different, and for a second start.
        """
        wanted = len(self._waits) + 1
        if self._bases or len(set(bases)) != wanted or len(bases) != wanted:
            raise UsageError(f"a lifetime is measured once, from {wanted} sockets")
        self._bases = bases
        for index in (_ASKER, *range(len(self._waits))):
            transaction = self._transaction(bases[index], now)
            self._openings[transaction.transaction_id] = (index, transaction)
        self.handle_timeout(now)

    # --- the five verbs ---------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        try:
            message = parse(data).message
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        is_answer = message.message_class in (MessageClass.SUCCESS, MessageClass.ERROR)
        if not is_answer or message.method is not Method.BINDING or source != self.server:
            self.counters["not_ours"] += 1
            return
        opening = self._openings.get(message.transaction_id)
        question = self._question
        if opening is not None and local == opening[1].local:
            self._opened(*opening, message, now)
        elif question is not None and message.transaction_id == question.transaction_id:
            self._answered(message, local, now)
        else:
            self.counters["not_ours"] += 1

    def handle_timeout(self, now: float) -> None:
        if not self._bases or self._is_over:
            return
        for key, (index, transaction) in list(self._openings.items()):
            if transaction.is_expired(now):
                del self._openings[key]
            else:
                self._send(index, transaction, now)
        if self._openings:
            return
        question = self._question
        if question is None:
            self._ask(now)
        elif question.is_expired(now):
            self._is_dead()
        else:
            self._send(_ASKER, question, now)

    def next_timeout(self) -> float | None:
        if not self._bases or self._is_over:
            return None
        if self._openings:
            return min(transaction.next_timeout() for _, transaction in self._openings.values())
        return self._question.next_timeout() if self._question is not None else self._due()

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> LifetimeEvent | None:
        return self._events.popleft() if self._events else None

    # --- the search -------------------------------------------------------------------------------------

    def _opened(self, index: int, transaction: Transaction, message: Message, now: float) -> None:
        del self._openings[transaction.transaction_id]
        mapped = message.get(XorMappedAddress) or message.get(MappedAddress)
        if message.message_class is MessageClass.SUCCESS and mapped is not None and mapped.address.port:
            self._mapped[index] = mapped.address
        self.handle_timeout(now)

    def _due(self) -> float:
        return self._silent_since[self._next] + self._waits[self._next]

    def _ask(self, now: float) -> None:
        """For the next socket that is known, when its time has come."""
        asker = self._mapped.get(_ASKER)
        if asker is None or not self._is_known(0, asker):
            several = asker is not None and 0 in self._mapped
            self._end(reason=Reason.SEVERAL_ADDRESSES if several else Reason.NO_ANSWER)
            return
        while self._next < len(self._waits) and not self._is_known(self._next, asker):
            self._next += 1
        if self._next == len(self._waits):
            self._end(self._alive)
        elif now >= self._due():
            port = ResponsePort(self._mapped[self._next].port)
            self._asked_at = now
            self._question = self._transaction(self._bases[_ASKER], now, port)
            self._send(_ASKER, self._question, now)

    def _is_known(self, index: int, asker: Address) -> bool:
        """The server answers to the host that it sees asking, and to no other one."""
        return index in self._mapped and self._mapped[index].host == asker.host

    def _answered(self, message: Message, local: Address | None, now: float) -> None:
        if local == self._bases[_ASKER]:
            self._answered_to_asker(message)
        elif local == self._bases[self._next] and message.message_class is MessageClass.SUCCESS:
            self._alive = self._asked_at - self._silent_since[self._next]
            self._question = None
            self._next += 1
            self._ask(now)
        else:
            self.counters["not_ours"] += 1

    def _answered_to_asker(self, message: Message) -> None:
        """A refusal; or the outside port belongs to the asker now (§4.6), or the server does as it likes."""
        if message.get(ErrorCode) is not None:
            reason = Reason.ONE_ADDRESS if self._alive is None else Reason.REFUSED
            self._end(reason=reason)
        elif self._alive is None:
            self._end(reason=Reason.NOT_CHANGED)
        else:
            self._is_dead()

    def _is_dead(self) -> None:
        if self._alive is None:
            self._end(reason=Reason.NOT_CHANGED)
        else:
            self._end(self._alive, self._asked_at - self._silent_since[self._next])

    def _end(
        self, alive: float | None = None, dead: float | None = None, reason: Reason | None = None
    ) -> None:
        self._is_over = True
        self._question = None
        self._events.append(LifetimeFound(alive, dead, reason))

    # --- packets ----------------------------------------------------------------------------------------

    def _transaction(self, base: Address, now: float, *attributes: ResponsePort) -> Transaction:
        key = self._entropy(TRANSACTION_ID_SIZE)
        request = Message(Method.BINDING, MessageClass.REQUEST, key, attributes).encode()
        return Transaction(key, request, self.server, now, schedule=QUICK, local=base)

    def _send(self, index: int, transaction: Transaction, now: float) -> None:
        transmit = transaction.due(now)
        if transmit is not None:
            self._silent_since[index] = now
            self._transmits.append(transmit)
