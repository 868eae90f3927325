"""Ports of this machine that its routers open to everybody: asked for, kept open, and closed at the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.errors import LocalProblem, UsageError
from crowline.base.transport import Transport
from crowline.net.gateway import Gateway, default_gateways, gateway_of
from crowline.net.network_watch import NetworkWatch
from crowline.net.router import RouterDriver
from crowline.net.router_memory import RouterMemory
from crowline.portmap.client import LIFETIME
from crowline.portmap.router_events import (
    Closed,
    Lost,
    Opened,
    OutsideIs,
    ProtocolFound,
    Refused,
    Renewed,
    RouterEvent,
    RouterSilent,
)
from crowline.portmap.router_port import OpenPort

# Seconds to wait for a port: UPnP needs a second, and four where the router is slow.
PATIENCE = 8.0


class PortNotOpened(LocalProblem):
    """No router opens that port."""


@dataclass(frozen=True, slots=True)
class RouterNews:
    """Something about a router, in words."""

    gateway: str
    words: str


class PortMap:
    """One port. It changes as the router does; `on_change` is called after each change.

    `local` is this machine's end and `outside` where everybody reaches it, ``None`` while it is not open or
    the router names no address of its own; `port` is the router's port all the same, 0 while it is not open.
    `reason` says why it is not open.
    """

    def __init__(
        self,
        local: Address,
        transport: Transport,
        suggested_port: int,
        on_change: Callable[[PortMap], None] | None,
        nonce: bytes = b"",
    ) -> None:
        self.local = local
        self.transport = transport
        self.outside: Address | None = None
        self.port = 0
        self.protocol = ""
        self.lifetime = 0.0
        self.gateway = ""
        self.reason = "the router has not answered yet"
        self._wanted = OpenPort(transport, local.port, suggested_port, nonce)
        self._on_change = on_change
        self._is_usual = False
        self._asked_from = ""
        self._number: int | None = None
        self._changed = asyncio.Event()
        self._is_refused = False
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether the router has said yes, and not taken it back."""
        return self.port != 0

    @property
    def is_settled(self) -> bool:
        """Whether it is open, or known not to be had for now."""
        return self.is_open or self._is_refused

    @property
    def is_public(self) -> bool:
        """Whether `outside` can be reached from everywhere, and not only from another router's network."""
        return self.outside is not None and classify(self.outside.host) is AddressClass.OPEN

    @property
    def is_permanent(self) -> bool:
        """Whether the router knows no end of it: it stays open until somebody closes it."""
        return math.isinf(self.lifetime)

    async def opened(self, timeout: float = PATIENCE) -> Address:
        """Where everybody reaches it. Raises `PortNotOpened`, with the reason."""
        try:
            async with asyncio.timeout(timeout):
                while not self.is_open and not self._is_refused and not self._is_closed:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        if self.is_open and self.outside is None:
            raise PortNotOpened("The router opened the port, but does not say at which address.")
        if self.outside is None:
            raise PortNotOpened(
                f"{self.transport.name} port {self.local.port} was not opened: {self.reason}.",
                hint="Is UPnP, NAT-PMP or PCP switched on at the router?",
            )
        return self.outside

    def _tell(self) -> None:
        self._changed.set()
        if self._on_change is not None and not self._is_closed:
            self._on_change(self)

    def _take(self, event: RouterEvent) -> None:
        """What the router's client says of this port."""
        if isinstance(event, Opened):
            self.port, self.outside, self.lifetime = event.port, event.outside, event.lifetime
            self.protocol, self.reason, self._is_refused = event.protocol.value, "", False
        elif isinstance(event, Renewed):
            self.lifetime = event.lifetime
            return
        elif isinstance(event, Lost | Refused):
            self._void(event.words)
            self._is_refused = isinstance(event, Refused)
        else:
            return
        self._tell()

    def _void(self, reason: str) -> None:
        self.port, self.outside, self.lifetime, self.reason = 0, None, 0.0, reason


