"""A router's UPnP wherever it is described: searched for, followed when it moves, renewed when it restarts.

Around `GatewayClient`, which knows one description: this one keeps what is wanted beyond the end of any.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.portmap.upnp.client import MAX_HOLDINGS, GatewayClient
from crowline.portmap.upnp.discovery import Discovery, IsGateway, LocationFound, SearchEnded
from crowline.portmap.upnp.element import MalformedUpnp
from crowline.portmap.upnp.events import (
    Closed,
    HttpRequest,
    Listed,
    MapFailed,
    Mapped,
    NoService,
    OutsideAddress,
)
from crowline.portmap.upnp.gateway_url import GatewayUrl
from crowline.portmap.upnp.holding import Wanted
from crowline.portmap.upnp.mapping import Entropy
from crowline.portmap.upnp.restarts import Restarts
from crowline.portmap.upnp.ssdp import parse_notice

# Seconds after which a router without UPnP is searched for again (its owner may switch it on), and one that
# had something open for us until now.
SEARCH_AGAIN, SEARCH_SOON = 600.0, 30.0
# Seconds after which a port that was refused is asked for again, and one for which no answer came.
ASK_AGAIN, ASK_AGAIN_SOON = 1800.0, 60.0
# Seconds after a restart at which everything is made a second time: many routers say that they are there
# before they are.
SECOND_REFRESH = 10.0
# Seconds after which a port is asked for that found no room beside those that are being deleted.
_ROOM_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class UpnpFound:
    """The router has what is needed, described at `location`."""

    location: GatewayUrl


@dataclass(frozen=True, slots=True)
class UpnpAbsent:
    """It has not, or no longer: `words` says why."""

    words: str


UpnpEvent: TypeAlias = UpnpFound | UpnpAbsent | OutsideAddress | Mapped | MapFailed | Listed | Closed


@dataclass(slots=True, eq=False)
class _Port:
    """What is wanted under a number, and its key with the client that is asked now."""

    wanted: Wanted
    key: int | None = None
    again_at: float | None = None
    is_open: bool = False


class UpnpRouter:
    """`known` is where the description was the last time. Searching begins at `search_at`.

    With `pinholes`, the service for IPv6 is sought, else those that map ports. The events' keys are the
    numbers that `open` gives. `counters` as `Discovery` and `GatewayClient` have them.
    """

    def __init__(
        self,
        gateway: str,
        entropy: Entropy,
        now: float,
        *,
        pinholes: bool,
        known: GatewayUrl | None = None,
        is_gateway: IsGateway | None = None,
        search_at: float | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.is_found = False
        self.is_settled = False
        self._gateway = gateway
        self._entropy = entropy
        self._pinholes = pinholes
        self._is_gateway = is_gateway
        self._search: Discovery | None = None
        self._search_at: float | None = now if search_at is None else search_at
        self._searched_at = -inf
        self._client: GatewayClient | None = None
        self._others: deque[GatewayUrl] = deque()
        self._ports: dict[int, _Port] = {}
        self._numbers = 0
        self._restarts = Restarts()
        self._refresh_at: float | None = None
        # What was asked of which description's client, by our own numbers.
        self._requests: dict[int, tuple[GatewayClient, int]] = {}
        self._asked = 0
        self._why = ""
        self._is_guess = False
        self._is_closing = False
        self._transmits: deque[Transmit] = deque()
        self._events: deque[UpnpEvent] = deque()
        if known is not None:
            self._ask_at(known, now)
            self._is_guess = True
        self.handle_timeout(now)

    @property
    def location(self) -> GatewayUrl | None:
        """Where the description is that is believed now."""
        return self._client.location if self._client is not None and self.is_found else None

    def search(self, now: float) -> None:
        """Do not wait any longer for the first search."""
        if self._search_at is not None and not self.is_settled:
            self._search_at = now
            self.handle_timeout(now)

    def open(self, wanted: Wanted, now: float) -> int:
        """Have it opened and kept open, as soon as there is a service; the number that events name it by."""
        if self._is_closing or len(self._ports) >= MAX_HOLDINGS:
            raise UsageError("This router's client opens nothing now.")
        self._numbers += 1
        port = self._ports[self._numbers] = _Port(wanted)
        if self.is_found:
            self._ask_for(port, now)
        return self._numbers

    def close(self, number: int, now: float) -> None:
        """Have it deleted; no event follows."""
        port = self._ports.pop(number, None)
        if port is not None and port.key is not None and self._client is not None:
            self._client.release(port.key, now)
            self._take_events(now)

    def list_ports(self, now: float) -> None:
        """Read what is open there, for whomever; `Listed` follows, where there is a service."""
        if self._client is not None and self.is_found and not self._is_closing:
            self._client.list_ports(now)
            self._take_events(now)

    def close_all(self, now: float) -> None:
        """Delete everything; `Closed` follows, at the latest after three seconds."""
        if self._is_closing:
            return
        self._is_closing = True
        self._search = self._search_at = self._refresh_at = None
        self._ports.clear()
        if self._client is None:
            self._events.append(Closed(0))
            return
        self._client.close(now)
        self._take_events(now)

    def receive(self, data: Buffer, source: Address, now: float) -> None:
        """Take a datagram: an answer to the search, or a notice to everybody."""
        if bytes(data[:7]).upper() == b"NOTIFY ":
            self._on_notice(data, source, now)
        elif self._search is not None:
            self._search.receive(data, source, now)
            self._take_answers(now)

    def next_request(self) -> HttpRequest | None:
        """The HTTP request to make now."""
        request = self._client.next_request() if self._client is not None else None
        if request is None or self._client is None:
            return None
        self._asked += 1
        self._requests[self._asked] = (self._client, request.number)
        return replace(request, number=self._asked)

    def receive_answer(self, number: int, status: int, body: bytes, now: float) -> None:
        """Take the answer to the request of that number."""
        client, own = self._requests.pop(number, (None, 0))
        if client is not None and client is self._client:
            client.receive_answer(own, status, body, now)
            self._take_events(now)

    def receive_failure(self, number: int, now: float) -> None:
        """That request got no answer."""
        client, own = self._requests.pop(number, (None, 0))
        if client is not None and client is self._client:
            client.receive_failure(own, now)
            self._take_events(now)

    def handle_timeout(self, now: float) -> None:
        if self._search_at is not None and self._search_at <= now:
            self._begin_search(now)
        if self._search is not None:
            self._search.handle_timeout(now)
            self._take_answers(now)
        if self._client is not None:
            if self._refresh_at is not None and self._refresh_at <= now:
                self._refresh_at = None
                self._client.refresh(now)
            self._client.handle_timeout(now)
            self._take_events(now)
        for port in self._ports.values():
            if port.again_at is not None and port.again_at <= now and self.is_found:
                self._ask_for(port, now)

    def next_timeout(self) -> float | None:
        times = [self._search_at, self._refresh_at if self._client is not None else None]
        times += [part.next_timeout() for part in (self._search, self._client) if part is not None]
        if self.is_found:
            times += [port.again_at for port in self._ports.values()]
        return min((time for time in times if time is not None), default=None)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> UpnpEvent | None:
        return self._events.popleft() if self._events else None

    # --- where the description is -------------------------------------------------------------------------

    def _begin_search(self, now: float) -> None:
        self._search_at, self._searched_at = None, now
        self._search = Discovery(self._gateway, self._is_gateway)
        self._search.start(now)
        self._take_answers(now)

    def _take_answers(self, now: float) -> None:
        """What the search has to say and to send."""
        search = self._search
        while search is not None and (transmit := search.next_transmit()) is not None:
            self._transmits.append(transmit)
        while search is not None and (event := search.next_event()) is not None:
            if isinstance(event, LocationFound):
                self._restarts.answered(event.answer)
                self._on_location(event.answer.location, now)
            elif isinstance(event, SearchEnded):
                self.counters.update(search.counters)
                self._search = None
                if self._client is None:
                    self._be_absent("no UPnP router answers" if not event.found else self._why, now)

    def _on_location(self, location: GatewayUrl, now: float) -> None:
        client = self._client
        if client is None or (self._is_guess and location != client.location and not client.is_described):
            self._ask_at(location, now)
        elif location != client.location and location not in self._others:
            self._others.append(location)

    def _ask_at(self, location: GatewayUrl, now: float) -> None:
        """Read the description there, and open by it what is wanted."""
        for port in self._ports.values():
            port.key = None
        self._requests.clear()
        self._is_guess = False
        self._client = GatewayClient(location, entropy=self._entropy)
        self._client.start(now)

    def _ask_elsewhere(self, words: str, now: float) -> None:
        """This description is of no use; perhaps another is."""
        self._why = words
        self._client = None
        self.is_found = False
        if self._others:
            self._ask_at(self._others.popleft(), now)
        elif self._search is None and self._search_at is None:
            self._be_absent(words, now)

    def _be_absent(self, words: str, now: float) -> None:
        self.is_settled = True
        lost = [number for number, port in self._ports.items() if port.is_open]
        self._search_at = now + (SEARCH_SOON if lost else SEARCH_AGAIN)
        self._events.append(UpnpAbsent(words))
        for number in lost:
            self._ports[number].is_open = False
            self._events.append(MapFailed(number, words, was_open=True))

    def _be_found(self, location: GatewayUrl, now: float) -> None:
        self.is_found = self.is_settled = True
        self._events.append(UpnpFound(location))
        for port in list(self._ports.values()):
            self._ask_for(port, now)

    # --- what the router tells everybody ------------------------------------------------------------------

    def _on_notice(self, data: Buffer, source: Address, now: float) -> None:
        is_other = self._is_gateway is not None and self._is_gateway(source.host)
        gateway = source.host if is_other else self._gateway
        try:
            notice = parse_notice(data, source, gateway)
        except MalformedUpnp:
            self.counters["refused"] += 1
            return
        if notice is None or self._is_closing:
            return
        has_restarted = self._restarts.noticed(notice, now)
        if notice.location is None:
            return
        if self._client is None and self._search is None and self._restarts.may_believe(now):
            # Somebody is there who was not: see what it is, now rather than later.
            self._search_at = now
            self.handle_timeout(now)
        elif has_restarted and self._client is not None and self.is_found:
            self._restarted(self._client, notice.location, now)

    def _restarted(self, client: GatewayClient, location: GatewayUrl, now: float) -> None:
        """What was open is forgotten there, and all may be elsewhere."""
        self.counters["restarts"] += 1
        self._refresh_at = now + SECOND_REFRESH
        if location == client.location:
            client.refresh(now)
        else:
            self.is_found = False
            self._ask_at(location, now)
        self._take_events(now)

    # --- ports --------------------------------------------------------------------------------------------

    def _ask_for(self, port: _Port, now: float) -> None:
        port.again_at = None
        if self._client is not None and not self._client.has_room:
            port.again_at = now + _ROOM_AGAIN
        elif self._client is not None and not self._is_closing:
            port.key = self._client.open(port.wanted, now)
            self._take_events(now)

    def _take_events(self, now: float) -> None:
        """What the description's client says, in the numbers of this one."""
        while self._client is not None and (event := self._client.next_event()) is not None:
            if self._is_closing:
                if isinstance(event, Closed):
                    self._events.append(event)
            elif isinstance(event, OutsideAddress):
                self._on_outside(event, now)
            elif isinstance(event, NoService):
                self._on_no_service(event, now)
            elif isinstance(event, Mapped):
                if (number := self._number_of(event.key)) is not None:
                    self._ports[number].is_open = True
                    self._events.append(replace(event, key=number))
            elif isinstance(event, MapFailed):
                self._on_failed(event, now)
            elif isinstance(event, Listed):
                self._events.append(event)

    def _on_outside(self, event: OutsideAddress, now: float) -> None:
        if self._pinholes:
            self._on_pinhole_service("the router opens no pinholes", now)
            return
        self._events.append(event)
        if not self.is_found and self._client is not None:
            self._be_found(self._client.location, now)

    def _on_no_service(self, event: NoService, now: float) -> None:
        if self._pinholes:
            self._on_pinhole_service(event.words, now)
        else:
            self._ask_elsewhere(event.words, now)

    def _on_pinhole_service(self, words: str, now: float) -> None:
        if self._client is not None and self._client.opens_pinholes:
            if not self.is_found:
                self._be_found(self._client.location, now)
        else:
            self._ask_elsewhere(words, now)

    def _on_failed(self, event: MapFailed, now: float) -> None:
        number = self._number_of(event.key)
        if number is None:
            return
        port = self._ports[number]
        port.key, port.is_open = None, False
        port.again_at = now + (ASK_AGAIN_SOON if event.code is None else ASK_AGAIN)
        self._events.append(replace(event, key=number))
        if event.code is None and event.was_open:
            # Silence, where there was an answer before: the router may be elsewhere, or another.
            self._why = event.words
            self._search_for_lost(now)

    def _search_for_lost(self, now: float) -> None:
        """From the beginning; not again and again at a router whose ports end as soon as they are open."""
        self._client = self._search = None
        self.is_found = False
        self._others.clear()
        self._search_at = max(now, self._searched_at + SEARCH_SOON)
        self.handle_timeout(now)

    def _number_of(self, key: int) -> int | None:
        return next((number for number, port in self._ports.items() if port.key == key), None)
