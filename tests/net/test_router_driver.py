"""The driver of a router's client: what is left of it when it ends, however that happens."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from crowline.base.transport import Transport
from crowline.lab.profile import PortMapping
from crowline.lab.router_temper import PLAIN
from crowline.net import router
from crowline.net.gateway import Gateway
from crowline.net.router import RouterDriver
from crowline.portmap.router_events import Opened
from crowline.portmap.router_port import OpenPort
from loopback_router import loopback_router

NOBODY = Gateway("127.0.0.1", "127.0.0.1", 1, "lo")


async def test_a_driver_that_ends_before_it_began_leaves_no_socket() -> None:
    """Whoever changes their mind within one turn of the loop."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        RouterDriver(NOBODY, lambda _: None).close()
        await RouterDriver(NOBODY, lambda _: None).aclose()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
    assert [str(each.message) for each in caught] == []


async def test_a_farewell_that_is_cut_short_closes_all_the_same() -> None:
    """A router that does not answer any more, and somebody who does not wait for it."""
    async with loopback_router(PLAIN, PortMapping.PCP) as place:
        opened = asyncio.Event()
        driver = RouterDriver(
            place.gateway, lambda event: opened.set() if isinstance(event, Opened) else None
        )
        driver.open(OpenPort(Transport.UDP, 4000))
        async with asyncio.timeout(30):
            await opened.wait()
        leaving = asyncio.create_task(driver.aclose())
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert driver._is_closed and not driver._transports


async def test_the_routers_other_address_is_believed_once_the_network_has_shown_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first answer may come before; and strangers who ask to be looked up do not stand in its way."""
    seen: set[str] = set()
    looks: list[str] = []

    def is_same_station(one: str, other: str, index: int) -> bool:
        looks.append(other)
        return other in seen

    monkeypatch.setattr(router, "is_same_station", is_same_station)
    clock = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock)
    driver = RouterDriver(NOBODY, lambda _: None)
    try:
        assert not driver._is_gateway("2001:db8::1")
        for each in range(1000):
            assert not driver._is_gateway(f"2001:db8::5:{each:x}")
        assert len(looks) < 100
        seen.add("2001:db8::1")
        clock += 10.0
        assert driver._is_gateway("2001:db8::1")
        before = len(looks)
        assert all(driver._is_gateway("2001:db8::1") for _ in range(100)) and len(looks) == before
    finally:
        await driver.aclose()
