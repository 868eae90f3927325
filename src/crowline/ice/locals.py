"""Our own candidates: where checks leave, and as what the other side sees them."""

from __future__ import annotations

from collections.abc import Iterator

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.ice.candidate import COMPONENT, UDP, Candidate, CandidateType

MAX_LOCAL_CANDIDATES = 64


class LocalCandidates:
    """Candidates by the base they leave from."""

    def __init__(self) -> None:
        self._by_base: dict[Address, list[Candidate]] = {}
        self._learned = 0

    def __iter__(self) -> Iterator[Candidate]:
        for candidates in self._by_base.values():
            yield from candidates

    @property
    def bases(self) -> list[Address]:
        return list(self._by_base)

    def add(self, candidate: Candidate) -> bool:
        """Take a gathered candidate in. False when it is redundant: same address, same base (§5.1.3)."""
        if candidate.transport != UDP or candidate.component != COMPONENT:
            raise UsageError("this agent has one component over UDP")
        if sum(1 for _ in self) >= MAX_LOCAL_CANDIDATES:
            raise UsageError(f"more than {MAX_LOCAL_CANDIDATES} local candidates")
        siblings = self._by_base.setdefault(candidate.sending_base, [])
        if any(known.address == candidate.address for known in siblings):
            return False
        siblings.append(candidate)
        return True

    def remove(self, address: Address) -> Address | None:
        """Forget the candidate at `address`; where it is a base, all that leave by it.

        Returns a base by which nothing leaves any more.
        """
        if self._by_base.pop(address, None) is not None:
            return address
        for base, siblings in self._by_base.items():
            siblings[:] = [candidate for candidate in siblings if candidate.address != address]
            if not siblings:
                del self._by_base[base]
                return base
        return None

    def sender(self, base: Address) -> Candidate | None:
        """The candidate that pairs of this base are made with: the base itself where it is a candidate.

        A server-reflexive one stands in where the host candidate is kept private (RFC 8445 §6.1.2.4).
        """
        siblings = self._by_base.get(base)
        if not siblings:
            return None
        return max(siblings, key=lambda candidate: (candidate.address == base, candidate.priority))

    def seen_as(self, mapped: Address, sender: Candidate, priority: int) -> Candidate:
        """The candidate that the other side sees as `mapped` when `sender` sends (RFC 8445 §7.2.5.3.1).

        An address that nobody told us is a new peer-reflexive candidate with the `priority` that the check
        announced. The same address under another base is not taken: only this base has been proven.
        """
        base = sender.sending_base
        for candidate in self._by_base.get(base, ()):
            if candidate.address == mapped:
                return candidate
        self._learned += 1
        foundation = f"prflx:{self._learned}"  # the colon is no ice-char, so it equals no gathered one
        return Candidate(
            foundation, COMPONENT, UDP, priority, mapped, CandidateType.PEER_REFLEXIVE, base, base
        )
