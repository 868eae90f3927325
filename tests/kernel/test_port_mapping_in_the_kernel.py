"""Ports that a real miniupnpd opens, asked by the product's driver and used by a stranger."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from crowline.base.transport import Transport
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host, Site
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Ipv6, Profile
from crowline.net.gateway import gateway_of
from crowline.net.router import RouterDriver
from crowline.portmap.client import LIFETIME
from crowline.portmap.router_events import Lost, Opened, OutsideIs, Protocol, Refused, Renewed, RouterEvent
from crowline.portmap.router_port import OpenPort
from miniupnpd import Miniupnpd
from needs import needs_program

pytestmark = pytest.mark.peer

Factory = Callable[..., Internet]
E = TypeVar("E", bound=RouterEvent)
T = TypeVar("T")

PATIENCE = 30.0  # seconds for what must happen
SILENCE = 0.3  # seconds in which what must not arrive would have, several times over
PORT, STRANGER_PORT = 4000, 7777
KINDS = {Transport.UDP: socket.SOCK_DGRAM, Transport.TCP: socket.SOCK_STREAM}
# How a daemon is set up that speaks one protocol alone, as our client has it.
SPEAKERS: dict[str, tuple[Protocol, dict[str, Any]]] = {
    "pcp": (Protocol.PCP, {"upnp": False}),
    "nat-pmp": (Protocol.NAT_PMP, {"upnp": False, "pcp": False}),
    "upnp-1": (Protocol.UPNP, {"natpmp": False, "version": 1}),
    "upnp-2": (Protocol.UPNP, {"natpmp": False}),
}
EACH = pytest.mark.parametrize("speaker", SPEAKERS)
HOME = replace(PRESETS["home"], ipv6=Ipv6.FIREWALLED)


class Asker:
    """The product's driver on a host, in a loop of its own that lives there; `events` are all it said."""

    def __init__(self, net: Internet, host: Host, address: str, lifetime: int) -> None:
        self.events: list[RouterEvent] = []
        self._address, self._lifetime = address, lifetime
        self._loop: asyncio.AbstractEventLoop | None = None
        self._driver: RouterDriver | None = None
        self._is_there = threading.Event()
        self._end: asyncio.Event | None = None
        self._threads = ThreadPoolExecutor(1)
        self._run = self._threads.submit(net.inside, host, lambda: asyncio.run(self._live()))

    def start(self) -> None:
        while not self._is_there.wait(0.1):
            if self._run.done():
                self._run.result()

    def ask(self, transport: Transport = Transport.UDP, port: int = PORT) -> int:
        """Have it opened; the number that events name it by."""
        return self._do(self._open(OpenPort(transport, port)))

    def open(self, transport: Transport = Transport.UDP, port: int = PORT) -> Opened:
        """Have it opened; what the client said of it."""
        number = self.ask(transport, port)
        return self.wait(Opened, lambda event: event.number == number)

    def wait(self, kind: type[E], is_meant: Callable[[E], bool] = lambda event: True, after: int = 0) -> E:
        """The first event of that kind among those from `after` on."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for event in list(self.events[after:]):
                if isinstance(event, kind) and is_meant(event):
                    return event
            time.sleep(0.02)
        raise AssertionError(f"no {kind.__name__} among {self.events}")

    def leave(self) -> None:
        """Close every port, and end."""
        self._do(self._leave())

    def vanish(self) -> None:
        """End without a word, as a killed program does."""
        self._do(self._vanish())

    def close(self) -> None:
        if self._loop is not None and self._end is not None and not self._run.done():
            self._loop.call_soon_threadsafe(self._end.set)
        self._run.result(PATIENCE)
        self._threads.shutdown()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _live(self) -> None:
        gateway = gateway_of(self._address)
        assert gateway is not None
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._driver = RouterDriver(gateway, self.events.append, lifetime=self._lifetime)
        self._is_there.set()
        try:
            await self._end.wait()
        finally:
            await self._driver.aclose()

    async def _open(self, wanted: OpenPort) -> int:
        assert self._driver is not None
        return self._driver.open(wanted)

    async def _leave(self) -> None:
        assert self._driver is not None
        await self._driver.aclose()

    async def _vanish(self) -> None:
        assert self._driver is not None
        self._driver.close()


@contextmanager
def asking(net: Internet, host: Host, *, is_ipv6: bool = False, lifetime: int = LIFETIME) -> Iterator[Asker]:
    """A driver on that host, for its IPv4 or its IPv6 address."""
    asker = Asker(net, host, host.addresses[1 if is_ipv6 else 0], lifetime)
    try:
        asker.start()
        yield asker
    finally:
        asker.close()


class World:
    """A stranger, and a site whose gateway runs a real miniupnpd. A net may have several, by number."""

    def __init__(
        self, net: Internet, profile: Profile = HOME, *, hosts: int = 1, number: int = 1, **daemon: Any
    ) -> None:
        self.net = net
        self.stranger = net.server(f"stranger{number}")
        self.site: Site = net.site(profile, hosts=hosts, delay=0.001)
        self.host = self.site.hosts[0]
        self.daemon = Miniupnpd(net, self.site, **daemon)
        self.daemon.start()

    def enters(
        self, address: tuple[str, int], transport: Transport = Transport.UDP, port: int = PORT
    ) -> bool:
        """Whether bytes that a stranger sends to that outside address arrive at the host's port."""
        is_ipv6 = ":" in address[0]
        own = self.host.addresses[1 if is_ipv6 else 0]
        with ExitStack() as stack:
            inside = stack.enter_context(closing(self.net.socket(self.host, KINDS[transport], own, port)))
            source = next(each for each in self.stranger.addresses if (":" in each) == is_ipv6)
            outside = stack.enter_context(closing(self.net.socket(self.stranger, KINDS[transport], source)))
            if transport is Transport.TCP:
                return _connects(stack, inside, outside, address)
            inside.settimeout(SILENCE)
            for _ in range(10):
                outside.sendto(b"unasked", address)
                try:
                    return inside.recv(100) == b"unasked"
                except TimeoutError:
                    if not self._is_open(port):
                        return False
        return False

    def _is_open(self, port: int) -> bool:
        """Whether the daemon has a rule for it: then a datagram that did not come was lost on its way."""
        listed = {inside for _, _, _, inside in self.daemon.forwards()}
        return port in listed | {inside for _, _, inside in self.daemon.pinholes()}


