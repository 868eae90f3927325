"""The driver of a router's client: what is left of it when it ends, however that happens."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from crowline.base.transport import Transport
from crowline.lab.profile import PortMapping
from crowline.lab.router_temper import PLAIN
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
