"""A client of a router and a router of any kind, in virtual time: PCP or NAT-PMP, UPnP, both, or neither."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from crowline.base.addresses import Address
from crowline.lab.nat import Nat
from crowline.lab.port_mapping_service import PORT, PortMappingService
from crowline.lab.presets import HOME
from crowline.lab.profile import PortMapping
from crowline.lab.router_temper import PLAIN, Temper
from crowline.portmap.router_client import RouterClient
from crowline.portmap.router_events import RouterEvent
from crowline.portmap.router_port import KnownRouter
from crowline.portmap.upnp.discovery import IsGateway
from upnp_router import GATEWAY, OWN, Router

OUTSIDE = "44.1.1.5"
SSDP = Address(GATEWAY, 1900)
IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
LOCATION = f"http://{GATEWAY}:5000/rootDesc.xml"

E = TypeVar("E", bound=RouterEvent)


def ssdp_answer(location: str = LOCATION, boot: int = 1) -> bytes:
    """What a router says to a search."""
    return (
        f"HTTP/1.1 200 OK\r\nST: {IGD}\r\nUSN: uuid:x::{IGD}\r\nLOCATION: {location}\r\n"
        f"BOOTID.UPNP.ORG: {boot}\r\n\r\n"
    ).encode()


def notice(
    kind: str = "alive", location: str = LOCATION, boot: int | None = 1, target: str = IGD, uuid: str = "x"
) -> bytes:
    """What a router says to everybody."""
    lines = [
        "NOTIFY * HTTP/1.1",
        "HOST: 239.255.255.250:1900",
        f"NT: {target}",
        f"USN: uuid:{uuid}::{target}",
        f"NTS: ssdp:{kind}",
        *([f"LOCATION: {location}"] if kind == "alive" else []),
        *([] if boot is None else [f"BOOTID.UPNP.ORG: {boot}"]),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


class RouterPair:
    """`events` is what the client said, `asked` which datagrams it sent where and when.

    `serves_http` and `hears` say whether an HTTP request or a datagram gets an answer now.
    """

    def __init__(
        self,
        kind: PortMapping | None,
        upnp: Router | None = None,
        *,
        host: str = OWN,
        gateway: str = GATEWAY,
        known: KnownRouter | None = None,
        lifetime: int = 7200,
        is_gateway: IsGateway | None = None,
        temper: Temper = PLAIN,
    ) -> None:
        self.now = 1000.0
        self.nat = Nat(HOME, OUTSIDE, random.Random(1).randbytes)
        self.service = PortMappingService(self.nat, kind, 0.0, temper) if kind is not None else None
        self.upnp = upnp
        self.location = LOCATION
        self.answers_from = SSDP
        self.asked: list[tuple[float, Address, bytes]] = []
        self.events: list[RouterEvent] = []
        self.serves_http = True
        self.hears: Callable[[bytes], bool] = lambda data: True
        self.delay = 0.0
        self.client = RouterClient(
            host,
            gateway,
            random.Random(2).randbytes,
            self.now,
            known=known,
            lifetime=lifetime,
            is_gateway=is_gateway,
        )

    def run(self, seconds: float = 0.1) -> list[RouterEvent]:
        """Let time pass; what the client said meanwhile."""
        end, before = self.now + seconds, len(self.events)
        self._exchange()
        for _ in range(100_000):
            due = self.client.next_timeout()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.client.handle_timeout(self.now)
            self._exchange()
        else:
            raise AssertionError("the client's time stands still")
        self.now = max(self.now, end)
        return self.events[before:]

    def tell(self, data: bytes, source: Address = SSDP) -> list[RouterEvent]:
        """Hand the client a datagram; what it says to that."""
        before = len(self.events)
        self.client.receive(data, source, self.now)
        self._exchange()
        return self.events[before:]

    def said(self, kind: type[E]) -> list[E]:
        """All events of that kind until now."""
        return [event for event in self.events if isinstance(event, kind)]

    def searches(self) -> int:
        """Datagrams of SSDP that the client sent."""
        return sum(destination.port == 1900 for _, destination, _ in self.asked)

    def _exchange(self) -> None:
        is_busy = True
        while is_busy:
            is_busy = False
            while (transmit := self.client.next_transmit()) is not None:
                is_busy = True
                self.asked.append((self.now, transmit.destination, bytes(transmit.data)))
                if self.hears(bytes(transmit.data)):
                    self._serve(bytes(transmit.data), transmit.destination)
            while (request := self.client.next_request()) is not None:
                is_busy = True
                answer = self.upnp.answer(request) if self.upnp is not None and self.serves_http else None
                if answer is None or str(request.url.address) not in self.location:
                    self.client.receive_failure(request.number, self.now)
                else:
                    self.client.receive_answer(request.number, *answer, self.now)
            while (event := self.client.next_event()) is not None:
                self.events.append(event)

    def _serve(self, data: bytes, destination: Address) -> None:
        if destination.port == 1900 and self.upnp is not None:
            self.client.receive(ssdp_answer(self.location), self.answers_from, self.now)
        if destination.port != PORT or self.service is None:
            return
        self.service.receive(data, Address(OWN, 50000), self.now, Address(GATEWAY, PORT))
        while (answer := self.service.next_transmit()) is not None:
            self.client.receive(answer.data, Address(GATEWAY, PORT), self.now)
