"""Tells when this machine's network changed: an address, an interface, the way to a destination."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.nat64 import Pref64, read_pref64
from crowline.net import rtnetlink as rt
from crowline.net.netlink import NoticeSocket
from crowline.net.network import SOMEWHERE, Network, NetworkChange, look

# A change comes in pieces: an address goes, a link goes down and up, addresses and routes come. It is told
# when nothing more has happened for so many seconds,
QUIET = 0.150
# and so many after its first piece at the latest.
LATEST = 0.500
# Seconds between looks where the system tells nothing by itself.
POLL_INTERVAL = 2.0


class Settling:
    """When to look: a while after the last disturbance, and not too long after the first."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0

    def disturb(self, now: float) -> None:
        if self._first is None:
            self._first = now
        self._last = now

    def due(self) -> float | None:
        """When to look; ``None`` while nothing happened."""
        return None if self._first is None else min(self._last + QUIET, self._first + LATEST)

    def settle(self) -> None:
        """It has been looked."""
        self._first = None


class Disturbances:
    """What notices of the kernel say about a network that is known, until the next look at it."""

    def __init__(self, network: Network) -> None:
        self._hosts = network.hosts
        self._devices = frozenset(each.index for each in network.addresses)
        self._gone: set[tuple[int, str]] = set()
        self._down: set[int] = set()

    def read(self, message: rt.Message | None) -> bool:
        """Whether it is a reason to look. ``None`` stands for notices that were lost."""
        if message is None:
            return True
        if message.type == rt.DELETE_ADDRESS:
            address = rt.read_address(message.payload)
            if address is not None and (address.device, address.host) in self._hosts:
                self._gone.add((address.device, address.host))
        elif message.type in (rt.NEW_LINK, rt.DELETE_LINK):
            link = rt.read_link(message.payload)
            is_down = message.type == rt.DELETE_LINK or link is None or not link.flags & rt.RUNNING
            if link is not None and is_down and link.device in self._devices:
                self._down.add(link.device)
        return message.type in _REASONS

    def renewed(self, after: Network) -> frozenset[str]:
        """Addresses that are back after they were gone: another network may have given the same ones."""
        kept = self._hosts & after.hosts
        return frozenset(
            host for device, host in kept if device in self._down or (device, host) in self._gone
        )


_REASONS = {
    rt.NEW_LINK,
    rt.DELETE_LINK,
    rt.NEW_ADDRESS,
    rt.DELETE_ADDRESS,
    rt.NEW_ROUTE,
    rt.DELETE_ROUTE,
}


class _Source(Protocol):
    def close(self) -> None: ...


class NetworkWatch:
    """Calls `on_change` after each change, within a second on Linux and within three elsewhere.

    Linux tells by itself (netlink), other systems are asked every `POLL_INTERVAL`. `on_prefix` gets what
    routers say of NAT64 (RFC 8781), with the number of the interface: on Linux only, without root, and from
    the next router advertisement on, since nobody keeps the last one. Made in a running loop; `close` it.
    """

    def __init__(
        self,
        on_change: Callable[[NetworkChange], None],
        *,
        destinations: Iterable[Address] = SOMEWHERE,
        on_prefix: Callable[[Pref64, int], None] | None = None,
    ) -> None:
        """`destinations`: hosts whose ways are watched, at most `network.MAX_DESTINATIONS`."""
        self._on_change = on_change
        self._on_prefix = on_prefix
        self._destinations = tuple(destinations)
        self._loop = asyncio.get_running_loop()
        self._settling = Settling()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        # Listen first: what changes during the first look is heard.
        self._source = self._open_source()
        try:
            self._remember(look(self._destinations))
        except BaseException:
            self._source.close()
            raise

    @property
    def network(self) -> Network:
        """The network at the last look."""
        return self._network

    @property
    def is_polling(self) -> bool:
        """Whether the system is asked again and again, since it tells nothing by itself."""
        return isinstance(self._source, Ticker)

    def watch(self, destinations: Iterable[Address]) -> None:
        """Watch the ways to these destinations instead. What changed until now is told first, but for ways
        to destinations that are no longer watched.
        """
        self._destinations = tuple(destinations)
        self._check()

    def close(self) -> None:
        """Tell nothing more. May be called again, and from `on_change`."""
        self._closed = True
        self._source.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open_source(self) -> _Source:
        try:
            return NoticeSocket(self._on_notice)
        except OSError:
            return Ticker(POLL_INTERVAL, self._check)

    def _on_notice(self, message: rt.Message | None) -> None:
        if message is not None and message.type == rt.NEW_ROUTER_OPTION:
            self._on_router_option(message)
        elif self._disturbances.read(message):
            self._settling.disturb(self._loop.time())
            self._arm()

    def _on_router_option(self, message: rt.Message) -> None:
        heard = rt.read_router_option(message.payload)
        if heard is None or self._on_prefix is None:
            return
        for option in rt.each_option(heard.options):
            said = read_pref64(option)
            if said is not None and not self._closed:
                self._on_prefix(said, heard.device)

    def _arm(self) -> None:
        """One timer for a burst: it looks at its end whether there was more."""
        due = self._settling.due()
        if self._timer is None and due is not None and not self._closed:
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        due = self._settling.due()
        if due is not None and due > self._loop.time():
            self._arm()
        else:
            self._check()

    def _check(self) -> None:
        self._settling.settle()
        if self._closed:
            return
        before, after = self._network, look(self._destinations)
        change = NetworkChange(before, after, self._disturbances.renewed(after))
        self._remember(after)
        if change.is_real:
            self._on_change(change)

    def _remember(self, network: Network) -> None:
        self._network = network
        self._disturbances = Disturbances(network)


class Ticker:
    """Calls `tick` every `interval` seconds."""

    def __init__(self, interval: float, tick: Callable[[], None]) -> None:
        self._interval = interval
        self._tick = tick
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(interval, self._expire)

    def close(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._expire)
        self._tick()
