"""When a pair gets a link with larger packets beside the one that it has, and how large they are to be."""

from __future__ import annotations

from dataclasses import dataclass, field

from crowline.ice.pair import PairKey
from crowline.link.quic_packets import DATAGRAM_SIZE, MAX_DATAGRAM_SIZE

# Bytes that a pair must have carried, and bytes a second at which it did so. Larger packets save work of this
# machine; on a slower path they save nothing, and a new connection has to find out its rate anew.
WORTH = 8 << 20
FAST = 32e6
# The same after a link with larger packets has fallen silent while the path went on, times that each time.
_MORE_EACH_TIME = 64
# The same after a try that failed for the other side's packets: it may have several sizes to try.
_MORE_FOR_OTHERS = 2
# UDP payloads that come through where the network of this machine lets larger ones out: Ethernet under IPv4
# and under IPv6, and most tunnels.
_USUAL_SIZES = (1472, 1452, 1372)
# Handshakes at one size that may fail: one may have lost a packet by chance.
_TRIES = 2
# Pairs remembered: more than a meeting uses in an hour.
_MOST_PAIRS = 64


@dataclass(slots=True)
class _Tries:
    failures: dict[int, int] = field(default_factory=dict)
    worth: int = field(default_factory=lambda: WORTH)


class Growth:
    """What was tried on each pair."""

    def __init__(self) -> None:
        self._pairs: dict[PairKey, _Tries] = {}

    def worth(self, pair: PairKey) -> int:
        """Bytes to be carried before the next try."""
        return self._of(pair).worth

    def is_worth(self, pair: PairKey, seconds: float) -> bool:
        """Whether so many bytes in that time are reason for a try."""
        return self._of(pair).worth >= FAST * seconds

    def next_size(self, pair: PairKey, limit: int) -> int | None:
        """The largest size that is worth a try, where this machine lets `limit` bytes out; None: no more."""
        tries, limit = self._of(pair), min(limit, MAX_DATAGRAM_SIZE)
        for size in (limit, *(usual for usual in _USUAL_SIZES if usual < limit)):
            if size > DATAGRAM_SIZE and tries.failures.get(size, 0) < _TRIES:
                return size
        return None

    def failed(self, pair: PairKey, size: int, *, is_ours: bool) -> None:
        """A link never came up in which this side's packets had that size.

        Where the other side's packets were too large (not `is_ours`), that one knows; the next try is for it.
        """
        tries = self._of(pair)
        if is_ours:
            tries.failures[size] = tries.failures.get(size, 0) + 1
        else:
            tries.worth *= _MORE_FOR_OTHERS

    def fell(self, pair: PairKey, size: int) -> None:
        """A link of that size was up and carries nothing more."""
        tries = self._of(pair)
        tries.failures[size] = _TRIES - 1
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
