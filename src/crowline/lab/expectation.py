"""What the self-test should find at a place that is as its profile says: the layers taken together."""

from __future__ import annotations

from collections.abc import Sequence

from crowline.lab.behaviour import (
    TCP,
    UDP,
    Allocation,
    AllocationKind,
    Filtering,
    Hairpin,
    Mapping,
    NatBehaviour,
    UnsolicitedSyn,
)
from crowline.lab.bench import Answer
from crowline.lab.measured import Bracket, Measured, TcpReach
from crowline.lab.profile import Firewall, Ipv6, Profile

# Seconds of silence after which a mapping is tried: around the lifetimes that boxes have (30, 40, 60, 120 s).
SILENCES = (5.0, 15.0, 25.0, 35.0, 50.0, 75.0, 105.0, 150.0)
# Seconds after its first packet at which a busy mapping is used again: away from full multiples of ten.
BUSY_TIMES = tuple(float(time) for time in range(6, 151, 12))
LONGEST_GAP = 12.0  # seconds between two of them: what dies sooner cannot be kept busy
SHORTEST_REFRESH = 15.0  # seconds, likewise for what comes in
LARGEST_BLOCK = 8192  # ports; more cannot be told from the whole range by a few samples

_TCP_REACH = {Firewall.HTTPS_ONLY: TcpReach.HTTPS, Firewall.PROXY_ONLY: TcpReach.NONE}
_ANSWERS = {
    UnsolicitedSyn.DROP: Answer.SILENCE,
    UnsolicitedSyn.RST: Answer.RST,
    UnsolicitedSyn.ICMP: Answer.ICMP,
}
_MAPPINGS = tuple(Mapping)  # from the kindest to the strictest
_FILTERINGS = tuple(Filtering)


def expected(profile: Profile) -> Measured:
    """What `selftest.measure` returns for that profile, in every world."""
    nats, udp = profile.nats, profile.firewall is Firewall.NONE
    tcp = _TCP_REACH.get(profile.firewall, TcpReach.ANY)
    return Measured(
        udp=udp,
        tcp=tcp,
        ipv6=profile.ipv6 if udp else Ipv6.NONE,
        unsolicited_syn=_answer(profile),
        translated=bool(nats) if udp else None,
        mapping=_mapping(nats, UDP) if udp else None,
        filtering=_filtering(nats) if udp else None,
        allocation=_allocation(nats) if udp else None,
        hairpin=_hairpin(nats) if udp and nats else None,
        tcp_mapping=_mapping(nats, TCP) if tcp is TcpReach.ANY else None,
        udp_idle=bracket(SILENCES, _longest_silence(nats)) if udp else None,
        inbound_refreshes=_inbound_refreshes(nats) if udp else None,
        absolute=_absolute(nats) if udp else None,
    )


def bracket(looks: Sequence[float], lifetime: float) -> Bracket:
    """The looks before and after the end of something that lives that long."""
    alive = max((look for look in looks if look < lifetime), default=0.0)
    return Bracket(alive, min((look for look in looks if look >= lifetime), default=None))


def block_size(span: int) -> int:
    """The least power of two that holds so many ports."""
    return 1 << (span - 1).bit_length()


def _answer(profile: Profile) -> Answer:
    """The outermost layer meets the SYN first: of a single layer, that is the firewall around it."""
    blocks_tcp = profile.firewall in (Firewall.HTTPS_ONLY, Firewall.PROXY_ONLY)
    if blocks_tcp and len(profile.nats) < 2:
        return Answer.SILENCE
    if not profile.nats:
        return Answer.RST  # the host's own: nobody listens there
    return _ANSWERS[profile.nats[-1].unsolicited_syn]


def _mapping(nats: Sequence[NatBehaviour], protocol: int) -> Mapping:
    """A flow that any layer tells apart is another flow outside."""
    return max((nat.mapping_of(protocol) for nat in nats), key=_MAPPINGS.index, default=_MAPPINGS[0])