class PortMapper:
    """Opens ports at the routers of this machine, by PCP, NAT-PMP or UPnP, whichever each of them speaks.

    async with crowline.PortMapper() as mapper:
        port = mapper.open(8080, Transport.TCP)
        print(await port.opened())

    Ports are renewed, opened anew when a router has forgotten them, and closed at the end of the block; those
    of a program that was killed end `lifetime` seconds after their last renewal. Made in a running loop.
    """

    def __init__(
        self,
        *,
        lifetime: int = LIFETIME,
        memory: RouterMemory | None = None,
        follows: bool = True,
        on_news: Callable[[RouterNews], None] | None = None,
    ) -> None:
        """`follows`: the network is watched, and the ports move with it; else say `follow`. `on_news` hears
        what is learnt of the routers."""
        self._lifetime = lifetime
        self._memory = memory if memory is not None else RouterMemory()
        self._follows = follows
        self._on_news = on_news
        self._watch: NetworkWatch | None = None
        self._drivers: dict[str, RouterDriver] = {}
        self._routerless: set[str] = set()
        self._ports: list[PortMap] = []
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def open(
        self,
        port: int,
        transport: Transport = Transport.UDP,
        *,
        host: str | None = None,
        outside_port: int = 0,
        on_change: Callable[[PortMap], None] | None = None,
        nonce: bytes = b"",
    ) -> PortMap:
        """Have a router open a port of this machine, and keep it open.

        `host` is the address whose port it is, by default the one that leads to the internet by IPv4; for an
        IPv6 address the router's firewall is opened. `outside_port` is asked for, 0 for the same; another one
        may be given. Raises `UsageError`, and `PortNotOpened` where no `host` leads to the internet.
        """
        if self._is_closed:
            raise UsageError("This port mapper is closed.")
        where = host if host is not None else usual_host()
        opened = PortMap(Address.parse(where, port), transport, outside_port, on_change, nonce)
        opened._is_usual = host is None
        if any((each.local, each.transport) == (opened.local, transport) for each in self._ports):
            raise UsageError(f"{transport.name} port {port} is open already.")
        self._ports.append(opened)
        try:
            self._ask(opened)
        except BaseException:
            self._ports.remove(opened)
            raise
        if self._follows and self._watch is None:
            self._watch = NetworkWatch(lambda _: self.follow())
        return opened

    def close(self, port: PortMap) -> None:
        """Close a port again; nothing is waited for."""
        if port not in self._ports:
            return
        self._ports.remove(port)
        port._is_closed = True
        port._void("it was closed")
        port._tell()
        driver = self._drivers.get(port.local.host)
        if driver is not None and port._number is not None:
            driver.close_port(port._number)

    @property
    def left(self) -> int:
        """Ports that the routers were to close and, as far as is known, have not."""
        return sum(driver.client.left for driver in self._drivers.values())

    def nonce_of(self, port: PortMap) -> bytes:
        """By which another program can close what PCP has opened; empty for none."""
        driver = self._drivers.get(port.local.host)
        return driver.client.nonce_of(port._number) if driver and port._number is not None else b""

    def follow(self) -> None:
        """This machine's network changed: ask the routers that it has now."""
        self._routerless.clear()
        for host, driver in list(self._drivers.items()):
            if gateway_of(host) != driver.gateway:
                driver.close()
                del self._drivers[host]
        for port in self._ports:
            if port._is_usual:
                port.local = Address(usual_host(port.local.host), port.local.port)
            if port.local.host not in self._drivers or port.local.host != port._asked_from:
                self._move(port)

    async def aclose(self) -> None:
        """Close every port, as far as the routers answer, within a few seconds."""
        self._is_closed = True
        self._stop()
        for port in self._ports:
            port._is_closed = True
            port._tell()
        try:
            await asyncio.gather(*(driver.aclose() for driver in self._drivers.values()))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End at once and leave open what is open: it ends with its lifetime."""
        self._is_closed = True
        self._stop()
        for driver in self._drivers.values():
            driver.close()

    # ------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def _move(self, port: PortMap) -> None:
        """Its router is another now. What was open is closed where that can be reached, or ends by itself."""
        was_open = port.is_open
        before = self._drivers.get(port._asked_from)
        if before is not None and port._number is not None:
            before.close_port(port._number)
        port._void("the network changed")
        port._number = None
        if was_open:
            port._tell()
        self._ask_again(port)

    def _ask_again(self, port: PortMap) -> None:
        """Where nobody is there to hear of a mistake."""
        try:
            self._ask(port)
        except UsageError as error:
            port._is_refused = True
            port._void(error.message)
            port._tell()

    def _ask(self, port: PortMap) -> None:
        port._asked_from = port.local.host
        port._is_refused = False
        driver = self._driver_of(port.local.host)
        if driver is None:
            port._is_refused = True
            port._void("no router is on the way from this address to the internet")
            port._tell()
            return
        port.gateway = driver.gateway.host
        # One that is being closed is opened when that is done.
        is_waiting = driver.client.is_being_closed(port._wanted)
        port._number = None if is_waiting else driver.open(port._wanted)

    def _driver_of(self, host: str) -> RouterDriver | None:
        if host in self._drivers or host in self._routerless:
            return self._drivers.get(host)
        gateway = gateway_of(host)
        if gateway is None:
            self._routerless.add(host)
            return None
        known = self._memory.get(gateway)
        try:
            driver = RouterDriver(
                gateway,
                lambda event: self._on_event(gateway, event),
                lifetime=self._lifetime,
                known=known,
            )
        except OSError:
            return None
        self._drivers[host] = driver
        return driver

    def _on_event(self, gateway: Gateway, event: RouterEvent) -> None:
        if self._on_news is not None and (words := _news(event)):
            self._on_news(RouterNews(gateway.host, words))
        if isinstance(event, Opened) and (driver := self._drivers.get(gateway.source)) is not None:
            known = driver.client.known
            if known is not None:
                self._memory.put(gateway, known)
        if isinstance(event, Opened | Renewed | Lost | Refused | Closed):
            for port in self._ports:
                if port.local.host == gateway.source and port._number == event.number:
                    port._take(event)
        if isinstance(event, Closed) and not self._is_closed:
            for port in self._ports:
                if port._asked_from == gateway.source and port._number is None and not port._is_refused:
                    self._ask_again(port)


def _news(event: RouterEvent) -> str:
    """What a person may want to know of a router; empty for what is about ports."""
    if isinstance(event, ProtocolFound):
        return f"it speaks {event.protocol.value}"
    if isinstance(event, RouterSilent):
        return "it opens no ports by PCP, NAT-PMP or UPnP"
    if not isinstance(event, OutsideIs):
        return ""
    if event.host is None:
        return "it names no outside address"
    is_public = classify(event.host) is AddressClass.OPEN
    rest = "" if is_public else ", which is not public: another router is in front of it"
    return f"its outside address is {event.host}{rest}"


def usual_host(otherwise: str | None = None) -> str:
    """The address of this machine that leads to the internet, by IPv4 where there is a way.

    Raises `PortNotOpened` where no router is on the way, unless there is an address to give `otherwise`.
    """
    gateways = default_gateways()
    found = next((each for each in gateways if not each.is_ipv6), next(iter(gateways), None))
    if found is None and otherwise is not None:
        return otherwise
    if found is None:
        raise PortNotOpened("No router is on the way from this machine to the internet.")
    return found.source
