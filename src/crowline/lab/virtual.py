"""An internet in virtual time: hosts, translators and delays, no sockets and no waiting.

`Internet.step` jumps to the next delivery or deadline, so a minute of protocol costs as much as its packets.
Everything random comes from one seed: the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Machine
from crowline.lab.behaviour import UDP, NatBehaviour
from crowline.lab.nat import Nat

DEFAULT_DELAY = 0.02  # seconds one way between two places
LAN_DELAY = 0.0002  # seconds one way inside one site
MAX_STEPS_AT_ONE_TIME = 10_000  # more means that a machine asks for the present again and again


@dataclass(eq=False)
class Network:
    """The internet itself (no translator), or a site behind one. Sites nest: a carrier's NAT is a parent."""

    name: str
    parent: Network | None = None
    nat: Nat | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    sites: dict[str, Network] = field(default_factory=dict)  # by outside address of their translators


@dataclass(eq=False)
class Host:
    """A computer. Each of its addresses is in one network, each of its sockets belongs to one machine."""

    name: str
    networks: dict[str, Network] = field(default_factory=dict)
    sockets: dict[Address, Node] = field(default_factory=dict)


Place = Network | Host


@dataclass(eq=False)
class Node:
    """A machine and the sockets it may send from. `events` are those that nobody handled, with times."""

    machine: Machine[Any]
    hosts: dict[Address, Host] = field(default_factory=dict)
    tunnels: dict[Address, float] = field(default_factory=dict)  # seconds to a socket on another host
    events: list[tuple[float, Any]] = field(default_factory=list)
    on_event: Callable[[Any], None] | None = None
    deadline: float | None = None


