"""When a pair gets a link with larger packets beside the one that it has, and how large they are to be."""

from __future__ import annotations

from msgspec import Struct, field

from crowline.ice.pair import PairKey
from crowline.link.quic_packets import DATAGRAM_SIZE, MAX_DATAGRAM_SIZE

# Bytes that a direct pair may have carried when it gets larger packets without further reason, so that bulk
# finds them; and how often that may come to nothing: a narrow path takes one handshake for each size.
EARLY = 1 << 20
_EARLY_TRIES = 4
# Bytes that a pair must have carried, and bytes a second at which it did so, later on. Larger packets save
# work of both machines and of a relay; on a slower path they save little, and a new connection has to find
# its rate anew. That takes round trips: where they are shorter than so many seconds, it pays sooner.
WORTH = 8 << 20
FAST = 32e6
_LONG_RTT = 0.02
_SOONEST = 1 / 8
# The same after a link with larger packets has fallen silent while the path went on, times that each time.
_MORE_EACH_TIME = 64
# UDP payloads that come through where the network of this machine lets larger ones out: Ethernet under IPv4
# and under IPv6, and most tunnels.
_USUAL_SIZES = (1472, 1452, 1372)
# Handshakes at one size that may fail without a known reason.
_TRIES = 4
# Pairs remembered: more than a meeting uses in an hour.
_MOST_PAIRS = 64


class _Tries(Struct):
    failures: dict[int, int] = field(default_factory=dict)
    worth: int = field(default_factory=lambda: WORTH)
    early: int = 0


class Growth:
    """What was tried on each pair."""

    def __init__(self) -> None:
        self._pairs: dict[PairKey, _Tries] = {}

    def worth(self, pair: PairKey) -> int:
        """Bytes to be carried before the next try."""
        return self._of(pair).worth

    def is_worth(self, pair: PairKey, seconds: float, rtt: float) -> bool:
        """Whether so many bytes in that time, with that least round trip, are reason for a try."""
        return self._of(pair).worth >= FAST * min(1.0, max(_SOONEST, rtt / _LONG_RTT)) * seconds

    def next_size(self, pair: PairKey, limit: int) -> int | None:
        """The largest size that is worth a try, where this machine lets `limit` bytes out; None: no more."""
        tries, limit = self._of(pair), min(limit, MAX_DATAGRAM_SIZE)
        for size in (limit, *(usual for usual in _USUAL_SIZES if usual < limit)):
            if size > DATAGRAM_SIZE and tries.failures.get(size, 0) < _TRIES:
                return size
        return None

    def early_size(self, pair: PairKey, limit: int) -> int | None:
        """The same before there is any bulk. Counts as a try."""
        tries = self._of(pair)
        if tries.early >= _EARLY_TRIES:
            return None
        tries.early += 1
        return self.next_size(pair, limit)

    def failed(self, pair: PairKey, size: int, *, is_too_large: bool) -> None:
        """A link never came up in which this side's packets had that size.

        Where they are not known to be too large, the other side's may have been, or a packet of the handshake
        got lost, perhaps because it was too large: then the same is tried again.
        """
        tries = self._of(pair)
        tries.failures[size] = tries.failures.get(size, 0) + (_TRIES if is_too_large else 1)

    def fell(self, pair: PairKey, size: int) -> None:
        """A link of that size was up and carries nothing more."""
        tries = self._of(pair)
        tries.failures[size] = _TRIES - 1
        tries.early = _EARLY_TRIES
        tries.worth *= _MORE_EACH_TIME

    def start_over(self) -> None:
        """The network is another one."""
        self._pairs.clear()

    def _of(self, pair: PairKey) -> _Tries:
        found = self._pairs.get(pair)
        if found is None:
            if len(self._pairs) >= _MOST_PAIRS:
                del self._pairs[next(iter(self._pairs))]
            found = self._pairs[pair] = _Tries()
        return found
