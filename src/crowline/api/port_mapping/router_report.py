"""What the routers of this machine say of themselves when nothing is to be opened."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from crowline.base.addresses import AddressClass, classify
from crowline.net.gateway import Gateway, default_gateways
from crowline.net.router import RouterDriver
from crowline.portmap.router_events import RouterEvent

# Seconds in which routers that answer at all have answered; a silent one is known to be silent after four.
LOOK_LIMIT = 3.0
# Seconds after which a protocol that has not been answered is not spoken, where another one is.
_ENOUGH = 1.0


@dataclass(frozen=True, slots=True)
class RouterReport:
    """One router: where it is, how it can be asked to open ports, and its outside address.

    `protocols` are of PCP, NAT-PMP and UPnP, the better ones first. `outside_host` is ``None`` where the
    router names none; over PCP alone it does so only for ports that it opens. `source` is this machine's
    address towards it.
    """

    gateway: str
    source: str
    interface: str
    protocols: tuple[str, ...]
    outside_host: str | None

    @property
    def opens_ports(self) -> bool:
        """Whether it can be asked to."""
        return bool(self.protocols)

    def is_double_nat(self, reflexive_host: str | None = None) -> bool | None:
        """Whether another translator is beyond this one, given the address that a server sees.

        ``None`` where that cannot be told.
        """
        if self.outside_host is None:
            return None
        if classify(self.outside_host) is not AddressClass.OPEN:
            return True
        return None if reflexive_host is None else reflexive_host != self.outside_host

    def words(self, reflexive_host: str | None = None) -> str:
        """All of it in a sentence."""
        if not self.protocols:
            return f"The router at {self.gateway} opens no ports by PCP, NAT-PMP or UPnP."
        start = f"The router at {self.gateway} opens ports by {' and '.join(self.protocols)}"
        if self.outside_host is None:
            return f"{start}."
        if classify(self.outside_host) is not AddressClass.OPEN:
            return (
                f"{start}, but its outside address is {self.outside_host}, which is not public: "
                "another router is in front of it."
            )
        if self.is_double_nat(reflexive_host):
            return (
                f"{start}, but it says that its address is {self.outside_host}, and the internet sees "
                f"{reflexive_host}: another translator is in front of it."
            )
        return f"{start}; its outside address is {self.outside_host}."


async def look_at_routers(timeout: float = LOOK_LIMIT, *, ipv6: bool = False) -> list[RouterReport]:
    """Ask every router that leads to the internet what it can do, all at once. Nothing is opened.

    With `ipv6` those for IPv6 are asked too, which open their firewall instead of mapping ports.
    """
    gateways = await asyncio.to_thread(default_gateways)
    asked = [each for each in gateways if ipv6 or not each.is_ipv6]
    return list(await asyncio.gather(*(_look_at(each, timeout) for each in asked)))


async def _look_at(gateway: Gateway, timeout: float) -> RouterReport:
    news = asyncio.Event()

    def on_event(event: RouterEvent) -> None:
        news.set()

    try:
        driver = RouterDriver(gateway, on_event)
    except OSError:
        return RouterReport(gateway.host, gateway.source, gateway.interface, (), None)
    client = driver.client
    try:
        async with asyncio.timeout(timeout):
            while not client.protocols and not client.is_settled:
                news.clear()
                await news.wait()
            while not client.is_settled:
                news.clear()
                await asyncio.wait_for(news.wait(), _ENOUGH)
    except TimeoutError:
        pass
    finally:
        driver.close()
    protocols = tuple(each.value for each in client.protocols)
    return RouterReport(gateway.host, gateway.source, gateway.interface, protocols, client.outside_host)
