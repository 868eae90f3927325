"""Ports that are opened by one program and closed by another: what `crowline map` does."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from crowline.api.port_mapping.mapper import PATIENCE, PortMapper, PortNotOpened, usual_host
from crowline.api.port_mapping.records import PortRecord, PortRecords
from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.net.gateway import Gateway, default_gateways
from crowline.net.interfaces import usable_hosts
from crowline.net.router import RouterDriver
from crowline.portmap.router_events import PortsListed, Protocol, RouterEvent

# Seconds for a router to be found, and to read out its table.
LIST_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class OpenedPort:
    """A port of a router that leads to `inside`. `lifetime` in seconds is what remains, 0 without an end.

    `outside` is ``None`` where the router names no address. `is_ours`: it was opened by `open_port` on this
    machine. `is_listed`: the router says that it is open.
    """

    transport: str
    port: int
    inside: Address
    outside: Address | None
    lifetime: float
    protocol: str
    gateway: str
    description: str = ""
    is_ours: bool = False
    is_listed: bool = False


async def open_port(
    port: int,
    transport: Transport,
    *,
    host: str | None = None,
    outside_port: int = 0,
    lifetime: int,
    records: PortRecords | None = None,
) -> OpenedPort:
    """Open it, and leave it open for `lifetime` seconds. Raises `PortNotOpened`, with the reason."""
    kept = records or PortRecords()
    own = host or usual_host()
    before = next((each for each in kept.all() if each.key == (own, transport.value, port)), None)
    nonce = before.nonce if before is not None else b""
    mapper = PortMapper(lifetime=lifetime, follows=False)
    try:
        opened = mapper.open(port, transport, host=own, outside_port=outside_port, nonce=nonce)
        with suppress(PortNotOpened):
            await opened.opened()
        if not opened.is_open:
            await opened.opened(0)
        ends = 0.0 if opened.is_permanent else time.time() + opened.lifetime
        kept.add(
            PortRecord(
                own,
                transport.value,
                port,
                opened.outside.host if opened.outside else "",
                opened.port,
                opened.protocol,
                opened.gateway,
                ends,
                mapper.nonce_of(opened),
            )
        )
    finally:
        mapper.abandon()
    return OpenedPort(
        transport.value,
        opened.port,
        opened.local,
        opened.outside,
        0.0 if opened.is_permanent else opened.lifetime,
        opened.protocol,
        opened.gateway,
        is_ours=True,
    )


async def close_port(
    port: int, transport: Transport, *, host: str | None = None, records: PortRecords | None = None
) -> None:
    """Close what `open_port` opened; what something else opened for this machine, too, if the router lets us.

    Raises `PortNotOpened` where the router does not answer or says no.
    """
    kept = records or PortRecords()
    record = kept.find(transport.value, port)
    own = host or (record.host if record is not None else usual_host())
    if record is not None and own not in usable_hosts():
        # Another network: the router there closes it at its end.
        kept.remove(record)
        return
    outside_port = record.outside_port if record is not None else 0
    nonce = record.nonce if record is not None else b""
    async with PortMapper(follows=False) as mapper:
        # The router is asked for what it has already: so it is known which of its protocols closes it.
        again = mapper.open(port, transport, host=own, outside_port=outside_port, nonce=nonce)
        with suppress(PortNotOpened):
            await again.opened(PATIENCE)
        if not again.is_open:
            await again.opened(0)
    if mapper.left:
        raise PortNotOpened(
            f"The router did not say that it closed {transport.name} port {port}: it may still be open.",
            hint="Is the router within reach? Else its own pages can close the port.",
        )
    if record is not None:
        kept.remove(record)


async def list_ports(*, records: PortRecords | None = None) -> list[OpenedPort]:
    """What the routers have open as far as UPnP tells, and what was opened here by other protocols."""
    ours = (records or PortRecords()).all()
    gateways = [each for each in await asyncio.to_thread(default_gateways) if not each.is_ipv6]
    tables = await asyncio.gather(*(_table_of(each, ours) for each in gateways))
    listed = [port for table in tables for port in table]
    known = {(port.transport, port.inside) for port in listed}
    return listed + [
        _recorded(each) for each in ours if (each.transport, Address(each.host, each.port)) not in known
    ]


async def _table_of(gateway: Gateway, ours: list[PortRecord]) -> list[OpenedPort]:
    """What one router has open; nothing where it does not speak UPnP."""
    listed: asyncio.Future[PortsListed] = asyncio.get_running_loop().create_future()
    news = asyncio.Event()

    def on_event(event: RouterEvent) -> None:
        if isinstance(event, PortsListed) and not listed.done():
            listed.set_result(event)
        news.set()

    try:
        driver = RouterDriver(gateway, on_event)
    except OSError:
        return []
    try:
        async with asyncio.timeout(LIST_LIMIT):
            while not driver.client.is_settled and Protocol.UPNP not in driver.client.protocols:
                news.clear()
                await news.wait()
            if Protocol.UPNP not in driver.client.protocols:
                return []
            driver.list_ports()
            table = await listed
    except TimeoutError:
        return []
    finally:
        driver.close()
    outside = driver.client.outside_host
    return [
        OpenedPort(
            each.protocol.value.lower(),
            each.port,
            each.inside,
            Address(outside, each.port) if outside else None,
            float(each.lease),
            Protocol.UPNP.value,
            gateway.host,
            each.description,
            is_ours=any(
                record.key == (each.inside.host, each.protocol.value.lower(), each.inside.port)
                for record in ours
            ),
            is_listed=True,
        )
        for each in table.ports
    ]


def _recorded(record: PortRecord) -> OpenedPort:
    outside = Address(record.outside_host, record.outside_port) if record.outside_host else None
    return OpenedPort(
        record.transport,
        record.outside_port,
        Address(record.host, record.port),
        outside,
        max(record.ends - time.time(), 0.0) if record.ends else 0.0,
        record.protocol,
        record.gateway,
        is_ours=True,
    )
