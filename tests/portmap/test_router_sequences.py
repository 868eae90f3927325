"""The client of one router in whatever order things happen: it never fails, never spins, and ends."""

from __future__ import annotations

import random

import pytest

from crowline.base.errors import UsageError
from crowline.base.transport import Transport
from crowline.lab.profile import PortMapping
from crowline.portmap.router_events import Lost, Opened
from crowline.portmap.router_port import KnownRouter, OpenPort, Protocol
from crowline.portmap.upnp.gateway_url import GatewayUrl
from router_pair import LOCATION, OUTSIDE, RouterPair, notice
from upnp_router import FIREWALL, GATEWAY, OWN, OWN_IPV6, PPP, V1, V2, Refuse, Router

ELSEWHERE = f"http://{GATEWAY}:5001/other.xml"
FAULTS = (401, 402, 501, 606, 714, 718, 724, 725, 728, 0)
LEASES = ("0", "1", "3", "10", "60", "7200")
STEPS, SEEDS = 60, 40
# For each second on the average, with up to 80 ports at a router of whatever mood.
MOST_DATAGRAMS, MOST_REQUESTS = 1.0, 5.0


class Life:
    """A client and a router whose moods change by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.refuses = self.loses = 0.0
        self.boots = 1
        services = [(V1, "/c")], [(V2, "/c")], [(V1, "/c"), (PPP, "/d")], [(V1, "/c"), (FIREWALL, "/e")], []
        self.router = Router(services=tuple(chance.choice(services)), outside=OUTSIDE)
        self.router.before = self._before
        self.router.rewrite = lambda status, body: None if chance.random() < self.loses else (status, body)
        known = KnownRouter(Protocol.UPNP, GatewayUrl.parse(chance.choice((LOCATION, ELSEWHERE)), GATEWAY))
        self.pair = RouterPair(
            chance.choice((None, PortMapping.PCP, PortMapping.NAT_PMP)),
            self.router if chance.random() < 0.8 else None,
            host=OWN_IPV6 if chance.random() < 0.2 else OWN,
            known=known if chance.random() < 0.2 else None,
        )
        self.pair.hears = lambda data: chance.random() >= self.loses
        self.open: list[int] = []

    def live(self) -> None:
        pair, chance = self.pair, self.chance
        acts = (self._open, self._open, self._close, self._change, self._restart, self._search, self._end)
        for _ in range(STEPS):
            act = chance.choices(acts, (4, 4, 4, 6, 3, 1, 0.3))[0]
            act()
            pair.run(chance.choice((0, 0.01, 0.3, 3, 30, 700, 4000)))

    def _open(self) -> None:
        chance = self.chance
        transport = chance.choice((Transport.UDP, Transport.TCP))
        wanted = OpenPort(transport, chance.randrange(4000, 4080), chance.choice((0, 0, 5000)))
        try:
            self.open.append(self.pair.client.open(wanted, self.pair.now))
        except UsageError:
            # It is open already, or the client has been closed.
            return

    def _close(self) -> None:
        if self.open:
            number = self.open.pop(self.chance.randrange(len(self.open)))
            self.pair.client.close(number, self.pair.now)

    def _change(self) -> None:
        self.refuses, self.loses = (self.chance.choice((0, 0, 0.3, 1)) for _ in range(2))
        self.pair.serves_http = self.chance.random() < 0.7

    def _restart(self) -> None:
        self.boots += 1
        self.router.entries.clear()
        self.pair.location = self.chance.choice((LOCATION, ELSEWHERE))
        if self.pair.service is not None:
            self.pair.service.restart(self.pair.now)
        self.pair.tell(notice(self.chance.choice(("alive", "byebye")), self.pair.location, self.boots))

    def _search(self) -> None:
        self.pair.client.list_ports(self.pair.now)

    def _end(self) -> None:
        self.pair.client.close_all(self.pair.now)

    def _before(self, action: str, values: dict[str, str]) -> None:
        if self.chance.random() < self.refuses or action == "GetGenericPortMappingEntry":
            raise Refuse(self.chance.choice(FAULTS))
        if action == "AddPortMapping" and self.chance.random() < self.refuses:
            values["NewLeaseDuration"] = self.chance.choice(LEASES)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_the_client_goes_on_and_ends(seed: int) -> None:
    """Ports come and go, the router restarts, moves, refuses and falls silent; it is not asked in floods."""
    life = Life(seed)
    pair = life.pair
    began = pair.now
    life.live()
    seconds = pair.now - began + 100
    assert len(pair.asked) < MOST_DATAGRAMS * seconds
    assert len(life.router.asked) < MOST_REQUESTS * seconds
    pair.client.close_all(pair.now)
    pair.run(4.0)
    assert pair.client.is_idle
    told: set[int] = set()
    for event in pair.events:
        if isinstance(event, Opened):
            told.add(event.number)
        elif isinstance(event, Lost):
            told.remove(event.number)
