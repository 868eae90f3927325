"""Candidates: transport addresses at which an agent may be reached (RFC 8445 §5.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from crowline.base.addresses import Address
from crowline.base.transport import Transport

UDP = "udp"
TCP = "tcp"
COMPONENT = 1  # one component: everything of a session is multiplexed on one flow (RFC 8445 §13)
HIGHEST_LOCAL_PREFERENCE = 65535
DISCARD_PORT = 9  # what an active TCP candidate has for a port, for nobody connects to it (RFC 6544 §4.5)


class CandidateType(Enum):
    """The four types, with the names they have in session descriptions (RFC 8839 §5.1)."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    RELAYED = "relay"


class TcpType(Enum):
    """Who dials between two TCP candidates, with their names in session descriptions (RFC 6544 §4.5)."""

    ACTIVE = "active"
    PASSIVE = "passive"
    SIMULTANEOUS_OPEN = "so"


# What kind a candidate has to be of to be paired with one of the other side's (RFC 6544 §6.2).
COUNTERPART = {
    None: None,
    TcpType.ACTIVE: TcpType.PASSIVE,
    TcpType.PASSIVE: TcpType.ACTIVE,
    TcpType.SIMULTANEOUS_OPEN: TcpType.SIMULTANEOUS_OPEN,
}

TYPE_PREFERENCE = {
    CandidateType.HOST: 126,
    CandidateType.PEER_REFLEXIVE: 110,
    CandidateType.SERVER_REFLEXIVE: 100,
    CandidateType.RELAYED: 0,
}


# What TCP candidates have less (RFC 6544 §4.2): any direct way over UDP comes before any over TCP, where a
# lost packet holds up all that follow. Relays stay last.
TCP_DISADVANTAGE = 30

# RFC 6544 §4.2: behind a translator both sides dial at once, elsewhere one of them.
_PLAIN_DIRECTION = {TcpType.ACTIVE: 6, TcpType.PASSIVE: 4, TcpType.SIMULTANEOUS_OPEN: 2}
_REFLEXIVE_DIRECTION = {TcpType.SIMULTANEOUS_OPEN: 6, TcpType.ACTIVE: 4, TcpType.PASSIVE: 2}
_HIGHEST_OTHER_PREFERENCE = 8191

# Places among a machine's hosts: the first one's, which leaves room for better ones that come later, the step
# from one to the next, the highest and the last. A place has room for so many sockets, the newest last.
_FIRST_PLACE, _PLACE_STEP, _HIGHEST_PLACE, _LAST_PLACE = 128, 4, 255, 0
_SOCKETS_OF_A_PLACE, _STREAMS_OF_A_PLACE = 256, 32


def type_preference(type_: CandidateType, transport: str = UDP) -> int:
    """The first part of a priority."""
    disadvantage = TCP_DISADVANTAGE if transport == TCP else 0
    return max(TYPE_PREFERENCE[type_] - disadvantage, 0)


def tcp_local_preference(
    type_: CandidateType, tcp_type: TcpType, other: int = _HIGHEST_OTHER_PREFERENCE
) -> int:
    """RFC 6544 §4.2: who dials in the three highest bits; `other` tells the addresses of a host apart."""
    is_reflexive = type_ in (CandidateType.SERVER_REFLEXIVE, CandidateType.PEER_REFLEXIVE)
    direction = (_REFLEXIVE_DIRECTION if is_reflexive else _PLAIN_DIRECTION)[tcp_type]
    return direction << 13 | other


