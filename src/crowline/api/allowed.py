"""Which candidates and pairs one side uses: its options and the addresses of its machine decide."""

from __future__ import annotations

from collections.abc import Callable

from crowline.api.options import Options
from crowline.base.addresses import Address
from crowline.ice.candidate import Candidate, CandidateType
from crowline.ice.pair import ValidPair
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from crowline.rendezvous.candidates import may_be_checked


class Allowed:
    """`addresses` are this machine's, `loopback` says that the hub is on it too; `meant` gives the address
    that a translated one stands for."""

    def __init__(
        self,
        options: Options,
        addresses: list[str],
        *,
        loopback: bool,
        meant: Callable[[Address], Address],
    ) -> None:
        self.addresses = addresses
        self._options = options
        self._loopback = loopback
        self._meant = meant
        # Relayed addresses of the other side where nothing may go through a server, not even a check.
        self._avoided: dict[Address, None] = {}

    def candidate(self, candidate: Candidate) -> bool:
        """Whether a candidate of this side is told, or one of the other side's taken."""
        return not self._options.relay_only or candidate.type is CandidateType.RELAYED

    def avoids(self, candidate: Candidate) -> bool:
        """Whether to stay away from one of the other side's, by whatever name it comes again."""
        is_avoided = self._options.direct_only and candidate.type is CandidateType.RELAYED
        if is_avoided:
            self._avoided[candidate.address] = None
            if len(self._avoided) > MAX_REMOTE_CANDIDATES:
                del self._avoided[next(iter(self._avoided))]
        return is_avoided

    def check(self, address: Address) -> bool:
        """Whether checks may go there."""
        address = self._meant(address)
        return address not in self._avoided and may_be_checked(
            address, own=self.addresses, loopback=self._loopback
        )

    def pair(self, pair: ValidPair) -> bool:
        """Whether data may go by that pair."""
        if self._options.direct_only:
            return pair.kind != "relay" and self._meant(pair.remote.address) not in self._avoided
        return not self._options.relay_only or pair.kind == "relay"
