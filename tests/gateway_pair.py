"""A client of a gateway and the laboratory's gateway, in virtual time, one millisecond apart."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from crowline.base.addresses import Address
from crowline.lab.nat import Nat
from crowline.lab.port_mapping_service import PORT, PortMappingService
from crowline.lab.presets import HOME
from crowline.lab.profile import PortMapping
from crowline.portmap.client import MappingClient
from crowline.portmap.events import PortMapEvent

OUTSIDE = "203.0.113.7"
HOST = "192.168.1.10"
GATEWAY = Address("192.168.1.1", PORT)
CLIENT = Address(HOST, 50000)
STRANGER = Address("198.51.100.9", 7)
DELAY = 0.001

E = TypeVar("E", bound=PortMapEvent)


class GatewayPair:
    """`asked` are the client's datagrams with their times; `events` what it said.

    `loses(data)` is asked for each datagram, of either side; without a service nobody answers.
    """

    def __init__(
        self,
        kind: PortMapping | None = PortMapping.PCP,
        *,
        started: float = 0.0,
        lifetime: int = 7200,
        allows_third_party: bool = False,
    ) -> None:
        self.now = 1000.0
        self.nat = Nat(HOME, OUTSIDE, random.Random(1).randbytes)
        self.service = PortMappingService(self.nat, kind, started) if kind is not None else None
        self.asked: list[tuple[float, bytes]] = []
        self.events: list[PortMapEvent] = []
        self.loses: Callable[[bytes], bool] = lambda data: False
        self.client = MappingClient(
            HOST,
            GATEWAY.host,
            random.Random(2).randbytes,
            self.now,
            lifetime=lifetime,
            allows_third_party=allows_third_party,
        )

    def run(self, seconds: float = 0.1) -> list[PortMapEvent]:
        """Let time pass; what the client said meanwhile."""
        end, before = self.now + seconds, len(self.events)
        self._exchange()
        while (due := self.client.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.client.handle_timeout(self.now)
            self._exchange()
        self.now = max(self.now, end)
        return self.events[before:]

    def answer(self, data: bytes, source: Address = GATEWAY) -> list[PortMapEvent]:
        """Hand the client a datagram, and let the gateway answer what it sends upon it."""
        before = len(self.events)
        self.client.receive(data, source, self.now)
        self._exchange()
        return self.events[before:]

    def sent(self) -> list[bytes]:
        """Take what the client has sent, without an answer."""
        taken = []
        while (transmit := self.client.next_transmit()) is not None:
            assert transmit.destination == GATEWAY
            taken.append(bytes(transmit.data))
        return taken

    def enters(self, port: int, protocol: int = 17) -> Address | None:
        """Where a stranger's packet to that outside port ends up."""
        return self.nat.inbound(protocol, Address(self.nat.external_host, port), STRANGER, self.now)

    def _exchange(self) -> None:
        while requests := self.sent():
            for request in requests:
                self.asked.append((self.now, request))
                self._serve(request)
        while (event := self.client.next_event()) is not None:
            self.events.append(event)

    def _serve(self, request: bytes) -> None:
        if self.service is None or self.loses(request):
            return
        self.service.receive(request, CLIENT, self.now + DELAY, GATEWAY)
        while (answer := self.service.next_transmit()) is not None:
            if not self.loses(bytes(answer.data)):
                self.client.receive(answer.data, GATEWAY, self.now + 2 * DELAY)


def only(events: list[PortMapEvent], kind: type[E]) -> E:
    """The one event of that kind."""
    (event,) = [event for event in events if isinstance(event, kind)]
    return event