def candidate_priority(
    type_: CandidateType,
    local_preference: int = HIGHEST_LOCAL_PREFERENCE,
    component: int = COMPONENT,
    transport: str = UDP,
) -> int:
    """RFC 8445 §5.1.2.1; a type preference in bits 24-30, the local one in 8-23."""
    return type_preference(type_, transport) << 24 | local_preference << 8 | (256 - component)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate.

    `foundation` groups candidates that will probably fail or succeed together. `related` is the address it
    was derived from, for information only. `base` is the address that packets leave by when this is a local
    candidate, ``None`` when it is the other side's. `tcp_type` is set where `transport` is TCP.
    """

    foundation: str
    component: int
    transport: str
    priority: int
    address: Address
    type: CandidateType
    related: Address | None = None
    base: Address | None = None
    tcp_type: TcpType | None = None

    @property
    def sending_base(self) -> Address:
        """Where packets of this local candidate leave: its base, or itself where none is named."""
        return self.base if self.base is not None else self.address

    @property
    def protocol(self) -> Transport:
        """How packets to and from it travel."""
        return Transport.TCP if self.transport == TCP else Transport.UDP

    @property
    def peer_reflexive_priority(self) -> int:
        """What a check announces in PRIORITY: the same local preference under the type prflx (§7.1.1)."""
        preference = type_preference(CandidateType.PEER_REFLEXIVE, self.transport)
        return preference << 24 | (self.priority & 0xFFFFFF)


def is_usable(candidate: Candidate) -> bool:
    """Whether an agent of one component can do anything with it: over UDP, or over TCP of a known type."""
    if candidate.component != COMPONENT:
        return False
    return (candidate.transport, candidate.tcp_type is not None) in ((UDP, False), (TCP, True))


class CandidateFactory:
    """Makes the local candidates of one agent, with foundations and unique local preferences.

    Foundations are numbers given in the order of asking: a hash of the base address could be reversed by
    trying all private addresses. Local preferences follow what `prefer` said of the hosts; without that, each
    further base gets a lower one (RFC 8445 §5.1.2.1 wants them unique for one type).

    With a `tcp_type` they are TCP candidates (RFC 6544); `base` is then the local address of the connections.
    """

    def __init__(self) -> None:
        self._foundations: dict[tuple[CandidateType, str, str, TcpType | None], str] = {}
        self._places: dict[str, int] = {}
        self._preferences: dict[tuple[Address, bool], int] = {}
        # So many bases are at each place, or at none.
        self._at_place: Counter[tuple[int | None, bool]] = Counter()

    def prefer(self, hosts: Sequence[str]) -> None:
        """These are the machine's hosts now, the preferred first.

        One that is new gets its place among those that are known, which keep theirs: the other side has been
        told their priorities. So a better network wins that the machine gets later, too. Hosts that are not
        among them come last.
        """
        places: dict[str, int] = {}
        for at, host in enumerate(hosts):
            before = min(places.values(), default=None)
            later = (self._places[each] for each in hosts[at + 1 :] if each in self._places)
            after = max(later, default=None)
            places[host] = self._places.get(host, _place_between(before, after))
        self._places = places

    def host(self, base: Address, tcp_type: TcpType | None = None) -> Candidate:
        """The address of a socket. An active TCP candidate says only from which host it dials."""
        address = Address(base.host, DISCARD_PORT) if tcp_type is TcpType.ACTIVE else base
        return self._make(CandidateType.HOST, address, base=base, tcp_type=tcp_type)

    def server_reflexive(
        self, address: Address, base: Address, server: Address, tcp_type: TcpType | None = None
    ) -> Candidate:
        """What `server` saw as the source of packets from `base`."""
        return self._make(
            CandidateType.SERVER_REFLEXIVE,
            address,
            base=base,
            related=base,
            server=server.host,
            tcp_type=tcp_type,
        )

    def relayed(
        self, address: Address, mapped: Address, server: Address, tcp_type: TcpType | None = None
    ) -> Candidate:
        """An address allocated at `server`, which saw us at `mapped`."""
        return self._make(
            CandidateType.RELAYED,
            address,
            base=address,
            related=mapped,
            server=server.host,
            tcp_type=tcp_type,
        )

    def _make(
        self,
        type_: CandidateType,
        address: Address,
        *,
        base: Address,
        related: Address | None = None,
        server: str = "",
        tcp_type: TcpType | None = None,
    ) -> Candidate:
        key = (type_, base.host, server, tcp_type)
        foundation = self._foundations.setdefault(key, str(len(self._foundations) + 1))
        preference = self._preference_of(base, is_tcp=tcp_type is not None)
        if tcp_type is not None:
            preference = tcp_local_preference(type_, tcp_type, preference)
        transport = UDP if tcp_type is None else TCP
        priority = candidate_priority(type_, preference, transport=transport)
        return Candidate(foundation, COMPONENT, transport, priority, address, type_, related, base, tcp_type)

    def _preference_of(self, base: Address, *, is_tcp: bool) -> int:
        """What tells the bases of one type apart: 16 bits, or 13 for TCP."""
        known = self._preferences.get((base, is_tcp))
        if known is not None:
            return known
        place = self._places.get(base.host, _LAST_PLACE if self._places else None)
        order = self._at_place[place, is_tcp]
        self._at_place[place, is_tcp] += 1
        if place is None:
            preference = (_HIGHEST_OTHER_PREFERENCE if is_tcp else HIGHEST_LOCAL_PREFERENCE) - order
        else:
            room = _STREAMS_OF_A_PLACE if is_tcp else _SOCKETS_OF_A_PLACE
            preference = (place + 1) * room - 1 - min(order, room - 1)
        return self._preferences.setdefault((base, is_tcp), max(preference, 0))


def _place_between(before: int | None, after: int | None) -> int:
    """For a new host, between the worst of those that come before it and the best of those after it."""
    if after is None:
        return _FIRST_PLACE if before is None else max(before - _PLACE_STEP, _LAST_PLACE)
    return min(after + _PLACE_STEP, _HIGHEST_PLACE if before is None else before)
