"""Why two sides have no direct path, or what made the one that they have: in words for people.

All of it follows from what is known of both NATs, so that both sides, and the lab, say the same. Each
sentence begins small and ends without a full stop: it is part of a longer line.
"""

from __future__ import annotations

from crowline.ice.candidate import CandidateType, TcpType
from crowline.ice.pair import ValidPair
from crowline.punch.plan_choice import MappingKind, NatSummary, Opens, PortChoice, Way

NOTHING_YET = "no direct path has worked so far"
MISSED = "the guesses missed"
STILL_SOUGHT = "through the server at once, while a better path is sought"
COMES_THROUGH = "packets of both sides come through"

_DRAWN = (PortChoice.RANDOM, PortChoice.BLOCK)
_NAMES = {Opens.OWN: "this side's", Opens.PEER: "the other side's"}


def obstacle(own: NatSummary | None, peer: NatSummary | None) -> str:
    """Why every way has failed, as far as both NATs were measured; ``None``: not at all."""
    blocked = [side is not None and not side.has_udp for side in (own, peer)]
    if any(blocked):
        return _no_udp(*blocked)
    hard = [side for side in (own, peer) if side is not None and side.is_hard]
    if len(hard) == 2:
        return _both_hard(*hard)
    if own is None or peer is None or MappingKind.UNKNOWN in (own.mapping, peer.mapping):
        return _partly_known(own, peer)
    if hard:
        return f"{_hard_side(own)} NAT gives each destination {_port(hard[0])}, and {MISSED} it"
    return "both NATs are easy: something else on the way drops the packets, such as a firewall"


def merit(
    pair: ValidPair,
    own: NatSummary | None = None,
    peer: NatSummary | None = None,
    won: Way | None = None,
) -> str:
    """Why `pair` works; `won`: the plan that found it, where ordinary checks did not."""
    if pair.kind == "relay":
        return NOTHING_YET
    if pair.kind == "lan":
        return "both are in one network"
    if won is not None and (words := _found(won, own, peer)):
        return words
    if pair.transport.is_stream:
        return _dialled(pair)
    if pair.base.is_ipv6:
        return "by IPv6, which no NAT translates"
    if pair.local.type is pair.remote.type is CandidateType.HOST:
        return "neither side is behind a NAT"
    return COMES_THROUGH


def _no_udp(here: bool, there: bool) -> str:
    where = "either network" if here and there else "this network" if here else "the other side's network"
    return f"no UDP gets out of {where}, and TCP found no direct way either"


def _both_hard(one: NatSummary, other: NatSummary) -> str:
    drawn = [side.ports in _DRAWN for side in (one, other)]
    if all(drawn):
        return "both NATs draw a new random port for each destination"
    if any(drawn):
        return "both NATs give each destination another port, and one of them draws it at random"
    if one.ports is other.ports is PortChoice.SEQUENTIAL:
        return f"both NATs count on to another port for each destination, and {MISSED} them"
    return "both NATs give each destination another port"


def _partly_known(own: NatSummary | None, peer: NatSummary | None) -> str:
    """One side at least was not measured."""
    if all(side is None or not side.is_hard for side in (own, peer)):
        return NOTHING_YET
    is_own = own is not None and own.is_hard
    hard = own if is_own else peer
    assert hard is not None
    unknown = Opens.PEER if is_own else Opens.OWN
    return (
        f"{_NAMES[Opens.OWN if is_own else Opens.PEER]} NAT gives each destination {_port(hard)}, and what "
        f"{_NAMES[unknown]} does is not known"
    )


def _hard_side(own: NatSummary | None) -> str:
    return _NAMES[Opens.OWN if own is not None and own.is_hard else Opens.PEER]


def _port(side: NatSummary) -> str:
    if side.ports in _DRAWN:
        return "another random port"
    return "the next port" if side.ports is PortChoice.SEQUENTIAL else "another port"


def _found(way: Way, own: NatSummary | None, peer: NatSummary | None) -> str:
    """What a plan did; empty where that is nothing special."""
    is_own = own is not None and own.is_hard
    is_peer = peer is not None and peer.is_hard
    whose = _NAMES[Opens.OWN] if is_own and not is_peer else _NAMES[Opens.PEER]
    if way is Way.PEER_FIRST:
        return "one side opened its filter for the other's host first"
    if way is Way.SAME_PORT:
        return "a port is open outside under its inside number"
    if way is Way.PREDICT_ONE:
        return f"the next port of {whose} NAT was foretold"
    if way is Way.PREDICT_BOTH:
        return "the next ports of both NATs were foretold"
    if way is Way.SPRAY:
        return f"one of the ports of {whose} NAT was found by trying many"
    return ""


def _dialled(pair: ValidPair) -> str:
    if pair.local.tcp_type is TcpType.SIMULTANEOUS_OPEN:
        return "by TCP, which both sides opened at the same moment"
    if pair.local.tcp_type is TcpType.PASSIVE:
        return "by TCP, which the other side could open"
    return "by TCP, which this side could open"
