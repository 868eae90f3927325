"""An internet in virtual time: hosts, translators, firewalls and lines, no sockets and no waiting.

`Internet.step` jumps to the next delivery or deadline, so a minute of protocol costs as much as its packets.
Everything random comes from one seed: the same seed gives the same run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Machine
from crowline.lab.behaviour import TCP, NatBehaviour
from crowline.lab.boundary import Boundary, Translation
from crowline.lab.clock import VirtualClock
from crowline.lab.impairment import Impairment, Line
from crowline.lab.nat import Nat
from crowline.lab.network import Host, Network, Packet, Place
from crowline.lab.segment import refusal_of, time_exceeded

__all__ = ["CORE_HOPS", "DEFAULT_DELAY", "LAN_DELAY", "Host", "Internet", "Network", "Node"]

DEFAULT_DELAY = 0.02  # seconds one way between two places
LAN_DELAY = 0.0002  # seconds one way inside one site
CORE_HOPS = 8  # routers between two places: a packet that may pass four dies between them


@dataclass(eq=False)
class Node:
    """A machine and the sockets it may send from. `events` are those that nobody handled, with times."""

    machine: Machine[Any]
    hosts: dict[Address, Host] = field(default_factory=dict)
    tunnels: dict[Address, float] = field(default_factory=dict)  # seconds to a socket on another host
    events: list[tuple[float, Any]] = field(default_factory=list)
    on_event: Callable[[Any], None] | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class _Route:
    """What is between two places: nothing (`stays`), or a delay of its own and two lines, where set."""

    stays: bool
    delay: float | None
    up: Line | None
    down: Line | None


class Internet(VirtualClock):
    """The root network and the clock.

    `loss` is the share of packets that vanish between places (never inside a site); `delay` the seconds one
    way between places for which `set_delay` said nothing else. `observe` is told every packet as it leaves
    its host; it is changed on its way, so look at once.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: float = DEFAULT_DELAY,
        loss: float = 0.0,
        observe: Callable[[float, Packet], None] | None = None,
    ) -> None:
        super().__init__()
        self.delay = delay
        self.loss = loss
        self.random = random.Random(seed)
        self.root = Network("internet")
        self.counters: Counter[str] = Counter()
        self.observe = observe
        self._delays: dict[tuple[Place, Place], float] = {}
        self._places: dict[Place, Place] = {}
        self._up: dict[Place, Line] = {}
        self._down: dict[Place, Line] = {}
        self._routes: dict[tuple[Place, str], _Route] = {}

    # --- the map --------------------------------------------------------------------------------------

    def site(self, behaviour: NatBehaviour, external_host: str, parent: Network | None = None) -> Network:
        """A network behind a translator with that outside address in `parent`, by default in the internet."""
        nat = Nat(behaviour, external_host, self.random.randbytes)
        return self.network(Translation(nat), [external_host], parent)

    def network(self, boundary: Boundary, addresses: Sequence[str], parent: Network | None = None) -> Network:
        """A network behind `boundary`; packets to any of `addresses` in `parent` are handed to it."""
        above = parent or self.root
        network = Network(addresses[0], above, boundary)
        self._routes.clear()
        for address in addresses:
            above.claim(address)
            above.sites[address] = network
        return network

    def host(self, address: str, network: Network | None = None) -> Host:
        """A host with one address; `add_address` gives it more."""
        host = Host(address)
        self.add_address(host, address, network)
        return host

    def add_address(self, host: Host, address: str, network: Network | None = None) -> None:
        """Another interface: `address` in `network`, by default in the internet."""
        where = network or self.root
        self._routes.clear()
        where.claim(address)
        where.hosts[address] = host
        host.networks[address] = where

    def set_delay(self, one: Place, other: Place, seconds: float) -> None:
        """One-way delay in both directions between two places: public hosts, or sites of the internet."""
        self._routes.clear()
        one, other = self._places.get(one, one), self._places.get(other, other)
        self._delays[one, other] = self._delays[other, one] = seconds

    def set_line(self, place: Place, *, up: Impairment, down: Impairment) -> None:
        """The line by which a place reaches the internet: what leaves it goes up, what enters comes down."""
        self._routes.clear()
        self._up[place] = Line(up, self.random, self.counters)
        self._down[place] = Line(down, self.random, self.counters)

    def join_places(self, part: Place, whole: Place) -> None:
        """`part` is where `whole` is: one line and one delay for both IP families of a site."""
        self._routes.clear()
        self._places[part] = whole

    def attach(self, machine: Machine[Any], *, on_event: Callable[[Any], None] | None = None) -> Node:
        """Let a machine take part. Give it sockets with `bind`, and call `poke` after calling its methods."""
        return Node(machine, on_event=on_event)

    def bind(self, node: Node, host: Host, address: Address, *, tunnel: float = 0.0) -> None:
        """A socket for `node`. With `tunnel` it stands on another host, that many seconds away: a relay."""

        def received(packet: Packet) -> None:
            if tunnel:
                self.post(self.now + tunnel, self._deliver, node, packet, address)
            else:
                self._deliver(node, packet, address)

        self.listen(host, address, received)
        node.hosts[address] = host
        node.tunnels[address] = tunnel

    def listen(self, host: Host, address: Address, received: Callable[[Packet], None]) -> None:
        """A UDP socket without a machine: `received` gets every packet for it."""
        if address.host not in host.networks or address in host.sockets:
            raise UsageError(f"{host.name} cannot bind that address")
        host.sockets[address] = received

    def reflexive(self, host: Host, base: Address, server: Address) -> Address | None:
        """As what a server would see the socket `base`, without a packet; opens the mapping as one would."""
        packet = Packet.udp(base, server, b"")
        route = self._depart(host.networks[base.host], packet)
        return None if route is None else packet.source

    # --- machines -------------------------------------------------------------------------------------

    def poke(self, node: Node) -> None:
        """Carry what a machine wants to send and say, and note when it wants to be woken."""
        machine = node.machine
        while (event := machine.next_event()) is not None:
            if node.on_event is not None:
                node.on_event(event)
            else:
                node.events.append((self.now, event))
        while (transmit := machine.next_transmit()) is not None:
            source = transmit.local if transmit.local is not None else next(iter(node.hosts))
            host = node.hosts.get(source)
            if host is None:
                self.counters["no such socket"] += 1
                continue
            packet = Packet.udp(source, transmit.destination, bytes(transmit.data))
            self.launch(host, packet, node.tunnels[source])
        deadline = machine.next_timeout()
        if deadline is not None and deadline != node.deadline:
            self.call_at(deadline, self._wake, node, deadline)
        node.deadline = deadline

    def _wake(self, node: Node, deadline: float) -> None:
        if node.deadline != deadline:
            return
        node.deadline = None
        node.machine.handle_timeout(self.now)
        self.poke(node)

    def _deliver(self, node: Node, packet: Packet, local: Address) -> None:
        node.machine.receive(packet.data, packet.source, self.now, local)
        self.poke(node)

    # --- packets --------------------------------------------------------------------------------------

    def launch(self, host: Host, packet: Packet, delay: float = 0.0) -> None:
        """Send a packet from a host, `delay` seconds from now, translated as it would be now."""
        packet.sent_at = self.now
        if self.observe is not None:
            self.observe(self.now, packet)
        network = host.networks[packet.source.host]
        meeting = self._depart(network, packet)
        if meeting is None:
            return
        if meeting is not self.root:
            self.post(self.now + delay + LAN_DELAY, self._arrive, meeting, packet)
        else:
            self._cross(self._place(network, host), packet, delay)

    def answer(self, network: Network, packet: Packet) -> None:
        """Send a packet from a router of `network`, back the way that took `sent_at` until now."""
        self.post(2 * self.now - packet.sent_at, self._arrive, network, packet)

    def _depart(self, network: Network, packet: Packet) -> Network | None:
        """Climb to the network that knows the destination; the packet is translated on the way."""
        host = packet.destination.host
        while host not in network.hosts and host not in network.sites:
            if network.boundary is None or network.parent is None:
                self.counters["unroutable"] += 1
                packet.lost()
                return None
            if packet.hops is not None and not packet.hop():
                self._expired(network, packet)
                return None
            ends = network.boundary.outbound(packet.protocol, packet.source, packet.destination, self.now)
            if ends is None:
                self.counters["not let out"] += 1
                packet.lost()
                return None
            packet.source, packet.destination = ends
            host = ends[1].host
            if not network.knows(host):
                network = network.parent
        return network

    def _cross(self, here: Place, packet: Packet, delay: float) -> None:
        """From one place to another: up one line, over the internet, down the other line."""
        key = (here, packet.destination.host)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = self._route(*key)
        if route.stays:
            self.post(self.now + delay, self._arrive, self.root, packet)
            return
        if self.loss and self.random.random() < self.loss:
            self.counters["lost between places"] += 1
            packet.lost()
            return
        # Whoever has set a delay has set it for the place; the default may change at any time.
        delay += self.delay if route.delay is None else route.delay
        if route.up is None:
            self._traverse(route.down, packet, self.now + delay)
            return
        times = route.up.carry(packet.size, self.now)
        if not times:
            packet.lost()
        for time, each in zip(times, packet.copies(len(times)), strict=True):
            self._traverse(route.down, each, time + delay)

    def _route(self, here: Place, host: str) -> _Route:
        found = self.root.hosts.get(host) or self.root.sites[host]
        here, there = self._places.get(here, here), self._places.get(found, found)
        return _Route(
            here is there, self._delays.get((here, there)), self._up.get(here), self._down.get(there)
        )

    def _traverse(self, down: Line | None, packet: Packet, time: float) -> None:
        """Past the routers between two places, to be at the other one at that time."""
        if packet.hops is not None and not packet.hop(CORE_HOPS):
            self.post((self.now + time) / 2, self._expired, self.root, packet)
        elif down is None:
            self.post(time, self._arrive, self.root, packet)
        else:
            self.post(time, self._descend, down, packet)

    def _descend(self, down: Line, packet: Packet) -> None:
        times = down.carry(packet.size, self.now)
        if not times:
            packet.lost()
            return
        for time, each in zip(times, packet.copies(len(times)), strict=True):
            self.post(time, self._arrive, self.root, each)

    def _arrive(self, network: Network, packet: Packet) -> None:
        """Enter through the boundaries of the other end, which judge by the time of arrival."""
        while (site := network.sites.get(packet.destination.host)) is not None and site.boundary is not None:
            if packet.hops is not None and not packet.hop():
                self._expired(network, packet)
                return
            ends = site.boundary.inbound(packet.protocol, packet.source, packet.destination, self.now)
            if ends is None:
                self.counters["filtered"] += 1
                self._refuse(network, site.boundary, packet)
                packet.lost()
                return
            packet.source, packet.destination = ends
            network = site
        host = network.hosts.get(packet.destination.host)
        receiver = None
        if host is not None:
            receiver = host.tcp if packet.protocol == TCP else host.sockets.get(packet.destination)
        if receiver is None:
            self.counters["nobody listens"] += 1
            packet.lost()
            return
        self.counters["delivered"] += 1
        receiver(packet)

    def _refuse(self, network: Network, boundary: Boundary, packet: Packet) -> None:
        """What a boundary answers to a SYN that it does not let in."""
        reply = refusal_of(packet, boundary.refusal)
        if reply is not None:
            self.answer(network, reply)

    def _expired(self, network: Network, packet: Packet) -> None:
        """A router drops a packet whose time to live is over, and says so where TCP would hear it."""
        self.counters["expired"] += 1
        reply = time_exceeded(packet)
        if reply is not None:
            self.answer(network, reply)
        packet.lost()

    def _place(self, network: Network, host: Host) -> Place:
        """Where a packet of this host enters the internet."""
        place: Place = host
        while network is not self.root and network.parent is not None:
            place, network = network, network.parent
        return place
