"""Our own candidates: where checks leave, and as what the other side sees them."""

from __future__ import annotations

from collections.abc import Iterator

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.transport import Transport
from crowline.ice.candidate import COMPONENT, Candidate, CandidateType, TcpType, is_usable

MAX_LOCAL_CANDIDATES = 64

DIALLING = (TcpType.ACTIVE, TcpType.SIMULTANEOUS_OPEN)


class LocalCandidates:
    """Candidates by the base and the transport protocol that they leave by."""

    def __init__(self) -> None:
        self._by_base: dict[tuple[Address, Transport], list[Candidate]] = {}
        self._learned = 0

    def __iter__(self) -> Iterator[Candidate]:
        for candidates in self._by_base.values():
            yield from candidates

    def bases(self, transport: Transport) -> list[Address]:
        return [base for base, protocol in self._by_base if protocol is transport]

    def add(self, candidate: Candidate) -> bool:
        """Take a gathered candidate in. False when it is redundant: same address, same base (§5.1.3)."""
        if not is_usable(candidate):
            raise UsageError("this agent has one component, over UDP and TCP")
        if sum(1 for _ in self) >= MAX_LOCAL_CANDIDATES:
            raise UsageError(f"more than {MAX_LOCAL_CANDIDATES} local candidates")
        siblings = self._by_base.setdefault((candidate.sending_base, candidate.protocol), [])
        known = [(each.address, each.tcp_type) for each in siblings]
        if (candidate.address, candidate.tcp_type) in known:
            return False
        siblings.append(candidate)
        return True

    def remove(self, address: Address, transport: Transport) -> Address | None:
        """Forget the candidates at `address`; where it is a base, all that leave by it.

        Returns a base by which nothing leaves any more.
        """
        if self._by_base.pop((address, transport), None) is not None:
            return address
        for (base, protocol), siblings in self._by_base.items():
            if protocol is not transport:
                continue
            siblings[:] = [candidate for candidate in siblings if candidate.address != address]
            if not siblings:
                del self._by_base[base, protocol]
                return base
        return None

    def senders(self) -> list[Candidate]:
        """The candidates that pairs are made with, one for each base and each way of dialling.

        Nobody dials from a passive one: its pairs are pruned (RFC 6544 §6.2).
        """
        found = []
        for (base, transport), siblings in self._by_base.items():
            for tcp_type in (None,) if transport is Transport.UDP else DIALLING:
                candidate = self._best(base, [each for each in siblings if each.tcp_type is tcp_type])
                if candidate is not None:
                    found.append(candidate)
        return found

    def receiver(self, base: Address, transport: Transport) -> Candidate | None:
        """The candidate whose base a check came to: over TCP one that can be dialled, where there is one."""
        siblings = self._by_base.get((base, transport), [])
        passive = [each for each in siblings if each.tcp_type is TcpType.PASSIVE]
        meeting = [each for each in siblings if each.tcp_type is TcpType.SIMULTANEOUS_OPEN]
        return self._best(base, passive or meeting or siblings)

    def seen_as(self, mapped: Address, sender: Candidate, priority: int) -> Candidate:
        """The candidate that the other side sees as `mapped` when `sender` sends (RFC 8445 §7.2.5.3.1).

        An address that nobody told us is a new peer-reflexive candidate with the `priority` that the check
        announced. The same address under another base is not taken: only this base has been proven.
        """
        base, tcp_type = sender.sending_base, sender.tcp_type
        for candidate in self._by_base.get((base, sender.protocol), ()):
            if candidate.address == mapped and candidate.tcp_type is tcp_type:
                return candidate
        self._learned += 1
        foundation = f"prflx:{self._learned}"  # the colon is no ice-char, so it equals no gathered one
        kind = CandidateType.PEER_REFLEXIVE
        return Candidate(
            foundation, COMPONENT, sender.transport, priority, mapped, kind, base, base, tcp_type
        )

    @staticmethod
    def _best(base: Address, candidates: list[Candidate]) -> Candidate | None:
        """The base itself where it is a candidate.

        A server-reflexive one stands in where the host candidate is kept private (RFC 8445 §6.1.2.4).
        """
        return max(candidates, key=lambda each: (each.address == base, each.priority), default=None)
