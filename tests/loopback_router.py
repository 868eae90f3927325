"""A router of the zoo on a loopback address of its own, with all the ports that routers have."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.lab.nat import Nat
from crowline.lab.port_mapping_service import PORT, PortMappingService
from crowline.lab.presets import HOME
from crowline.lab.profile import PortMapping
from crowline.lab.router_temper import ZOO, Temper
from crowline.lab.upnp_device import SSDP_PORT, UpnpDevice
from crowline.lab.upnp_sockets import Served, served
from crowline.net.gateway import Gateway
from needs import missing

HOST, OUTSIDE = "127.0.0.1", "44.1.1.7"
LOOPBACK = 1  # the index of its interface


@dataclass(frozen=True)
class LoopbackRouter:
    """The router, what it works on, and how the product's driver finds it. `asked` are the hosts whose
    datagrams reached its port 5351, and how often."""

    gateway: Gateway
    nat: Nat
    device: UpnpDevice
    place: Served
    asked: dict[str, int]


def loopback_host() -> str:
    """An address of this machine that hardly anybody else has just now."""
    return "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))


@asynccontextmanager
async def loopback_router(
    temper: str | Temper, kind: PortMapping = PortMapping.UPNP
) -> AsyncIterator[LoopbackRouter]:
    """With `PortMapping.UPNP` it has UPnP alone, and otherwise NAT-PMP or PCP alone."""
    is_upnp = kind is PortMapping.UPNP
    made = ZOO[temper] if isinstance(temper, str) else temper
    nat = Nat(HOME, OUTSIDE, random.Random(1).randbytes)
    now = time.monotonic()
    async with AsyncExitStack() as stack:
        for _ in range(20):
            host = loopback_host()
            device = UpnpDevice(nat, host, made, entropy=random.Random(2).randbytes, now=now, http_port=0)
            try:
                place = await stack.enter_async_context(served(device, ssdp_port=SSDP_PORT if is_upnp else 0))
                asked = _serve_mappings(
                    stack, host, None if is_upnp else PortMappingService(nat, kind, now, made)
                )
            except OSError:
                continue
            yield LoopbackRouter(Gateway(host, HOST, LOOPBACK, "lo"), nat, device, place, asked)
            return
    missing("no loopback address can be bound here but the first")


def _serve_mappings(stack: AsyncExitStack, host: str, service: PortMappingService | None) -> dict[str, int]:
    """Answer at port 5351, or only hear what comes there."""
    asked: dict[str, int] = {}
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stack.callback(sock.close)
    sock.setblocking(False)
    sock.bind((host, PORT))
    others: dict[str, socket.socket] = {}
    loop = asyncio.get_running_loop()

    def heard() -> None:
        data, source = sock.recvfrom(2048)
        asked[source[0]] = asked.get(source[0], 0) + 1
        if service is None:
            return
        service.receive(data, Address(source[0], source[1]), time.monotonic(), Address(host, PORT))
        while (answer := service.next_transmit()) is not None:
            speaker = sock if answer.local is None or answer.local.host == host else other(answer.local.host)
            speaker.sendto(bytes(answer.data), source)

    def other(at: str) -> socket.socket:
        if at not in others:
            others[at] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stack.callback(others[at].close)
            others[at].bind((at, PORT))
        return others[at]

    loop.add_reader(sock, heard)
    stack.callback(loop.remove_reader, sock)
    return asked