def _filtering(nats: Sequence[NatBehaviour]) -> Filtering:
    """What comes in must pass every layer."""
    return max((nat.filtering for nat in nats), key=_FILTERINGS.index, default=_FILTERINGS[0])


def _allocation(nats: Sequence[NatBehaviour]) -> Allocation:
    """The outermost layer that does not just pass the port on decides, and its parity is that of the port
    that it was given."""
    result = Allocation.PRESERVING
    for nat in nats:
        kind = nat.allocation.kind
        if kind is AllocationKind.PRESERVING:
            continue
        keeps_parity = result.kind in (AllocationKind.PRESERVING, AllocationKind.PARITY)
        if kind is AllocationKind.PARITY and not keeps_parity:
            result = Allocation.RANDOM
        else:
            result = _as_it_looks(nat)
    return result


def _as_it_looks(nat: NatBehaviour) -> Allocation:
    """A few random ports out of a small range look like a block of it."""
    allocation, (low, high) = nat.allocation, nat.ports
    if allocation.kind is AllocationKind.BLOCK:
        return Allocation.block(block_size(allocation.size))
    if allocation.kind is AllocationKind.RANDOM and high - low < LARGEST_BLOCK:
        return Allocation.block(block_size(high - low + 1))
    return allocation


def _hairpin(nats: Sequence[NatBehaviour]) -> Hairpin:
    """The outermost layer turns packets round; every filter on the way back in must know their source."""
    kind = nats[-1].hairpin
    for layer, nat in enumerate(nats):
        if nat.filtering is Filtering.ENDPOINT_INDEPENDENT:
            continue
        # What the receiver wrote to its neighbour opened the mapping that the neighbour knows of, or another.
        if _mapping(nats[: layer + 1], UDP) is not Mapping.ENDPOINT_INDEPENDENT:
            return Hairpin.NONE
        # The sender comes by the port that the receiver was told, or by another.
        knows_port = _mapping(nats, UDP) is Mapping.ENDPOINT_INDEPENDENT
        if nat.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT and not knows_port:
            return Hairpin.NONE
        # A source from between two layers is one that nobody inside has written to.
        if kind is Hairpin.INTERNAL_SOURCE and layer < len(nats) - 1:
            return Hairpin.NONE
    return kind


def _longest_silence(nats: Sequence[NatBehaviour]) -> float:
    ends = [nat.lifetimes.udp_idle for nat in nats]
    ends += [nat.lifetimes.absolute for nat in nats if nat.lifetimes.absolute is not None]
    return min(ends, default=float("inf"))


def _inbound_refreshes(nats: Sequence[NatBehaviour]) -> bool | None:
    """Whether what comes in keeps every layer open for longer than silence does."""
    silent = bracket(SILENCES, _longest_silence(nats))
    ends = [float("inf")]
    for nat in nats:
        ends.append(nat.lifetimes.absolute or float("inf"))
        if not nat.inbound_refreshes or nat.lifetimes.udp_idle <= LONGEST_GAP:
            ends.append(nat.lifetimes.udp_idle)
    return outlives(bracket((0.0, *BUSY_TIMES), min(ends)).alive, silent)


def outlives(heard: float, silent: Bracket) -> bool | None:
    """Whether a mapping that let its server in until `heard` was open for longer than a silent one."""
    if silent.dead is None or silent.dead <= SHORTEST_REFRESH:
        return None
    return heard >= silent.dead


def _absolute(nats: Sequence[NatBehaviour]) -> Bracket | None:
    """A port that is given anew the same way as before does not show that a mapping has ended."""
    ends = [
        nat.lifetimes.absolute
        for nat in nats
        if nat.lifetimes.absolute is not None and nat.allocation.kind is not AllocationKind.PRESERVING
    ]
    if not ends or min(ends) > BUSY_TIMES[-1] or min(nat.lifetimes.udp_idle for nat in nats) <= LONGEST_GAP:
        return None
    return bracket((0.0, *BUSY_TIMES), min(ends))