def _connects(
    stack: ExitStack, inside: socket.socket, outside: socket.socket, address: tuple[str, int]
) -> bool:
    inside.listen()
    inside.settimeout(PATIENCE)
    outside.settimeout(3 * SILENCE)
    try:
        outside.connect(address)
    except TimeoutError:
        return False
    accepted = stack.enter_context(closing(inside.accept()[0]))
    outside.sendall(b"unasked")
    accepted.settimeout(PATIENCE)
    return accepted.recv(100) == b"unasked"


def eventually(is_so: Callable[[], bool], words: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, words
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def programs() -> None:
    needs_program("miniupnpd")
    needs_program("nft")


@EACH
def test_what_is_opened_lets_strangers_in_until_it_is_closed(internet: Factory, speaker: str) -> None:
    """UDP and TCP, by each protocol; at the end the daemon has no rule of ours any more."""
    protocol, daemon = SPEAKERS[speaker]
    world = World(internet("kernel"), **daemon)
    with asking(world.net, world.host) as asker:
        for transport in (Transport.UDP, Transport.TCP):
            opened = asker.open(transport)
            assert opened.protocol is protocol
            assert opened.outside is not None
            assert opened.outside.host == world.site.outside[0]
            assert world.enters((opened.outside.host, opened.outside.port), transport)
        inside = (world.host.addresses[0], PORT)
        assert {rule[0]: rule[2:] for rule in world.daemon.forwards()} == {"udp": inside, "tcp": inside}
        asker.leave()
        assert world.daemon.forwards() == set()
        assert not world.enters((opened.outside.host, opened.outside.port))


@pytest.mark.parametrize("speaker", ["pcp", "upnp-2"])
def test_a_pinhole_lets_strangers_in_by_ipv6(internet: Factory, speaker: str) -> None:
    """The firewall keeps everybody out before, and afterwards again."""
    protocol, daemon = SPEAKERS[speaker]
    world = World(internet("kernel"), **daemon)
    own = world.host.addresses[1]
    assert not world.enters((own, PORT))
    with asking(world.net, world.host, is_ipv6=True) as asker:
        for transport in (Transport.UDP, Transport.TCP):
            opened = asker.open(transport)
            assert opened.protocol is protocol
            assert str(opened.outside) == f"[{own}]:{PORT}"
            assert world.enters((own, PORT), transport)
        assert world.daemon.pinholes() == {("udp", own, PORT), ("tcp", own, PORT)}
        asker.leave()
        assert world.daemon.pinholes() == set()
        assert not world.enters((own, PORT))


@EACH
def test_a_router_that_lost_its_power_is_asked_again(internet: Factory, speaker: str) -> None:
    """The mapping is made anew when the router says that it is new, long before its lease is over."""
    _, daemon = SPEAKERS[speaker]
    world = World(internet("kernel"), **daemon)
    with asking(world.net, world.host) as asker:
        asker.open()
        before = world.daemon.forwards()
        world.daemon.grow_old()
        world.daemon.restart()
        eventually(lambda: world.daemon.forwards() == before, f"not opened again: {asker.events}")
        assert world.enters((world.site.outside[0], PORT))


def test_leases_are_renewed_while_their_owner_lives_and_end_without_it(internet: Factory) -> None:
    """A killed program's ports are closed by the router itself; two routers at once, as it takes a while."""
    net = internet("kernel")
    pcp = World(net, upnp=False, shortest=2)
    upnp = World(net, natpmp=False, number=2)
    with asking(net, pcp.host, lifetime=8) as one, asking(net, upnp.host, lifetime=8) as other:
        assert one.open().lifetime == other.open().lifetime == 8
        one.wait(Renewed)
        assert len(pcp.daemon.forwards()) == len(upnp.daemon.forwards()) == 1
        one.vanish()
        other.vanish()
        for world in (pcp, upnp):
            eventually(lambda world=world: world.daemon.forwards() == set(), "the router keeps it open")
            assert not world.enters((world.site.outside[0], PORT))


@EACH
def test_two_hosts_that_want_one_port_get_two(internet: Factory, speaker: str) -> None:
    """Each gets its own outside port, and strangers reach the first by the first."""
    _, daemon = SPEAKERS[speaker]
    world = World(internet("kernel"), hosts=2, **daemon)
    with asking(world.net, world.host) as one, asking(world.net, world.site.hosts[1]) as other:
        first, second = one.open(), other.open()
        assert first.outside is not None and second.outside is not None
        assert first.port != second.port
        owners = {outside: host for _, outside, host, _ in world.daemon.forwards()}
        assert owners == {
            first.port: world.host.addresses[0],
            second.port: world.site.hosts[1].addresses[0],
        }
        assert world.enters((first.outside.host, first.port))


def test_a_router_behind_another_refuses(internet: Factory) -> None:
    """Its outside address is a carrier's private one; this daemon says no then, and the client says why."""
    net = internet("kernel")
    with ExitStack() as stack:
        askers = []
        for number, speaker in enumerate(("pcp", "nat-pmp", "upnp-2"), start=1):
            world = World(net, PRESETS["cgn"], number=number, **SPEAKERS[speaker][1])
            askers.append((world, stack.enter_context(asking(net, world.host))))
            askers[-1][1].ask()
        for world, asker in askers:
            assert asker.wait(Refused).words
            assert world.daemon.forwards() == set()


def test_what_a_router_is_told_of_its_address_is_passed_on(internet: Factory) -> None:
    """With a false outside address in its configuration, the ports open and the address is a lie."""
    world = World(internet("kernel"), outside="44.99.0.1")
    with asking(world.net, world.host) as asker:
        opened = asker.open()
        assert str(opened.outside) == f"44.99.0.1:{PORT}"
        assert asker.wait(OutsideIs).host == "44.99.0.1"
        assert world.enters((world.site.outside[0], PORT))
        assert not [event for event in asker.events if isinstance(event, Lost)]
