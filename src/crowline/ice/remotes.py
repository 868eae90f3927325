"""The other side's candidates: signalled or found by their checks, judged, and bounded."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import replace

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.ice.candidate import COMPONENT, COUNTERPART, Candidate, CandidateType, TcpType, is_usable
from crowline.ice.events import Oddity

MAX_REMOTE_CANDIDATES = 64  # signalled ones; RFC 8445 §6.1.2.5 leaves the number to us
# A real peer has one or two for each of its bases. Whoever replays a captured check from many sources gets
# no more than these, and each has to answer a check of its own before it counts.
MAX_PEER_REFLEXIVE = 16

_HIGHEST_PRIORITY = 2**31 - 1  # RFC 8445 §5.1.2

_Key = tuple[Address, Transport, TcpType | None]


@functools.lru_cache(maxsize=4096)
def permits_unicast(address: Address) -> bool:
    """The least strict policy: anything that a datagram to one host can be sent to.

    Of an IPv4-mapped address (RFC 4291 §2.5.5.2) the one inside is judged: that is where packets end.
    """
    host = ipaddress.ip_address(address.host)
    if isinstance(host, ipaddress.IPv6Address):
        host = host.ipv4_mapped or host
    is_broadcast = host.version == 4 and host.packed == b"\xff\xff\xff\xff"
    return address.port != 0 and not (host.is_multicast or host.is_unspecified or is_broadcast)


class RemoteCandidates:
    """All candidates of the other side by address.

    `permits` judges every address before anything is sent to it, peer-reflexive ones too.
    """

    def __init__(self, permits: Callable[[Address], bool]) -> None:
        self._permits = permits
        self._signalled: dict[_Key, Candidate] = {}
        self._reflexive: dict[_Key, Candidate] = {}
        self._learned = 0

    def __iter__(self) -> Iterator[Candidate]:
        """The signalled ones; a peer-reflexive one is paired only where its check arrived (§7.3.1.4)."""
        return iter(self._signalled.values())

    def add(self, candidate: Candidate) -> Candidate | None:
        """Take a signalled candidate in; ``None`` when it is redundant, refused or one too many.

        One that is known as peer-reflexive becomes what it was signalled as.
        """
        key = _key_of(candidate)
        if key in self._signalled or len(self._signalled) >= MAX_REMOTE_CANDIDATES:
            return None
        if not is_usable(candidate):
            return None
        if not 0 < candidate.priority <= _HIGHEST_PRIORITY or not self._permits(candidate.address):
            return None
        kept = replace(candidate, base=None)
        self._reflexive.pop(key, None)
        self._signalled[key] = kept
        return kept

    def objection(self, candidate: Candidate) -> Oddity | None:
        """What is odd about a candidate that was not taken in; nothing about one that is merely redundant."""
        if not self._permits(candidate.address):
            return Oddity.FORBIDDEN_CANDIDATE
        full = len(self._signalled) >= MAX_REMOTE_CANDIDATES and _key_of(candidate) not in self._signalled
        return Oddity.TOO_MANY_CANDIDATES if full else None

    def remove(self, address: Address, transport: Transport) -> None:
        """Forget the candidates at `address`."""
        for known in (self._signalled, self._reflexive):
            for key in [key for key in known if key[:2] == (address, transport)]:
                del known[key]

    def forget_learned(self, candidate: Candidate) -> None:
        """Nothing comes from a peer-reflexive candidate any more."""
        self._reflexive.pop(_key_of(candidate), None)

    def clear(self) -> None:
        """Forget all: a restart has them told anew."""
        self._signalled.clear()
        self._reflexive.clear()

    def learn(self, address: Address, priority: int, local: Candidate) -> Candidate | None:
        """The candidate that an authenticated check came from, to our `local` one (RFC 8445 §7.3.1.3)."""
        tcp_type = COUNTERPART[local.tcp_type]
        key = (address, local.protocol, tcp_type)
        known = self._signalled.get(key) or self._reflexive.get(key)
        if known is not None:
            return known
        if len(self._reflexive) >= MAX_PEER_REFLEXIVE or not 0 < priority <= _HIGHEST_PRIORITY:
            return None
        if not self._permits(address):
            return None
        self._learned += 1
        # The colon is no ice-char: such a foundation never equals a signalled one.
        foundation = f"prflx:{self._learned}"
        kind = CandidateType.PEER_REFLEXIVE
        candidate = Candidate(
            foundation, COMPONENT, local.transport, priority, address, kind, tcp_type=tcp_type
        )
        self._reflexive[key] = candidate
        return candidate


def _key_of(candidate: Candidate) -> _Key:
    return candidate.address, candidate.protocol, candidate.tcp_type
