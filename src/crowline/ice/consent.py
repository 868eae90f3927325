"""Consent to keep sending (RFC 7675), and keepalives for pairs that rest (RFC 8445 §11)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct, field

from crowline.ice.checks import Credentials
from crowline.ice.pair import ValidPair

CHECK_INTERVAL = 5.0  # seconds, RFC 7675 §5.1
CHECK_SPREAD = 0.2  # each interval is drawn from 80 % to 120 % of that
EXPIRY = 30.0  # seconds without an authenticated answer after which sending stops
KEEPALIVE_INTERVAL = 15.0  # seconds, RFC 8445 §11: Tr and no less
MAX_OPEN_REQUESTS = 8  # requests of one pair that can be open: those of `EXPIRY` seconds


class Request(Struct, frozen=True):
    """A consent request: when it was sent, once and only once, and which role and whose name it claimed."""

    pair: ValidPair
    sent_at: float
    controlling: bool
    credentials: Credentials


class _Watch(Struct):
    expires: float
    next_check: float
    open: dict[bytes, Request] = field(default_factory=dict)  # by transaction id


class ConsentKeeper:
    """Knows for each pair in use when to ask again and when consent has ended.

    Its user sends the requests. A pair that is valid and not in use gets keepalives while its last proof is
    younger than consent would be; after that nothing.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._watches: dict[ValidPair, _Watch] = {}
        self._keepalives: dict[ValidPair, float] = {}

    def proven(self, pair: ValidPair, now: float) -> None:
        """An authenticated exchange on `pair` just succeeded."""
        pair.proven_at = now
        watch = self._watches.get(pair)
        if watch is not None:
            watch.expires = now + EXPIRY
        else:
            self._keepalives.setdefault(pair, now + KEEPALIVE_INTERVAL)

    def start(self, pair: ValidPair, now: float) -> None:
        """Watch over `pair`; asks at once when the last proof is older than an interval."""
        if pair in self._watches:
            return
        self._keepalives.pop(pair, None)
        next_check = max(now, pair.proven_at + self._interval())
        self._watches[pair] = _Watch(now + EXPIRY, next_check)

    def stop(self, pair: ValidPair) -> None:
        """The user no longer sends on `pair`."""
        self._watches.pop(pair, None)

    def forget(self, pair: ValidPair) -> None:
        """`pair` is lost."""
        self.stop(pair)
        self._keepalives.pop(pair, None)

    def watches(self, pair: ValidPair) -> bool:
        """Whether `pair` is in use."""
        return pair in self._watches

    def next_timeout(self) -> float | None:
        if not self._watches and not self._keepalives:
            return None
        return min(self._deadlines())

    def expired(self, now: float) -> list[ValidPair]:
        """Pairs whose consent has ended."""
        return [pair for pair, watch in self._watches.items() if watch.expires <= now]

    def due(self, now: float) -> list[ValidPair]:
        """Pairs to send a consent request on now; report each with `sent`."""
        return [pair for pair, watch in self._watches.items() if watch.next_check <= now]

    def sent(self, transaction_id: bytes, request: Request) -> None:
        """A request went out; it is never retransmitted."""
        watch = self._watches[request.pair]
        watch.next_check = request.sent_at + self._interval()
        if len(watch.open) >= MAX_OPEN_REQUESTS:
            del watch.open[next(iter(watch.open))]
        watch.open[transaction_id] = request

    def find(self, transaction_id: bytes) -> Request | None:
        """The open request with this id."""
        for watch in self._watches.values():
            if transaction_id in watch.open:
                return watch.open[transaction_id]
        return None

    def close(self, transaction_id: bytes, request: Request) -> None:
        """The request was answered."""
        self._watches[request.pair].open.pop(transaction_id, None)

    def keepalives(self, now: float) -> Iterable[ValidPair]:
        """Pairs to send an indication on now."""
        due = [pair for pair, at in self._keepalives.items() if at <= now]
        for pair in due:
            if now + KEEPALIVE_INTERVAL < pair.proven_at + EXPIRY:
                self._keepalives[pair] = now + KEEPALIVE_INTERVAL
            else:
                del self._keepalives[pair]
        return due

    def _deadlines(self) -> Iterator[float]:
        for watch in self._watches.values():
            yield min(watch.expires, watch.next_check)
        yield from self._keepalives.values()

    def _interval(self) -> float:
        share = int.from_bytes(self._entropy(4), "big") / 0xFFFFFFFF
        return CHECK_INTERVAL * (1 - CHECK_SPREAD + 2 * CHECK_SPREAD * share)
