"""Signed requests under way: sent until answered, repeated with a new nonce, their answers verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.stun.attributes import AlternateDomain, AlternateServer, AnyAttribute, ErrorCode
from crowline.stun.message import TRANSACTION_ID_SIZE, Message, MessageClass, Method, Received
from crowline.stun.transaction import Schedule, Transaction
from crowline.turn.codes import BAD_REQUEST, REQUEST_TIMEOUT, STALE_NONCE, TRY_ALTERNATE, UNAUTHORIZED
from crowline.turn.credentials import MAX_STALE_IN_A_ROW, LongTermCredentials, is_stripped

INTEGRITY_VIOLATED = "the answers are not signed by a server that knows our password"


@dataclass(slots=True)
class Channel:
    """A channel of the client: asked for, or `bound`, and when to bind it again."""

    number: int
    peer: Address
    bound: bool = False
    rebind_at: float | None = None


@dataclass(slots=True)
class Request:
    """What is asked of the server, and about whom; enough to ask again with another nonce."""

    method: Method
    attributes: tuple[AnyAttribute, ...]
    peers: tuple[Address, ...] = ()
    channel: Channel | None = None
    nonce: str | None = field(default=None, init=False)
    stale: int = field(default=0, init=False)
    violated: bool = field(default=False, init=False)
    """Whether an answer came that was not signed as it should be."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended: with `message` of success, or with an error `code` and its reason."""

    request: Request
    message: Message | None = None
    code: int = 0
    reason: str = ""
    alternate: Address | None = None
    domain: str = ""


class Requests:
    """Requests to one server with one user's credentials. `transmits` takes what is to be sent."""

    def __init__(
        self,
        server: Address,
        credentials: LongTermCredentials,
        *,
        entropy: Callable[[int], bytes],
        schedule: Schedule,
        transmit: Callable[[Transmit], None],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._server = server
        self._credentials = credentials
        self._entropy = entropy
        self._schedule = schedule
        self._is_reliable = schedule.rc == 1
        self._transmit = transmit
        self._pending: dict[bytes, tuple[Request, Transaction]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def send(self, request: Request, now: float) -> None:
        """Sign and send a request with a transaction of its own."""
        transaction_id = self._entropy(TRANSACTION_ID_SIZE)
        message = Message(request.method, MessageClass.REQUEST, transaction_id, request.attributes)
        request.nonce = self._credentials.nonce
        transaction = Transaction(
            transaction_id, self._credentials.sign(message), self._server, now, schedule=self._schedule
        )
        self._pending[transaction_id] = (request, transaction)
        self._send_due(transaction, now)

    def receive(self, received: Received, now: float) -> Outcome | None:
        """What a response means; ``None`` if it is not believed, or if the request goes on."""
        message = received.message
        request, _ = self._pending.get(message.transaction_id, (None, None))
        if request is None or message.method is not request.method:
            self.counters["not_ours"] += 1
            return None
        is_error = message.message_class is MessageClass.ERROR
        error = message.get(ErrorCode) if is_error else None
        if error is not None and error.code in (UNAUTHORIZED, STALE_NONCE):
            del self._pending[message.transaction_id]
            return self._take_challenge(request, received, error, now)
        if (is_error and error is None) or not self._is_believed(request, received, error):
            return self._on_unverified(request, received, error)
        del self._pending[message.transaction_id]
        if error is not None:
            alternate = message.get(AlternateServer)
            target = alternate.address if alternate is not None else None
            domain = message.get(AlternateDomain)
            name = domain.value if domain is not None else ""
            return Outcome(request, None, error.code, error.reason, target, name)
        if received.unknown_required:
            return Outcome(request, None, BAD_REQUEST, "the answer cannot be understood")
        return Outcome(request, message)

    def handle_timeout(self, now: float) -> list[Outcome]:
        """Send what is due again; the requests that nobody answered."""
        outcomes = []
        for transaction_id, (request, transaction) in list(self._pending.items()):
            if transaction.is_expired(now):
                del self._pending[transaction_id]
                reason = INTEGRITY_VIOLATED if request.violated else "the server does not answer"
                outcomes.append(Outcome(request, None, REQUEST_TIMEOUT, reason))
            else:
                self._send_due(transaction, now)
        return outcomes

    def next_timeout(self) -> float | None:
        return min((t.next_timeout() for _, t in self._pending.values()), default=None)

    def clear(self) -> None:
        """Forget all requests; their answers will be nobody's."""
        self._pending.clear()

    def _send_due(self, transaction: Transaction, now: float) -> None:
        transmit = transaction.due(now)
        if transmit is not None:
            self._transmit(transmit)

    def _take_challenge(
        self, request: Request, received: Received, error: ErrorCode, now: float
    ) -> Outcome | None:
        request.stale += error.code == STALE_NONCE
        if request.stale <= MAX_STALE_IN_A_ROW and self._credentials.take_challenge(
            error.code, received, request.nonce
        ):
            self.send(request, now)
            return None
        return Outcome(request, None, error.code, error.reason or "the credentials are not accepted")

    def _on_unverified(self, request: Request, received: Received, error: ErrorCode | None) -> Outcome | None:
        """RFC 8489 §9.2.5: what does not verify may be forged. Over UDP the true answer may still come, over
        a stream nothing more does; a bare 400 never ends a request."""
        self.counters["unverified"] += 1
        if error is not None and error.code == BAD_REQUEST and not received.is_signed:
            return None
        request.violated = request.nonce is not None
        if not (self._is_reliable and request.violated):
            return None
        del self._pending[received.message.transaction_id]
        return Outcome(request, None, REQUEST_TIMEOUT, INTEGRITY_VIOLATED)

    def _is_believed(self, request: Request, received: Received, error: ErrorCode | None) -> bool:
        """Signed requests get signed answers. To an unsigned one any error but 300 and 400 counts."""
        if is_stripped(received):
            return False
        if request.nonce is not None:
            return self._credentials.verify(received)
        return error is None or error.code not in (TRY_ALTERNATE, BAD_REQUEST)
