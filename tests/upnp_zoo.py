"""A gateway's client and a router of the laboratory's zoo, in virtual time."""

from __future__ import annotations

import random
from typing import TypeVar

from crowline.base.addresses import Address
from crowline.lab.behaviour import UDP
from crowline.lab.nat import Nat
from crowline.lab.presets import HOME
from crowline.lab.router_temper import ZOO, Temper
from crowline.lab.upnp_device import SSDP_PORT, UpnpDevice
from crowline.lab.upnp_http import HttpAsked
from crowline.portmap.upnp.client import GatewayClient
from crowline.portmap.upnp.discovery import Discovery, DiscoveryEvent, LocationFound
from crowline.portmap.upnp.events import GatewayEvent, HttpRequest
from crowline.portmap.upnp.gateway_url import GatewayUrl
from crowline.portmap.upnp.port_actions import PortMapping, Protocol

GATEWAY, HOST, OUTSIDE = "192.168.1.1", "192.168.1.10", "44.1.1.7"
STRANGER = Address("44.9.0.1", 7)
PORT = 4000

E = TypeVar("E", bound=GatewayEvent)


class ZooPair:
    """`events` is all that the client has said; `asked` the targets of its requests."""

    def __init__(self, temper: str | Temper) -> None:
        self.now = 1000.0
        self.nat = Nat(HOME, OUTSIDE, random.Random(1).randbytes)
        kind = ZOO[temper] if isinstance(temper, str) else temper
        self.device = UpnpDevice(self.nat, GATEWAY, kind, entropy=random.Random(2).randbytes, now=self.now)
        self.events: list[GatewayEvent] = []
        self.asked: list[HttpRequest] = []
        self._answers: list[tuple[float, int, tuple[int, bytes] | None]] = []
        location = GatewayUrl.parse(f"http://{GATEWAY}:5000/rootDesc.xml", GATEWAY)
        self.client = GatewayClient(location, entropy=random.Random(3).randbytes)

    def start(self) -> None:
        """Let the client read the description, for as long as it takes."""
        self.client.start(self.now)
        self.run(60.0)

    def wanted(self, lease: int = 3600, outside: int = PORT) -> PortMapping:
        return PortMapping(Protocol.UDP, outside, PORT, HOST, lease)

    def run(self, seconds: float) -> list[GatewayEvent]:
        """Let time pass; what the client said meanwhile."""
        end, before = self.now + seconds, len(self.events)
        self._settle()
        while (due := self._next()) is not None and due <= end:
            self.now = max(self.now, due)
            self.client.handle_timeout(self.now)
            self._settle()
        self.now = max(self.now, end)
        return self.events[before:]

    def enters(self, port: int) -> Address | None:
        """Where a stranger's datagram to that outside port ends up."""
        return self.nat.inbound(UDP, Address(OUTSIDE, port), STRANGER, self.now)

    def said(self, kind: type[E]) -> list[E]:
        """The events of that kind, in their order."""
        return [event for event in self.events if isinstance(event, kind)]

    def _next(self) -> float | None:
        times = [self.client.next_timeout(), *(at for at, _, _ in self._answers)]
        return min((time for time in times if time is not None), default=None)

    def _settle(self) -> None:
        """Carry requests and answers until nothing is due."""
        while True:
            while (request := self.client.next_request()) is not None:
                self.asked.append(request)
                self._answer(request)
            due = next((each for each in self._answers if each[0] <= self.now), None)
            if due is None:
                break
            self._answers.remove(due)
            _, number, answer = due
            if answer is None:
                self.client.receive_failure(number, self.now)
            else:
                self.client.receive_answer(number, *answer, self.now)
        while (event := self.client.next_event()) is not None:
            self.events.append(event)

    def _answer(self, request: HttpRequest) -> None:
        assert request.url.address == self.device.http
        headers = {name.lower(): value for name, value in request.headers}
        asked = HttpAsked(request.method, request.url.target, headers, request.body)
        reply = self.device.answer(asked, HOST, self.now)
        if reply is None:
            return
        body = reply.body * 10 if reply.is_endless else reply.body
        answer = None if reply.is_cut else (reply.status, body[: request.limit])
        self._answers.append((self.now + reply.delay, request.number, answer))


def search(device: UpnpDevice) -> list[DiscoveryEvent]:
    """What a search of the client finds, with answers from wherever the device sends them."""
    discovery = Discovery(GATEWAY)
    discovery.start(0.0)
    found: list[DiscoveryEvent] = []
    while (due := discovery.next_timeout()) is not None:
        while (transmit := discovery.next_transmit()) is not None:
            for reply in device.search(bytes(transmit.data)):
                discovery.receive(reply.data, Address(reply.host, SSDP_PORT), due)
        discovery.handle_timeout(due)
        while (event := discovery.next_event()) is not None:
            found.append(event)
    return found


def locations(found: list[DiscoveryEvent]) -> list[str]:
    """The URLs among them."""
    return [str(event.answer.location) for event in found if isinstance(event, LocationFound)]
