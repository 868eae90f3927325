"""Candidate pairs: those to be checked, and those that have proven to work (RFC 8445 §6.1.2, §7.2.5.3)."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.ice.candidate import Candidate, CandidateType, TcpType
from crowline.ice.states import TRANSITIONS, PairInput, PairState

MAX_NOMINATIONS = 3  # nominating checks of one pair that may go unanswered before it is passed over for good
RTT_GAIN = 0.125  # weight of a new sample in the smoothed round-trip time (RFC 6298 §2)

# Private, link-local, unique local and loopback: where both ends have such an address, they are neighbours.
_LOCAL_RANGES = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8",
        "fc00::/7", "fe80::/10", "::1/128",
    )
)  # fmt: skip

PairKey = tuple[Address, Address]  # local base, remote address


class Way(NamedTuple):
    """What packets of a pair take: there is at most one pair, and one TCP connection, for each."""

    base: Address
    remote: Address
    transport: Transport = Transport.UDP

    def transmit(self, data: Buffer) -> Transmit:
        """One packet; on a stream, whoever drives the agent frames it (RFC 4571)."""
        return Transmit(data, self.remote, self.base, transport=self.transport)


def pair_priority(controlling: int, controlled: int) -> int:
    """RFC 8445 §6.1.2.3, from the candidate priorities of the controlling and the controlled side."""
    low, high = min(controlling, controlled), max(controlling, controlled)
    return (low << 32) + 2 * high + (1 if controlling > controlled else 0)


@dataclass(slots=True, eq=False)
class CandidatePair:
    """A pair of the check list. Pairs are equal only to themselves."""

    local: Candidate
    remote: Candidate
    priority: int = 0
    state: PairState = PairState.FROZEN
    # The controlling side asked for this pair before our own check had succeeded (RFC 8445 §7.3.1.5).
    nominate_on_success: bool = False
    # Our USE-CANDIDATE check for it is queued or on its way.
    nominating: bool = False
    # The request that nominated it; its retransmissions say nothing new.
    nominated_by: bytes = b""
    # The rank of its nomination (`IceSession.rank_nomination`): a lower one does not undo a higher one.
    nomination: int = 0
    # Role conflicts answered so far; a peer that only ever answers 487 is given up.
    conflicts: int = 0
    # Nominating checks of ours that nobody answered, and when the last of them was abandoned.
    nominations_failed: int = 0
    nomination_failed_at: float = 0.0
    # Consent ended: only new credentials may bring this pair back (RFC 7675 §5.1).
    revoked: bool = False
    first_checked: float | None = None
    # Is told of every move from one state to another, with the state before and the cause.
    on_move: Callable[[CandidatePair, PairState, PairInput], None] | None = field(default=None, repr=False)

    @property
    def base(self) -> Address:
        return self.local.sending_base

    @property
    def key(self) -> PairKey:
        return (self.local.sending_base, self.remote.address)

    @property
    def way(self) -> Way:
        return Way(self.local.sending_base, self.remote.address, self.local.protocol)

    @property
    def is_passive(self) -> bool:
        """Whether only the other side can open its connection."""
        return self.local.tcp_type is TcpType.PASSIVE

    @property
    def foundation(self) -> tuple[str, str]:
        return (self.local.foundation, self.remote.foundation)

    def has_overtaken(self, rank: int | None) -> bool:
        """Whether a nomination of that rank comes too late: one that counts as much is known."""
        return rank is not None and rank <= self.nomination

    def apply(self, cause: PairInput) -> None:
        """Move on as the table of states says."""
        before, self.state = self.state, TRANSITIONS[self.state, cause]
        if self.on_move is not None and self.state is not before:
            self.on_move(self, before, cause)

    def prioritise(self, controlling: bool) -> None:
        """Compute the priority for our role; again after every change of it."""
        ours, theirs = self.local.priority, self.remote.priority
        self.priority = pair_priority(ours, theirs) if controlling else pair_priority(theirs, ours)


@dataclass(slots=True, eq=False)
class ValidPair:
    """A pair that an authenticated exchange has proven in both directions.

    `local.address` is our side as the other side sees it; packets leave by `base`. `rtt` is the smoothed
    round-trip time in seconds, ``None`` until a reply could be matched to one transmission. `proven_at` is
    the time of the last authenticated answer.
    """

    local: Candidate
    remote: Candidate
    checked: CandidatePair
    rtt: float | None = None
    nominated: bool = False
    proven_at: float = 0.0
    # Its connection carries something else than ICE from now on.
    handed_over: bool = False

    @property
    def base(self) -> Address:
        return self.local.sending_base

    @property
    def key(self) -> PairKey:
        return (self.local.sending_base, self.remote.address)

    @property
    def way(self) -> Way:
        return Way(self.local.sending_base, self.remote.address, self.local.protocol)

    @property
    def transport(self) -> Transport:
        """How packets of this pair travel: what `Transmit.transport` is to be."""
        return self.local.protocol

    @property
    def priority(self) -> int:
        """That of the pair whose check produced it, so that both lists order alike."""
        return self.checked.priority

    @property
    def may_be_nominated(self) -> bool:
        """Not when a nomination got no answer and nothing has proven the pair since, or too often.

        Nor where there is no way left to say it by.
        """
        if self.handed_over:
            return False
        failed = self.checked.nominations_failed
        if failed == 0:
            return True
        return failed < MAX_NOMINATIONS and self.proven_at > self.checked.nomination_failed_at

    @property
    def kind(self) -> str:
        """``relay`` when either end is relayed, ``lan`` between neighbours, else ``direct``."""
        if CandidateType.RELAYED in (self.local.type, self.remote.type):
            return "relay"
        return "lan" if _are_neighbours(self.local.address.host, self.remote.address.host) else "direct"

    def measure(self, sample: float) -> None:
        """Take a round-trip time into account."""
        self.rtt = sample if self.rtt is None else self.rtt + RTT_GAIN * (sample - self.rtt)


@functools.lru_cache(maxsize=1024)
def _are_neighbours(one: str, other: str) -> bool:
    """Both in local address space, in the same IPv6 /64, or one and the same host."""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    if first == second or first.is_loopback or second.is_loopback:
        return True
    if first.version == second.version == 6 and first.packed[:8] == second.packed[:8]:
        return True
    return _is_local(first) and _is_local(second)


def _is_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in _LOCAL_RANGES)
