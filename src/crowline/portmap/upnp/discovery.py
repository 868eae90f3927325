"""The search for the gateway's description: a machine of the usual five verbs over one UDP socket."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.portmap.upnp.element import MalformedUpnp
from crowline.portmap.upnp.gateway_url import GatewayUrl
from crowline.portmap.upnp.ssdp import (
    FALLBACK_TARGETS,
    GROUP_IPV4,
    GROUP_IPV6,
    MAX_WAIT,
    SSDP_PORT,
    TARGETS,
    SsdpAnswer,
    parse_answer,
    write_search,
)

ROUNDS = 3
"""Times everything is asked: multicast over radio is lost more often than other packets."""

ROUND_INTERVAL = 0.2
"""Seconds between two rounds."""

SEARCH_LIMIT = MAX_WAIT + 1.0
"""Seconds from the first packet to the last answer that counts."""

MAX_LOCATIONS = 4
"""Descriptions of one gateway that are reported; real ones have one or two."""


@dataclass(frozen=True, slots=True)
class LocationFound:
    """The gateway has a description at `answer.location`; each location is reported once."""

    answer: SsdpAnswer


@dataclass(frozen=True, slots=True)
class SearchEnded:
    """Nothing follows; `found` says how many locations there were."""

    found: int


DiscoveryEvent: TypeAlias = LocationFound | SearchEnded
IsGateway: TypeAlias = Callable[[str], bool]


class Discovery:
    """Asks the gateway at `gateway`, by multicast and directly, where its description is.

    The socket's multicast packets must leave by the interface on which the gateway is, with a TTL of 2.
    """

    def __init__(self, gateway: str, is_gateway: IsGateway | None = None) -> None:
        """`is_gateway` says of another address of the same network whether it is the gateway's, too: where
        the way out is by a link-local address, services are at a global one.
        """
        direct = Address.parse(gateway, SSDP_PORT)
        self.gateway = direct.host
        self._is_gateway = is_gateway or (lambda host: False)
        self.counters: Counter[str] = Counter()
        self._destinations = (GROUP_IPV6 if direct.is_ipv6 else GROUP_IPV4, direct)
        self._rounds = 0
        self._next_round: float | None = None
        self._end: float | None = None
        self._is_started = False
        self._locations: set[GatewayUrl] = set()
        self._transmits: deque[Transmit] = deque()
        self._events: deque[DiscoveryEvent] = deque()

    def start(self, now: float) -> None:
        """Begin. Raises `UsageError` the second time."""
        if self._is_started:
            raise UsageError("A search is made once.")
        self._is_started = True
        self._end = now + SEARCH_LIMIT
        self._ask(now)

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        """Take a datagram of the socket."""
        if self._end is None:
            self.counters["late"] += 1
            return
        try:
            is_other = source.host != self.gateway and self._is_gateway(source.host)
            answer = parse_answer(data, source, source.host if is_other else self.gateway)
        except MalformedUpnp:
            self.counters["refused"] += 1
            return
        if answer.location in self._locations or len(self._locations) >= MAX_LOCATIONS:
            self.counters["repeated"] += 1
            return
        self._locations.add(answer.location)
        self._events.append(LocationFound(answer))

    def handle_timeout(self, now: float) -> None:
        if self._next_round is not None and now >= self._next_round:
            self._ask(now)
        if self._end is not None and now >= self._end:
            self._end = self._next_round = None
            self._events.append(SearchEnded(len(self._locations)))

    def next_timeout(self) -> float | None:
        return self._end if self._next_round is None else self._next_round

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> DiscoveryEvent | None:
        return self._events.popleft() if self._events else None

    def _ask(self, now: float) -> None:
        """One round; none is needed any more once the gateway has answered."""
        self._next_round = None
        if self._locations:
            return
        self._rounds += 1
        is_last = self._rounds == ROUNDS
        for target in TARGETS + (FALLBACK_TARGETS if is_last else ()):
            for destination in self._destinations:
                self._transmits.append(Transmit(write_search(target, destination), destination))
        if not is_last:
            self._next_round = now + ROUND_INTERVAL
