"""Routers that lie, stall, flood and lead elsewhere, on real sockets against the product's driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.lab.profile import PortMapping
from crowline.lab.router_temper import WORKING, ZOO, Temper
from crowline.net import gateway_http
from crowline.net.router import RouterDriver
from crowline.portmap.router_events import Opened, OutsideIs, Protocol, Refused, RouterEvent
from crowline.portmap.router_port import OpenPort
from crowline.portmap.upnp import discovery
from crowline.portmap.upnp.element import MAX_DOCUMENT
from loopback_router import HOST, OUTSIDE, LoopbackRouter, loopback_host, loopback_router

E = TypeVar("E", bound=RouterEvent)

PATIENCE = 30.0  # seconds for what must happen
PORT = 4000
WANTED = OpenPort(Transport.UDP, PORT)
DATAGRAMS = pytest.mark.parametrize(
    "kind", [PortMapping.NAT_PMP, PortMapping.PCP], ids=lambda kind: kind.value
)


class Asker:
    """The driver, and what it said."""

    def __init__(self, router: LoopbackRouter) -> None:
        self.events: list[RouterEvent] = []
        self._news = asyncio.Event()
        self.driver = RouterDriver(router.gateway, self._heard)

    async def wait(self, kind: type[E], is_meant: Callable[[E], bool] = lambda event: True) -> E:
        """The first event of that kind."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and is_meant(event):
                        return event
                self._news.clear()
                await self._news.wait()

    def _heard(self, event: RouterEvent) -> None:
        self.events.append(event)
        self._news.set()


@asynccontextmanager
async def asking(router: LoopbackRouter) -> AsyncIterator[Asker]:
    asker = Asker(router)
    try:
        yield asker
    finally:
        await asker.driver.aclose()


async def opened_by(temper: Temper, kind: PortMapping = PortMapping.UPNP) -> tuple[LoopbackRouter, Asker]:
    """What came of asking such a router, after the words of its refusal."""
    async with loopback_router(temper, kind) as router, asking(router) as asker:
        asker.driver.open(WANTED)
        assert (await asker.wait(Refused)).words
        assert not [event for event in asker.events if isinstance(event, Opened)]
        assert len(router.nat) == 0
        return router, asker


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router that says nothing has one second instead of eight."""
    monkeypatch.setattr(gateway_http, "LIMIT", 1.0)


async def test_routers_that_work_in_their_way_open_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """By UPnP alone, whatever is odd about them; at the end nothing is left open."""
    # On a busy machine the answers to ten searches may come later than those of a router.
    monkeypatch.setattr(discovery, "SEARCH_LIMIT", PATIENCE)

    async def try_one(name: str) -> None:
        async with loopback_router(name) as router:
            async with asking(router) as asker:
                asker.driver.open(WANTED)
                opened = await asker.wait(Opened)
                assert opened.protocol is Protocol.UPNP, name
                assert opened.outside == Address(OUTSIDE, opened.port), name
                assert list(router.device.mappings(0.0).values()) == [Address(HOST, PORT)], name
            assert router.device.mappings(0.0) == {}, name

    # The others take long, or differ from these only in what comes later.
    others = ("slow", "jealous", "short-lease")
    await asyncio.gather(*(try_one(name) for name in WORKING if name not in others))


@pytest.mark.usefixtures("_impatient")
async def test_a_router_that_cannot_be_read_opens_nothing() -> None:
    """The owner hears why, and no action was asked of it. Each takes seconds, so all are asked at once."""
    names = ("silent", "redirecting", "giant", "deep", "entities", "half", "login-page")
    results = await asyncio.gather(*(opened_by(ZOO[name]) for name in names))
    for router, _ in results:
        assert router.device.counters["search"] > 0
        assert set(router.device.counters) <= {"search", "description"}
    # A document without an end is left after a few times what is read of it: connections on loopback buffer
    # up to 6 MiB on either side.
    giant, _ = results[names.index("giant")]
    assert MAX_DOCUMENT < giant.place.sent["bytes"] < 32 << 20


async def test_nobody_else_speaks_for_the_router() -> None:
    """Neither another host's answer counts, by any protocol, nor a location on one."""
    others = [replace(ZOO["ventriloquist"], speaks_from=loopback_host()) for _ in range(3)]
    (elsewhere, _), (upnp, _), *datagrams = await asyncio.gather(
        opened_by(ZOO["elsewhere"]),
        opened_by(others[0]),
        opened_by(others[1], PortMapping.NAT_PMP),
        opened_by(others[2], PortMapping.PCP),
    )
    assert set(elsewhere.device.counters) == set(upnp.device.counters) == {"search"}
    for router, asker in datagrams:
        assert router.asked[HOST] > 1
        assert asker.driver.client.counters["stranger"] > 0


@DATAGRAMS
@pytest.mark.parametrize("name", ["plain", "other-port", "stutterer"])
async def test_what_is_granted_by_datagram_is_taken(kind: PortMapping, name: str) -> None:
    """Also another port than asked, and an answer that comes three times."""
    async with loopback_router(name, kind) as router:
        async with asking(router) as asker:
            asker.driver.open(WANTED)
            opened = await asker.wait(Opened)
            assert opened.protocol.name == kind.name
            assert (opened.port != PORT) == (name == "other-port")
            assert opened.outside == Address(OUTSIDE, opened.port)
            assert len([event for event in asker.events if isinstance(event, Opened)]) == 1
        assert len(router.nat) == 0


async def test_a_refusal_is_a_refusal() -> None:
    """By each protocol: the words say why, and nothing is open."""
    await asyncio.gather(
        *(opened_by(ZOO["locked"], kind) for kind in (PortMapping.NAT_PMP, PortMapping.PCP)),
    )


async def test_a_private_outside_address_is_told_as_it_is() -> None:
    """Whoever asked for the port sees that another router is outside of this one."""
    async with loopback_router("behind-another") as router, asking(router) as asker:
        asker.driver.open(WANTED)
        assert (await asker.wait(OutsideIs)).host == "192.168.100.2"
