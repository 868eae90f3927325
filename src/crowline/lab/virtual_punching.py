"""Plans for hard NATs of a virtual peer: `api/traversal/punching.py` without an event loop."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.agent import IceAgent
from crowline.ice.events import IceEvent
from crowline.lab.network import Packet
from crowline.lab.virtual import Internet
from crowline.lab.virtual_ports import free_address
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_site import VirtualSite
from crowline.lab.virtual_sockets import VirtualSockets
from crowline.punch.conductor import (
    Conductor,
)
from crowline.punch.conductor_events import (
    Adopt,
    ConductorEvent,
    PlanBegun,
    PlanOver,
    SignalWanted,
    SocketsDone,
    VouchWanted,
)
from crowline.punch.nat_profile import NatProfile
from crowline.punch.plan_choice import NatSummary, Way
from crowline.punch.punch_signals import PunchSignal
from crowline.punch.samples import Ask
from crowline.punch.spray import Probe
from crowline.punch.spray_budget import SprayBudget
from crowline.rendezvous.signals import Signal
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.stun.message import is_stun
from crowline.stun.nat_discovery import BasesWanted, Discovered, Foreseen, NatDiscovery

# Seconds from when a peer may measure to when it does: the first checks of ICE go before.
MEASURE_DELAY = 0.3


class VirtualPunching:
    """One peer's: its conductor, the NAT's measurement, and the extra sockets.

    `signal` tells the other side something, `vouch` asks the hub whether it saw the other side at a host.
    `began` has all plans with the time of their begin, `adopted` the sockets that became bases by one.
    """

    def __init__(
        self,
        internet: Internet,
        site: VirtualSite,
        sockets: VirtualSockets,
        agent: IceAgent,
        agent_pump: VirtualPump[Transmit, IceEvent],
        *,
        leads: bool,
        signal: Callable[[Signal], None],
        vouch: Callable[[str], None],
    ) -> None:
        self.began: list[tuple[float, PlanBegun]] = []
        self.ended: list[PlanOver] = []
        self.adopted: dict[Address, Way] = {}
        self.summary: NatSummary | None = None
        self._internet = internet
        self._host = site.host
        self._own = next((each for each in site.addresses if ":" not in each), None)
        self._sockets = sockets
        self._agent, self._agent_pump = agent, agent_pump
        self._signal, self._vouch = signal, vouch
        self._server: Address | None = None
        self._bases: list[Address] = []  # those that measure
        self._opened: dict[int, Address] = {}
        self._numbers: dict[Address, int] = {}
        self._packet: bytes = b""
        entropy = internet.random.randbytes
        self.budget = SprayBudget()
        self.conductor = Conductor(leads, self.budget, entropy=entropy)
        self._pump: VirtualPump[Ask | Probe, ConductorEvent] = VirtualPump(
            internet, self.conductor, self._send, self._on_event
        )
        self._binding = BindingClient(entropy=entropy)
        self._binding_pump: VirtualPump[Transmit, BindingEvent] = VirtualPump(
            internet, self._binding, self._launch, self._on_answer
        )

    @property
    def is_hopeful(self) -> bool:
        """Whether a plan may still lead through."""
        is_measuring = self._server is not None and self.summary is None
        return self.conductor.is_hopeful or is_measuring

    def measure(self, server: Address) -> None:
        """Find out what kind of NAT there is, in a moment."""
        if self._own is not None and not server.is_ipv6 and self._server is None:
            self._server = server
            self._internet.call_at(self._internet.now + MEASURE_DELAY, self._measure)

    def meet(self) -> None:
        """Both sides know each other, and punch."""
        if self._own is not None:
            self.conductor.meet(self._internet.now)
            self._pump.flush()

    def receive(self, signal: PunchSignal) -> None:
        """The other side's conductor says something."""
        self.conductor.receive_signal(signal, self._internet.now)
        self._pump.flush()

    def host_vouched(self, host: str) -> None:
        """The hub saw the other side there."""
        self.conductor.host_proven(host, self._internet.now)
        self._pump.flush()

    def look(self) -> None:
        """Pairs have come or gone."""
        is_direct = any(pair.kind != "relay" for pair in self._agent.valid_pairs())
        self.conductor.direct(is_direct, self._internet.now)
        self._pump.flush()

    # --- what kind of NAT -------------------------------------------------------------------------------

    def _measure(self) -> None:
        assert self._server is not None and self._own is not None
        discovery = NatDiscovery(self._server, entropy=self._internet.random.randbytes, foresees=True)
        node = self._internet.attach(discovery, on_event=self._on_discovered)
        wanted = discovery.next_event()
        assert isinstance(wanted, BasesWanted)
        for _ in range(wanted.count):
            base = self._free_address()
            self._internet.bind(node, self._host, base)
            self._bases.append(base)
        discovery.start(tuple(self._bases), self._internet.now)
        self._internet.poke(node)

    def _on_discovered(self, event: object) -> None:
        if isinstance(event, Discovered):
            while self._bases:
                del self._host.sockets[self._bases.pop()]
        if isinstance(event, Foreseen | Discovered):
            profile = NatProfile.of(event.findings)
            self.summary = profile.summary()
            host = next(iter(profile.outside_hosts), "")
            self.conductor.own_summary(self.summary, host, self._internet.now)
            self._pump.flush()

    # --- what the conductor wants -----------------------------------------------------------------------

    def _send(self, command: Ask | Probe) -> None:
        local = self._open(command.socket)
        if isinstance(command, Probe):
            data = self._agent.probe(local, command.destination)
            packet = Packet.udp(local, command.destination, data, command.hop_limit)
            self._internet.launch(self._host, packet)
        elif self._server is not None:
            self._binding.query(self._server, self._internet.now, local)
            self._binding_pump.flush()

    def _on_event(self, event: ConductorEvent) -> None:
        if isinstance(event, SignalWanted):
            self._signal(event.signal)
        elif isinstance(event, VouchWanted):
            self._vouch(event.host)
        elif isinstance(event, Adopt):
            self._adopt(event)
        elif isinstance(event, SocketsDone):
            for number in [number for number in self._opened if number < event.below]:
                local = self._opened.pop(number)
                del self._numbers[local], self._host.sockets[local]
        elif isinstance(event, PlanBegun):
            self.began.append((self._internet.now, event))
        elif isinstance(event, PlanOver):
            self.ended.append(event)

    def _adopt(self, event: Adopt) -> None:
        """The socket is a base from now on, and the packet that came there is its first."""
        local = self._opened.pop(event.socket)
        del self._numbers[local], self._host.sockets[local]
        self.adopted[local] = self.began[-1][1].way
        self._sockets.adopt(local)
        self._agent.add_local_candidate(self._sockets.factory.host(local), self._internet.now)
        self._agent.receive(self._packet, event.source, self._internet.now, local)
        self._agent_pump.flush()

    # --- the extra sockets ------------------------------------------------------------------------------

    def _open(self, number: int) -> Address:
        local = self._opened.get(number)
        if local is None:
            local = self._opened[number] = self._free_address()
            self._numbers[local] = number
            self._internet.listen(self._host, local, self._received)
        return local

    def _free_address(self) -> Address:
        assert self._own is not None
        return free_address(self._internet, self._host, self._own)

    def _launch(self, transmit: Transmit) -> None:
        local = transmit.local
        if local in self._numbers and local is not None:
            packet = Packet.udp(local, transmit.destination, bytes(transmit.data))
            self._internet.launch(self._host, packet)

    def _received(self, packet: Packet) -> None:
        data, source, local = packet.data, packet.source, packet.destination
        if not is_stun(data):
            return
        if source == self._server and self._binding.owns(data):
            self._binding.receive(data, source, self._internet.now, local)
            self._binding_pump.flush()
        elif self._agent.authenticates(data):
            self._packet = data
            self.conductor.authenticated(self._numbers[local], source, self._internet.now)
            self._pump.flush()

    def _on_answer(self, event: BindingEvent) -> None:
        number = self._numbers.get(event.local) if event.local is not None else None
        if number is not None:
            mapped = event.address if isinstance(event, Mapped) else None
            self.conductor.sampled(number, mapped, self._internet.now, event.local)
            self._pump.flush()
