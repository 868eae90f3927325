"""Plans for hard NATs as they are carried out: the conductor with its sockets, questions and signals."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from crowline.api.path_reasons import PathReasons
from crowline.api.traversal.adoption import Adoption
from crowline.api.traversal.own_nat import OwnNat
from crowline.api.traversal.plan_notes import PlanNotes
from crowline.api.traversal.punch_sockets import PunchSockets
from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import CandidateType
from crowline.ice.events import IceEvent, PairLost, PairReclassified, PairValid, Restarted
from crowline.net.interfaces import source_towards
from crowline.net.pump import Pump
from crowline.punch.conductor import Conductor
from crowline.punch.conductor_events import (
    Adopt,
    ConductorEvent,
    PlanBegun,
    PlanOver,
    PlansExhausted,
    SignalWanted,
    SocketsDone,
    VouchWanted,
)
from crowline.punch.parts import PUNCHED
from crowline.punch.plan_choice import Fit, Way, choose_plans
from crowline.punch.punch_signals import PunchProfile, PunchSignal
from crowline.punch.samples import Ask
from crowline.punch.spray import Probe
from crowline.punch.spray_budget import SprayBudget, SprayQuota
from crowline.rendezvous.signals import Description, Signal
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.stun.message import is_stun
from crowline.stun.transaction import Schedule

if TYPE_CHECKING:
    from crowline.punch.nat_profile import NatProfile

# What no user has to act on, for those who look for the cause of something.
_log = logging.getLogger("crowline.punch")

# Seconds after which a side that waits for the other measures its NAT: beyond the first moments, in which
# both sides of a quick meeting come.
WAITING_DELAY = 1.0
# Seconds for which the first checks alone have the network, after both sides know each other.
HEAD_START = 0.3
# A plan's question to a STUN server is given up after half a second: what is asked is gone by then.
QUICK = Schedule(rto=0.1, rc=3, rm=2)

# That somebody forwarded a port by hand is tried since it costs so little; nobody counts on it.
_HOPES = frozenset(PUNCHED) - {Way.SAME_PORT}

# Bytes of a check, which has 150: more than any packet that is not sent in fragments.
MAX_CHECK = 1500

# All meetings of this process share it.
_QUOTA = SprayQuota()


class Punching:
    """Begins nothing before it is told that one side waits, or that both are there.

    `servers` finds STUN servers, those that are known to answer first. Without `is_wanted` nothing is done,
    since no NAT is in between.
    """

    def __init__(
        self,
        owner: Adoption,
        agent: IceAgent,
        *,
        signal: Callable[[Signal], None],
        servers: Callable[[], Awaitable[list[Address]]],
        reasons: PathReasons,
        is_wanted: bool = True,
        notes: PlanNotes | None = None,
        quota: SprayQuota = _QUOTA,
    ) -> None:
        self.is_wanted = is_wanted
        self._owner = owner
        self._agent = agent
        self._signal = signal
        self._find_servers = servers
        self._reasons = reasons
        self._notes = notes or PlanNotes()
        self._leads = agent.controlling
        self._budget = SprayBudget(quota)
        self._conductor = Conductor(self._leads, self._budget, entropy=os.urandom)
        self._pump = Pump[Ask | Probe, ConductorEvent](self._conductor, self._send, self._on_event)
        self._loop = asyncio.get_running_loop()
        self._sockets = PunchSockets(self._on_datagram, self._on_forbidden)
        self._binding = BindingClient(entropy=os.urandom, schedule=QUICK)
        self._binding_pump = Pump[Transmit, BindingEvent](self._binding, self._send_question, self._on_answer)
        self._asking: dict[Address, int] = {}
        self._packets: dict[int, tuple[bytes, Address]] = {}
        self._own_nat = OwnNat(self._servers, is_needed=self._is_needed, on_known=self._on_known)
        self._server: Address | None = None
        self._own_host = self._outside = self._peer_outside = ""
        self._plan: PlanBegun | None = None
        self._has_led = False  # whether a socket of that plan has a pair
        self._plans: dict[Address, PlanBegun] = {}  # by which each socket was adopted
        self._is_direct = self._is_over = False

    @property
    def profile(self) -> NatProfile | None:
        """What this side is behind, once that was measured."""
        return self._own_nat.profile

    # What the traversal tells ------------------------------------------------------------------------

    def wait(self) -> None:
        """The server is there, and the other side may not be for long."""
        if self.is_wanted and not self._leads:
            self._own_nat.measure_in(WAITING_DELAY)

    def meet(self, description: Description) -> None:
        """Both sides are there."""
        if self.is_wanted and description.punches:
            self._conductor.meet(self._pump.now)
            self._own_nat.measure_in(HEAD_START)
            self._pump.flush()

    def hear(self, signal: PunchSignal) -> None:
        """What the other side says of plans."""
        if not self.is_wanted:
            return
        if isinstance(signal, PunchProfile):
            self._reasons.peer = signal.summary
            self._peer_outside = signal.host if _is_ipv4(signal.host) else ""
            self._remember()
            self._judge()
        self._conductor.receive_signal(signal, self._pump.now)
        self._pump.flush()

    def on_event(self, event: IceEvent) -> None:
        """What the agent says."""
        if not self.is_wanted:
            return
        if isinstance(event, PairValid):
            self._on_pair(event)
        if isinstance(event, Restarted):
            self._conductor.restarted(self._pump.now)
        if isinstance(event, PairValid | PairLost | PairReclassified | Restarted):
            self._look()

    def vouched(self, host: str) -> None:
        """The hub saw the other side there."""
        self._prove(host)

    def on_network_change(self) -> None:
        """What was measured was another network."""
        self._own_nat.forget()
        if self.is_wanted:
            self._own_nat.measure_in(HEAD_START)

    def close(self) -> None:
        """Stop at once; nothing is told any more."""
        self._is_over = True
        self._conductor.stop(self._pump.now)
        self._own_nat.close()
        self._pump.close()
        self._binding_pump.close()
        self._sockets.close()

    # What the agent found ----------------------------------------------------------------------------

    def _on_pair(self, event: PairValid) -> None:
        pair = event.pair
        if pair.remote.type is not CandidateType.RELAYED:
            self._prove(pair.remote.address.host)
        plan = self._plans.get(pair.base) if self._owner.is_adopted(pair.base) else None
        if plan is not None and pair.kind != "relay":
            self._reasons.won(pair.key, plan.way)
            self._has_led = self._has_led or plan is self._plan

    def _look(self) -> None:
        is_direct = any(pair.kind != "relay" for pair in self._agent.valid_pairs())
        if is_direct != self._is_direct:
            self._is_direct = is_direct
            self._own_nat.measure_in(HEAD_START)
        self._conductor.direct(is_direct, self._pump.now)
        self._pump.flush()

    def _prove(self, host: str) -> None:
        """An answer came from there, or the hub's word: it is the other side's."""
        if _is_ipv4(host) and not self._owner.is_server(host):
            self._conductor.host_proven(host, self._pump.now)
            self._pump.flush()

    # The own NAT -------------------------------------------------------------------------------------

    def _is_needed(self) -> bool:
        return not self._is_direct

    async def _servers(self) -> list[Address]:
        await self._notes.read()
        servers = [each for each in await self._find_servers() if not each.is_ipv6]
        self._server = servers[0] if servers else None
        self._own_host = (source_towards(servers[0]) or "") if servers else ""
        return servers

    def _on_known(self, profile: NatProfile) -> None:
        summary = profile.summary()
        _log.info("this side's NAT: %s", profile.words())
        self._reasons.own = summary
        self._outside = next((host for host in profile.outside_hosts if _is_ipv4(host)), "")
        self._remember()
        self._judge()
        self._conductor.own_summary(summary, self._outside, self._pump.now)
        self._pump.flush()

    def _remember(self) -> None:
        if self._outside and self._peer_outside:
            scores = self._notes.between(self._outside, self._peer_outside)
            self._conductor.remember(scores, self._pump.now)

    def _judge(self) -> None:
        """Where no plan can be hoped for, say at once why; all are tried nevertheless."""
        own, peer = self._reasons.own, self._reasons.peer
        if own is None or peer is None:
            return
        plans = choose_plans(own, peer, leads=self._leads)
        if all(plan.fit is Fit.UNLIKELY for plan in plans if plan.way in _HOPES):
            self._reasons.exhausted()

    # Plans -------------------------------------------------------------------------------------------

    def _send(self, command: Ask | Probe) -> None:
        local = self._sockets.open(command.socket, self._own_host) if self._own_host else None
        if isinstance(command, Ask):
            self._ask(command.socket, local)
        elif local is not None and self._owner.may_probe(command.destination):
            try:
                data = self._agent.probe(local, command.destination)
            except UsageError:
                # The other side is not known any more: a plan that was made before has nothing to say.
                return
            self._sockets.send(command.socket, data, command.destination, command.hop_limit)

    def _on_event(self, event: ConductorEvent) -> None:
        if isinstance(event, SignalWanted):
            self._signal(event.signal)
        elif isinstance(event, VouchWanted):
            self._owner.vouch(event.host)
        elif isinstance(event, Adopt):
            self._adopt(event.socket)
        elif isinstance(event, SocketsDone):
            self._close_sockets(event.below)
        elif isinstance(event, PlanBegun):
            self._plan, self._has_led = event, False
            _log.info("plan %s: %s", event.name, event.reason)
        elif isinstance(event, PlanOver):
            self._on_plan_over(event)
        elif isinstance(event, PlansExhausted):
            self._reasons.exhausted()

    def _on_plan_over(self, event: PlanOver) -> None:
        _log.info("plan %s: %s; %d packets", event.name, event.outcome.value, event.sent)
        # Of a network in which nobody has seen the other side, its word alone changes nothing.
        if self._budget.is_proven(self._peer_outside):
            self._notes.tried(event.name)
            if self._has_led:
                self._notes.worked(event.name)

    def _adopt(self, number: int) -> None:
        packet, socket = self._packets.pop(number, None), self._sockets.give_away(number)
        if socket is not None and packet is not None and self._plan is not None:
            self._plans = {base: plan for base, plan in self._plans.items() if self._owner.is_adopted(base)}
            self._plans[socket.local] = self._plan
            self._owner.adopt(socket, *packet)
        elif socket is not None:
            socket.close()

    def _close_sockets(self, below: int) -> None:
        self._sockets.close(below)
        self._asking = {local: number for local, number in self._asking.items() if number >= below}
        self._packets = {number: packet for number, packet in self._packets.items() if number >= below}

    def _on_forbidden(self) -> None:
        self._owner.forbidden(self._own_host)

    # Questions ---------------------------------------------------------------------------------------

    def _ask(self, number: int, local: Address | None) -> None:
        """Have a server say under which address it sees the socket of that number."""
        if local is None or self._server is None:
            self._conductor.sampled(number, None, self._pump.now, local)
            return
        self._asking[local] = number
        self._binding.query(self._server, self._binding_pump.now, local)
        self._binding_pump.flush()

    def _send_question(self, transmit: Transmit) -> None:
        if transmit.local is not None and (number := self._asking.get(transmit.local)) is not None:
            self._sockets.send(number, transmit.data, transmit.destination)

    def _on_answer(self, event: BindingEvent) -> None:
        local = event.local
        if local is not None and (number := self._asking.get(local)) is not None:
            mapped = event.address if isinstance(event, Mapped) else None
            self._conductor.sampled(number, mapped, self._pump.now, local)
            self._flush_soon()

    def _on_datagram(self, number: int, data: memoryview, source: Address) -> None:
        if not is_stun(data) or len(data) > MAX_CHECK or self._is_over:
            return
        if self._binding.owns(data):
            local = self._sockets.open(number, self._own_host)
            self._binding.receive(data, source, self._binding_pump.now, local)
            self._binding_pump.flush()
        elif self._agent.authenticates(data):
            self._packets.setdefault(number, (bytes(data), source))
            self._conductor.authenticated(number, source, self._pump.now)
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Not while sockets are read: what is sent then waits, and leaves in another order."""
        self._loop.call_soon(self._pump.flush)


def _is_ipv4(host: str) -> bool:
    try:
        return ip_address(host).version == 4
    except ValueError:
        return False
