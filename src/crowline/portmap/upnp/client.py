"""One gateway and all that we have open there: a machine whose driver makes the HTTP requests.

The driver makes each request of `next_request` and gives back what came of it by `receive_answer` or
`receive_failure`; `handle_timeout`, `next_timeout` and `next_event` are those of every machine.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.portmap.upnp.description import Service, parse_description
from crowline.portmap.upnp.element import MalformedUpnp
from crowline.portmap.upnp.events import (
    Closed,
    GatewayEvent,
    HttpRequest,
    Listed,
    MapFailed,
    Mapped,
    NoService,
    Outside,
    OutsideAddress,
    outside_address,
)
from crowline.portmap.upnp.gateway_url import GatewayUrl
from crowline.portmap.upnp.holding import Holding, Wanted
from crowline.portmap.upnp.listing import list_ports
from crowline.portmap.upnp.mapping import Call, Conversation, Entropy, Grant, Refusal, close_port, open_port
from crowline.portmap.upnp.pinhole import close_pinhole, open_pinhole, renew_pinhole
from crowline.portmap.upnp.port_actions import PortMapping, get_external_address
from crowline.portmap.upnp.soap import (
    Answered,
    Outcome,
    Unanswered,
    parse_outcome,
    write_envelope,
    write_headers,
)

REQUEST_LIMIT = 8.0
"""Seconds until a request counts as unanswered; slow routers need three."""

CLOSE_LIMIT = 3.0
"""Seconds that deleting everything may take at the end."""

MAX_HOLDINGS = 64
"""Mappings and pinholes of one client: routers have a few hundred for everybody."""


class GatewayClient:
    """Reads the description at `location`, then keeps open what it is asked to.

    Requests are made one after the other, since many routers serve but one connection.
    """

    def __init__(self, location: GatewayUrl, *, entropy: Entropy) -> None:
        self.location = location
        self.outside: OutsideAddress | None = None
        self.is_closed = False
        self.counters: Counter[str] = Counter()
        self._entropy = entropy
        self._now = 0.0
        self._is_started = False
        self._services: tuple[Service, ...] | None = None
        self._ports: Service | None = None
        self._holdings: dict[int, Holding] = {}
        self._keys = 0
        self._jobs: deque[Callable[[], Conversation[None]]] = deque()
        self._talk: Conversation[None] | None = None
        self._call: Call | None = None
        self._numbers = 0
        self._deadline: float | None = None
        self._close_at: float | None = None
        self._requests: deque[HttpRequest] = deque()
        self._events: deque[GatewayEvent] = deque()

    def start(self, now: float) -> None:
        """Begin with the description. Raises `UsageError` the second time."""
        if self._is_started:
            raise UsageError("A gateway's client is started once.")
        self._is_started = True
        self._now = now
        self._ask("GET", self.location)

    def open(self, wanted: Wanted, now: float) -> int:
        """Have it opened and kept open; `Mapped` or `MapFailed` follows with the key that is returned."""
        if not self._is_started or self._is_ending or not self.has_room:
            raise UsageError("This gateway's client opens nothing now.")
        self._now = now
        self._keys += 1
        holding = self._holdings[self._keys] = Holding(self._keys, wanted)
        self._do(partial(self._open, holding))
        return holding.key

    def release(self, key: int, now: float) -> None:
        """Have it deleted. No event follows; a key that is void is no mistake."""
        self._now = now
        holding = self._holdings.get(key)
        if holding is not None and not holding.is_released:
            self._release(holding)

    def refresh(self, now: float) -> None:
        """Make everything anew: the gateway was seen to restart."""
        self._now = now
        for holding in self._holdings.values():
            if holding.renew_at is not None:
                holding.renew_at = now
        self._renew_due()

    def list_ports(self, now: float) -> None:
        """Read what is open there; `Listed` follows."""
        self._now = now
        self._do(self._list)

    def close(self, now: float) -> None:
        """Delete everything; `Closed` follows, at the latest after `CLOSE_LIMIT` seconds."""
        if self._is_ending:
            return
        self._now = now
        self._jobs.clear()
        for holding in list(self._holdings.values()):
            self._release(holding)
        self._close_at = now + CLOSE_LIMIT
        if self._services is None:
            self._finish()
        self._proceed()

    def next_request(self) -> HttpRequest | None:
        """The HTTP request to make now."""
        return self._requests.popleft() if self._requests else None

    def receive_answer(self, number: int, status: int, body: bytes, now: float) -> None:
        """Take the answer to the request of that number."""
        if not self._is_awaited(number):
            return
        self._now = now
        if self._call is None:
            self._on_description(status, body)
        else:
            self._resume(parse_outcome(self._call.action, status, body))

    def receive_failure(self, number: int, now: float) -> None:
        """That request got no answer: no connection, or one that ended too early."""
        if self._is_awaited(number):
            self._now = now
            self._fail("the gateway does not answer")

    def handle_timeout(self, now: float) -> None:
        self._now = now
        if self._close_at is not None and now >= self._close_at and not self.is_closed:
            self._finish()
        if self._deadline is not None and now >= self._deadline:
            self._fail("the gateway does not answer in time")
        self._drop_expired()
        self._renew_due()

    def next_timeout(self) -> float | None:
        if self.is_closed:
            return None
        times = [self._deadline, self._close_at]
        for holding in self._holdings.values():
            times += holding.times()
        return min((time for time in times if time is not None), default=None)

    def next_event(self) -> GatewayEvent | None:
        return self._events.popleft() if self._events else None

    @property
    def has_room(self) -> bool:
        """Whether it can open one more; what is being deleted counts until it is."""
        return len(self._holdings) < MAX_HOLDINGS

    @property
    def is_described(self) -> bool:
        """Whether it is known which services there are, if any."""
        return self._services is not None

    @property
    def opens_pinholes(self) -> bool:
        """Whether there is a service that opens pinholes."""
        return any(not service.type.maps_ports for service in self._services or ())

    @property
    def _is_ending(self) -> bool:
        return self._close_at is not None

    # --- requests ---------------------------------------------------------------------------------------

    def _ask(self, method: str, url: GatewayUrl, call: Call | None = None) -> None:
        self._call = call
        self._numbers += 1
        self._deadline = self._now + REQUEST_LIMIT
        headers = write_headers(call.service, call.action) if call else ()
        body = write_envelope(call.service, call.action) if call else b""
        self._requests.append(HttpRequest(self._numbers, method, url, headers, body))

    def _is_awaited(self, number: int) -> bool:
        if number == self._numbers and self._deadline is not None:
            return True
        self.counters["late"] += 1
        return False

    def _fail(self, words: str) -> None:
        self.counters["unanswered"] += 1
        # What the driver has not fetched yet must not be made any more.
        self._requests.clear()
        if self._call is None:
            self._on_services((), words)
        else:
            self._resume(Unanswered(words))

    def _on_description(self, status: int, body: bytes) -> None:
        if status != 200:
            self._on_services((), f"the gateway answers HTTP {status} where its description should be")
            return
        try:
            services = parse_description(body, self.location)
        except MalformedUpnp as error:
            self._on_services((), error.message)
        else:
            self._on_services(services, "the gateway has no service that maps ports")

    def _on_services(self, services: tuple[Service, ...], words: str) -> None:
        """`words` say why there is none to map ports, if so."""
        self._deadline = None
        self._services = services
        if any(service.type.maps_ports for service in services):
            self._jobs.appendleft(self._choose)
        else:
            self._events.append(NoService(words))
        self._proceed()

    # --- conversations, one at a time ---------------------------------------------------------------------

    def _do(self, job: Callable[[], Conversation[None]]) -> None:
        self._jobs.append(job)
        self._proceed()

    def _proceed(self) -> None:
        """Begin what waits; the last deletion ends a client that is to be closed."""
        while self._talk is None and self._services is not None and self._jobs:
            self._talk = self._jobs.popleft()()
            self._step(None)
        if self._is_ending and self._talk is None and not self._jobs and not self.is_closed:
            self._finish()

    def _resume(self, outcome: Outcome) -> None:
        self._deadline = None
        self._step(outcome)
        self._proceed()

    def _step(self, outcome: Outcome | None) -> None:
        """Take a conversation to its next call, or to its end. ``None`` begins it."""
        assert self._talk is not None
        try:
            call = next(self._talk) if outcome is None else self._talk.send(outcome)
        except StopIteration:
            self._talk = self._call = None
            return
        self._ask("POST", call.service.control, call)

    def _choose(self) -> Conversation[None]:
        """Of several lines, the one with the best outside address; they are asked in order of quality."""
        found: dict[Outside, tuple[Service, OutsideAddress]] = {}
        for service in self._services or ():
            if not service.type.maps_ports or Outside.PUBLIC in found:
                continue
            outcome = yield Call(service, get_external_address())
            address = outside_address(outcome)
            found.setdefault(address.worth, (service, address))
        best = next(found[worth] for worth in Outside if worth in found)
        self._ports, self.outside = best
        self._events.append(best[1])

    def _list(self) -> Conversation[None]:
        ports = (yield from list_ports(self._ports)) if self._ports is not None else ()
        self._events.append(Listed(ports))

    def _open(self, holding: Holding) -> Conversation[None]:
        """Open it, or make it anew, and tell what has changed."""
        if holding.is_released:
            return
        service = self._service_for(holding.wanted)
        if service is None:
            self._give_up(holding, Refusal("the gateway has no service for this"))
            return
        holding.is_busy = True
        if holding.grant is not None and isinstance(holding.wanted, PortMapping):
            yield from self._look_outside(service)
        result = yield from self._conversation(service, holding)
        holding.is_busy = False
        if isinstance(result, Grant):
            self._on_grant(holding, result)
        else:
            self._on_refusal(holding, result)

    def _conversation(self, service: Service, holding: Holding) -> Conversation[Grant | Refusal]:
        wanted, grant = holding.wanted, holding.grant
        if isinstance(wanted, PortMapping):
            if grant is not None:
                # What was granted is asked for again: the same port, and no lease where there are none.
                wanted = replace(wanted, outside=grant.port, lease=wanted.lease if grant.lease else 0)
            return open_port(service, wanted, self._entropy)
        if grant is not None and grant.identity is not None:
            return renew_pinhole(service, wanted, grant.identity)
        return open_pinhole(service, wanted)

    def _look_outside(self, service: Service) -> Conversation[None]:
        """See whether the outside address has changed; without an answer it has not."""
        outcome = yield Call(service, get_external_address())
        address = outside_address(outcome)
        if isinstance(outcome, Answered) and address != self.outside:
            self.outside = address
            self._events.append(address)
            for holding in self._holdings.values():
                if holding.grant is not None and not holding.is_released:
                    self._tell(holding, holding.grant)

    def _close_one(self, holding: Holding) -> Conversation[None]:
        """Delete it and forget it; what cannot be deleted ends with its lease."""
        service, grant = self._service_for(holding.wanted), holding.grant
        if service is not None and grant is not None:
            if isinstance(holding.wanted, PortMapping):
                is_gone = yield from close_port(service, replace(holding.wanted, outside=grant.port))
            else:
                is_gone = grant.identity is None or (yield from close_pinhole(service, grant.identity))
            if not is_gone:
                self.counters["left"] += 1
        self._holdings.pop(holding.key, None)

    # --- what is held -------------------------------------------------------------------------------------

    def _service_for(self, wanted: Wanted) -> Service | None:
        if isinstance(wanted, PortMapping):
            return self._ports
        return next((service for service in self._services or () if not service.type.maps_ports), None)

    def _on_grant(self, holding: Holding, grant: Grant) -> None:
        holding.take(grant, self._now)
        # One that was released meanwhile is deleted next.
        if not holding.is_released:
            self._tell(holding, grant)

    def _on_refusal(self, holding: Holding, refusal: Refusal) -> None:
        """A mapping that still has time is asked for again; one without an end is lost at a clear no."""
        if holding.grant is None or (holding.expires_at is None and refusal.code is not None):
            self._give_up(holding, refusal)
        else:
            holding.retry(self._now)

    def _tell(self, holding: Holding, grant: Grant) -> None:
        """Say where it is open, unless that is known."""
        host: str | None = holding.wanted.host
        if isinstance(holding.wanted, PortMapping):
            host = self.outside.host if self.outside else None
        outside = Address(host, grant.port) if host else None
        told = holding.told
        if told is None or (told.port, told.outside) != (grant.port, outside):
            holding.told = Mapped(holding.key, grant.port, outside, grant.lease, grant.is_verified)
            self._events.append(holding.told)

    def _give_up(self, holding: Holding, refusal: Refusal) -> None:
        self._holdings.pop(holding.key, None)
        if holding.is_released:
            return
        holding.is_released = True
        was_open = holding.grant is not None
        self._events.append(MapFailed(holding.key, refusal.words, refusal.code, was_open))

    def _release(self, holding: Holding) -> None:
        """Delete it when its turn comes: after what is being done with it now."""
        holding.is_released = True
        self._do(partial(self._close_one, holding))

    def _renew_due(self) -> None:
        for holding in list(self._holdings.values()):
            if holding.is_due(self._now):
                holding.renew_at = None
                self._do(partial(self._open, holding))

    def _drop_expired(self) -> None:
        for holding in list(self._holdings.values()):
            if holding.is_expired(self._now):
                self._give_up(holding, Refusal("the mapping has ended and could not be renewed in time"))

    def _finish(self) -> None:
        left = self.counters["left"] + sum(each.grant is not None for each in self._holdings.values())
        self.is_closed = True
        self._talk = self._call = self._deadline = None
        self._requests.clear()
        self._jobs.clear()
        self._holdings.clear()
        self._events.append(Closed(left))
