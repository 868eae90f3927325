"""The short way of challenges: the 401 to an Allocate that asks for UDP and nothing else, as most begin.

It is the answer that `TurnServer` gives, byte for byte and within the same budget, without an object for each
part of it: a server that is flooded with such requests has time for its users.
"""

from __future__ import annotations

from collections import Counter

from crowline.base.addresses import Address
from crowline.stun.attributes import ErrorCode, RequestedTransport
from crowline.stun.budget import MAX_AMPLIFICATION, ReplyBudget
from crowline.stun.message import HEADER_SIZE, TRANSACTION_ID_SIZE, Message, MessageClass, Method
from crowline.stun.sources import is_plausible_source
from crowline.turn.auth import Authenticator
from crowline.turn.codes import UNAUTHORIZED

_SOMEBODY = Address("192.0.2.1", 1)
_NO_TRANSACTION = bytes(TRANSACTION_ID_SIZE)
_ID_AT = HEADER_SIZE - TRANSACTION_ID_SIZE
_PLAINEST = Message(
    Method.ALLOCATE, MessageClass.REQUEST, _NO_TRANSACTION, (RequestedTransport(17),)
).encode()

PLAIN_ALLOCATE_SIZE = len(_PLAINEST)
PLAIN_ALLOCATE_START = _PLAINEST[:_ID_AT]
PLAIN_ALLOCATE_END = _PLAINEST[HEADER_SIZE:]
"""Such a request is the start, a transaction id and the end."""


class ShortChallenge:
    """Looks at the same budget, and counts in the same place, as the `TurnServer` it belongs to."""

    def __init__(self, authenticator: Authenticator, budget: ReplyBudget, counters: Counter[str]) -> None:
        self._authenticator = authenticator
        self._budget = budget
        self._counters = counters
        nonce = authenticator.nonce(_SOMEBODY, 0.0)
        attributes = (ErrorCode(UNAUTHORIZED), *authenticator.challenge(_SOMEBODY, 0.0))
        example = Message(Method.ALLOCATE, MessageClass.ERROR, _NO_TRANSACTION, attributes).encode()
        before, self._after = example.split(nonce.encode(), 1)
        self._start, self._before = before[:_ID_AT], before[HEADER_SIZE:]
        self._is_small = len(example) <= MAX_AMPLIFICATION * PLAIN_ALLOCATE_SIZE

    def answer(self, transaction_id: bytes, client: Address, now: float) -> bytes | None:
        """What `client` gets for such a request over UDP; ``None`` where the long way says what to do."""
        if not self._is_small or not is_plausible_source(client) or not self._budget.take(client, now):
            return None
        self._counters[f"rejected_{UNAUTHORIZED}"] += 1
        nonce = self._authenticator.nonce(client, now).encode()
        return b"".join((self._start, transaction_id, self._before, nonce, self._after))
