"""How many answers a source gets that has not proven that it is one.

Whoever forges a source address turns a server's answers into a stream at somebody else. The answers are
about as small as the questions, so a server gains the forger nothing but cover; the budget bounds what one
victim can get from it. The key is the IPv4 address or the IPv6 /64, without the port.

The table has a fixed size: a flood from a million forged sources takes no more memory than none. Sources
that fall into one slot share it; the hash is keyed, so that nobody can aim at a slot.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.stun.attributes import packed_host

# No answer to a source that is not proven has more than so many times the bytes of the request: QUIC's rule,
# RFC 9000 §8.1.
MAX_AMPLIFICATION = 3
SLOTS = 1 << 14  # 256 KiB


@dataclass(frozen=True, slots=True)
class Allowance:
    """`rate` answers a second in the long run, `burst` at once."""

    rate: float
    burst: float


# A site of a hundred clients behind one NAT, all starting at once, asks about five times each. A victim gets
# at most 100 answers/s of 60 bytes on the wire, 48 kbit/s: less than one voice call, and 1.25 times
# what the forger sent itself.
BINDING = Allowance(rate=100.0, burst=500.0)

# 401 and its like are three times as big as the smallest request, and a client needs one in ten minutes.
CHALLENGE = Allowance(rate=10.0, burst=20.0)


class ReplyBudget:
    """A token bucket for each source, in a table of fixed size."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._tokens = array("d", [allowance.burst]) * SLOTS
        self._times = array("d", [0.0]) * SLOTS

    def take(self, source: Address, now: float) -> bool:
        """Whether one more answer to `source` is within the budget."""
        return self.take_at(self.slot_of(source), now)

    def slot_of(self, source: Address) -> int:
        """Where the table counts `source`; it stays the same."""
        return hash(prefix_of(source)) % SLOTS

    def take_at(self, slot: int, now: float) -> bool:
        """`take` for a source whose slot is known."""
        elapsed = max(0.0, now - self._times[slot])
        tokens = min(self._allowance.burst, self._tokens[slot] + elapsed * self._allowance.rate)
        self._times[slot] = now
        if tokens < 1.0:
            self._tokens[slot] = tokens
            return False
        self._tokens[slot] = tokens - 1.0
        return True


def prefix_of(source: Address) -> str | bytes:
    """What one customer of a network has: an IPv4 address or an IPv6 /64. Strings and bytes hash keyed."""
    return packed_host(source.host)[:8] if source.is_ipv6 else source.host