class Internet:
    """The root network and the clock.

    `loss` is the share of packets that vanish between places (never inside a site); `delay` the seconds one
    way between places for which `set_delay` said nothing else.
    """

    def __init__(self, seed: int = 0, *, delay: float = DEFAULT_DELAY, loss: float = 0.0) -> None:
        self.now = 0.0
        self.delay = delay
        self.loss = loss
        self.random = random.Random(seed)
        self.root = Network("internet")
        self.counters: Counter[str] = Counter()
        self.sent_to: Counter[Address] = Counter()  # datagrams by destination as the sender named it
        self._delays: dict[tuple[Place, Place], float] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._steps_now = 0

    # --- the map --------------------------------------------------------------------------------------

    def site(self, behaviour: NatBehaviour, external_host: str, parent: Network | None = None) -> Network:
        """A network behind a translator with that outside address in `parent`, by default in the internet."""
        above = parent or self.root
        nat = Nat(behaviour, external_host, self.random.randbytes)
        network = Network(external_host, above, nat)
        _claim(above, external_host)
        above.sites[external_host] = network
        return network

    def host(self, address: str, network: Network | None = None) -> Host:
        """A host with one address; `add_address` gives it more."""
        host = Host(address)
        self.add_address(host, address, network)
        return host

    def add_address(self, host: Host, address: str, network: Network | None = None) -> None:
        """Another interface: `address` in `network`, by default in the internet."""
        where = network or self.root
        _claim(where, address)
        where.hosts[address] = host
        host.networks[address] = where

    def set_delay(self, one: Place, other: Place, seconds: float) -> None:
        """One-way delay in both directions between two places: public hosts, or sites of the internet."""
        self._delays[one, other] = self._delays[other, one] = seconds

    def attach(self, machine: Machine[Any], *, on_event: Callable[[Any], None] | None = None) -> Node:
        """Let a machine take part. Give it sockets with `bind`, and call `poke` after calling its methods."""
        return Node(machine, on_event=on_event)

    def bind(self, node: Node, host: Host, address: Address, *, tunnel: float = 0.0) -> None:
        """A socket for `node`. With `tunnel` it stands on another host, that many seconds away: a relay."""
        if address.host not in host.networks or address in host.sockets:
            raise UsageError(f"{host.name} cannot bind that address")
        host.sockets[address] = node
        node.hosts[address] = host
        node.tunnels[address] = tunnel

    def reflexive(self, host: Host, base: Address, server: Address) -> Address | None:
        """As what a server would see the socket `base`, without a packet; opens the mapping as one would."""
        route = self._depart(host.networks[base.host], base, server)
        return None if route is None else route[1]

    # --- the clock ------------------------------------------------------------------------------------

    def call_at(self, time: float, call: Callable[[], None]) -> None:
        """Do something at a time; what lies in the past is done next."""
        self._sequence += 1
        heapq.heappush(self._queue, (max(time, self.now), self._sequence, call))

    def step(self) -> bool:
        """Jump to the next delivery, deadline or call. False when nothing will ever happen again."""
        if not self._queue:
            return False
        time, _, call = heapq.heappop(self._queue)
        self._steps_now = self._steps_now + 1 if time == self.now else 0
        if self._steps_now > MAX_STEPS_AT_ONE_TIME:
            raise UsageError("the clock stands still: a machine asks for the present again and again")
        self.now = time
        call()
        return True

    def run(self, until: Callable[[], bool] | None = None, *, limit: float = 60.0) -> bool:
        """Step until `until` holds, nothing is left to do or `limit` seconds are over; whether it holds."""
        end = self.now + limit
        while until is None or not until():
            if not self._queue or self._queue[0][0] > end:
                self.now = max(self.now, end) if self._queue else self.now
                return False
            self.step()
        return True

    def poke(self, node: Node) -> None:
        """Carry what a machine wants to send and say, and note when it wants to be woken."""
        machine = node.machine
        while (event := machine.next_event()) is not None:
            if node.on_event is not None:
                node.on_event(event)
            else:
                node.events.append((self.now, event))
        while (transmit := machine.next_transmit()) is not None:
            self._send(node, transmit.local, transmit.destination, transmit.data)
        deadline = machine.next_timeout()
        if deadline is not None and deadline != node.deadline:
            self.call_at(deadline, lambda: self._wake(node, deadline))
        node.deadline = deadline

    def _wake(self, node: Node, deadline: float) -> None:
        if node.deadline != deadline:
            return
        node.deadline = None
        node.machine.handle_timeout(self.now)
        self.poke(node)

    # --- packets --------------------------------------------------------------------------------------

    def _send(self, node: Node, local: Address | None, destination: Address, data: Buffer) -> None:
        source = local if local is not None else next(iter(node.hosts))
        host = node.hosts.get(source)
        if host is None:
            self.counters["no such socket"] += 1
            return
        self.sent_to[destination] += 1
        network = host.networks[source.host]
        route = self._depart(network, source, destination)
        if route is None:
            return
        meeting, seen = route
        there = meeting.hosts.get(destination.host) or meeting.sites[destination.host]
        delay = node.tunnels[source]
        if meeting is not self.root:
            delay += LAN_DELAY
        elif (here := self._place(network, host)) is not there:
            if self.loss and self.random.random() < self.loss:
                self.counters["lost"] += 1
                return
            delay += self._delays.get((here, there), self.delay)
        packet = bytes(data)
        self.call_at(self.now + delay, lambda: self._arrive(meeting, seen, destination, packet))

    def _depart(
        self, network: Network, source: Address, destination: Address
    ) -> tuple[Network, Address] | None:
        """Climb to the network that knows the destination; the source is translated on the way."""
        while destination.host not in network.hosts and destination.host not in network.sites:
            if network.nat is None or network.parent is None:
                self.counters["unroutable"] += 1
                return None
            seen = network.nat.outbound(UDP, source, destination, self.now)
            if seen is None:
                self.counters["not translated"] += 1
                return None
            network, source = network.parent, seen
        return network, source

    def _arrive(self, network: Network, source: Address, destination: Address, data: bytes) -> None:
        """Descend through the translators of the other end, which judge by the time of arrival."""
        while (site := network.sites.get(destination.host)) is not None and site.nat is not None:
            inside = site.nat.inbound(UDP, destination, source, self.now)
            if inside is None:
                self.counters["filtered"] += 1
                return
            network, destination = site, inside
        host = network.hosts.get(destination.host)
        node = host.sockets.get(destination) if host is not None else None
        if node is None:
            self.counters["nobody listens"] += 1
            return
        tunnel = node.tunnels[destination]
        if tunnel:
            self.call_at(self.now + tunnel, lambda: self._deliver(node, data, source, destination))
        else:
            self._deliver(node, data, source, destination)

    def _deliver(self, node: Node, data: bytes, source: Address, local: Address) -> None:
        self.counters["delivered"] += 1
        node.machine.receive(data, source, self.now, local)
        self.poke(node)

    def _place(self, network: Network, host: Host) -> Place:
        """Where a packet of this host enters the internet."""
        place: Place = host
        while network is not self.root and network.parent is not None:
            place, network = network, network.parent
        return place


def _claim(network: Network, address: str) -> None:
    if address in network.hosts or address in network.sites:
        raise UsageError(f"{address} is taken in {network.name}")
