"""One pair of addresses that two sides tried, what became of it, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.ice.candidate import CandidateType
from crowline.punch.plan_choice import FilterKind, NatSummary


class Result(Enum):
    """What became of a pair; the values are words for people."""

    WORKS = "works"
    LOST = "worked, and fell silent"
    REFUSED = "not let out"
    SILENT = "no answer"
    OPEN = "not decided yet"
    UNTRIED = "not tried"


@dataclass(frozen=True, slots=True)
class PairTrial:
    """As this side saw it.

    `base` is where its packets left, `local` under which address the other side saw them (the base where
    nobody did), `local_type` and `remote_type` what these two addresses are. `after` and `rtt` are seconds:
    from the first check to the first answer, and the round trip. `problem` is what this machine itself said.
    """

    base: Address
    local: Address
    local_type: CandidateType
    remote: Address
    remote_type: CandidateType
    transport: Transport
    result: Result
    priority: int = 0
    after: float | None = None
    rtt: float | None = None
    problem: SendProblem | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """``srflx⇄host``, ``relay⇄srflx, tcp``: what both ends are."""
        transport = ", tcp" if self.transport.is_stream else ""
        return f"{self.local_type.value}⇄{self.remote_type.value}{transport}"

    @property
    def works(self) -> bool:
        return self.result is Result.WORKS

    @property
    def was_tried(self) -> bool:
        return self.result is not Result.UNTRIED

    @property
    def is_relayed(self) -> bool:
        return CandidateType.RELAYED in (self.local_type, self.remote_type)

    def explained(self, own: NatSummary | None, peer: NatSummary | None) -> PairTrial:
        """This trial with its reason, as far as one follows from what is known of both NATs."""
        return replace(self, reason=_reason(self, own, peer))


def ranked(trials: list[PairTrial]) -> list[PairTrial]:
    """What works first, then by how much each would have been preferred."""
    order = list(Result)
    return sorted(trials, key=lambda each: (order.index(each.result), -each.priority))


def _reason(trial: PairTrial, own: NatSummary | None, peer: NatSummary | None) -> str:
    if trial.result is Result.WORKS:
        return _how(trial)
    if trial.result is Result.UNTRIED:
        return "others worked before its turn came"
    if trial.result is Result.REFUSED:
        return f"this machine did not let it out: {trial.problem.value}" if trial.problem else ""
    if trial.result is Result.LOST:
        return "nothing came by it any more"
    if trial.result is Result.OPEN:
        return "its answer may still come"
    return _silence(trial, own, peer)


def _how(trial: PairTrial) -> str:
    types = (trial.local_type, trial.remote_type)
    if CandidateType.RELAYED in types:
        return "a relay passes it on"
    if trial.transport.is_stream:
        return "a TCP connection came about"
    if CandidateType.PEER_REFLEXIVE in types:
        return "a port that no server had seen let packets in"
    if CandidateType.SERVER_REFLEXIVE in types:
        return "both NATs let the other side's packets in"
    return "nothing translates in between"


def _silence(trial: PairTrial, own: NatSummary | None, peer: NatSummary | None) -> str:
    """Why no answer came."""
    if trial.local_type is CandidateType.RELAYED and _is_closed(trial.remote):
        return "that address is inside of the other side's network, where no relay sends"
    if (network := _without_udp(trial, own, peer)) and not _is_closed(trial.remote):
        return f"no UDP gets out of {network}"
    if trial.is_relayed:
        return "the relay passed nothing on"
    if _is_closed(trial.remote) and not _is_closed(trial.base):
        return "that address means something only in the other side's own network"
    if _is_closed(trial.remote) and trial.remote_type is CandidateType.HOST:
        return "that address is inside of the other side's network, which is not this one"
    if trial.transport.is_stream:
        return "nobody could connect there: a NAT or a firewall drops or refuses it"
    if trial.remote.is_ipv6:
        return "a firewall of one side lets no IPv6 packets of the other in"
    if peer is not None and peer.is_hard:
        return "the other side's NAT is at another port towards this side"
    if own is not None and own.is_hard and (peer is None or peer.filtering is not FilterKind.OPEN):
        return "this side's NAT is at another port than the other side's lets in"
    return "a firewall or a NAT on the way dropped it"


def _without_udp(trial: PairTrial, own: NatSummary | None, peer: NatSummary | None) -> str:
    """Which network kept the packets of this pair, if UDP is known not to get out of one; relays are outside
    of both, and reached by other ways, too."""
    if trial.transport.is_stream:
        return ""
    if own is not None and not own.has_udp and trial.local_type is not CandidateType.RELAYED:
        return "this network"
    if peer is not None and not peer.has_udp and trial.remote_type is not CandidateType.RELAYED:
        return "the other side's network"
    return ""


def _is_closed(address: Address) -> bool:
    return classify(address.host) is not AddressClass.OPEN
