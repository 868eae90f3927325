"""TCP pairs of a virtual peer: `net/tcp_pairs.py` without an event loop, with the same plans and budget."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.lab.virtual import Internet
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_tcp import EPHEMERAL, Connection, TcpHost
from crowline.net.tcp_mapping import MappingEvent, MappingLost
from crowline.net.tcp_pairs import TcpHandlers
from crowline.punch.dial_plan import Connect, DialCommand, DialEvent, DialPlan, GivenUp, Outcome
from crowline.punch.syn_budget import SynBudget
from crowline.punch.tcp_schedule import Attempt, Command, PunchFailed, TcpSchedule
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.turn.framing import StreamFramer

# How a virtual connection names its end, and what that is for a plan.
_OUTCOMES = {
    "refused": Outcome.REFUSED,
    "reset": Outcome.REFUSED,
    "unreachable": Outcome.UNREACHABLE,
    "time exceeded": Outcome.UNREACHABLE,
    "timed out": Outcome.SILENT,
}


class VirtualTcpPairs:
    """As `TcpPairs`. A message of a connection is one packet, so nothing is framed here."""

    def __init__(self, internet: Internet, tcp: TcpHost, handlers: TcpHandlers, budget: SynBudget) -> None:
        self._internet = internet
        self._tcp = tcp
        self._handlers = handlers
        self._budget = budget
        self._ports: dict[Address, _Port] = {}
        self._ends: dict[tuple[Address, Address], _End] = {}

    @property
    def bases(self) -> list[Address]:
        return list(self._ports)

    def bind(self, host: str) -> Address:
        """Listen at a port of the internet's choice; gives the base of the candidates there."""
        base = Address(host, self._internet.random.randint(*EPHEMERAL))
        self._ports[base] = _Port(self, self._internet, self._tcp, base, self._budget)
        self._tcp.listen(base, lambda connection: self._accepted(base, connection))
        return base

    def ask(self, server: Address) -> None:
        """Ask a STUN server about every port of its family, on a connection that stays."""
        for base in self._ports:
            if base.is_ipv6 == server.is_ipv6:
                _Question(self._internet, self._tcp, base, server, self._handlers.on_mapping)

    def want(self, local: Address, remote: Address, *, simultaneous: bool) -> None:
        if local not in self._ports or self.is_open(local, remote):
            return
        if simultaneous:
            self._ports[local].punch(remote)
        else:
            self._ports[local].dial(remote)

    def unwant(self, local: Address, remote: Address) -> None:
        if local in self._ports:
            self._ports[local].give_up(remote)
        end = self._ends.get((local, remote))
        if end is not None and not end.is_nominated:
            self.end(local, remote)

    def nominate(self, local: Address, remote: Address) -> None:
        """The connection is a link's from now on: only `end` and `close` end it."""
        end = self._ends.get((local, remote))
        if end is not None:
            end.is_nominated = True

    def end(self, local: Address, remote: Address) -> None:
        """End the connection; nothing is said of it."""
        end = self._ends.pop((local, remote), None)
        if end is not None:
            end.connection.close()

    def is_open(self, local: Address, remote: Address) -> bool:
        return (local, remote) in self._ends

    def send(self, transmit: Transmit) -> bool:
        end = self._ends.get((transmit.local, transmit.destination)) if transmit.local is not None else None
        if end is not None:
            end.connection.send(bytes(transmit.data))
        return end is not None

    def authenticated(self, local: Address, remote: Address) -> None:
        self._budget.prove(remote)
        end = self._ends.get((local, remote))
        if end is not None:
            end.is_trusted = True
            self._ports[local].give_up(remote)
        self._go_on()

    def seen_at(self, host: str) -> None:
        self._budget.prove_host(host)
        self._go_on()

    def close(self) -> None:
        for base, port in self._ports.items():
            port.close()
            self._tcp.unlisten(base)
        self._ports.clear()
        for end in self._ends.values():
            end.connection.close()
        self._ends.clear()

    # --- what ends and plans say --------------------------------------------------------------------------

    def opened(self, end: _End) -> None:
        self._ends[end.key] = end
        self._handlers.on_opened(*end.key)

    def packet(self, end: _End, data: bytes) -> None:
        if self._ends.get(end.key) is end:
            self._handlers.on_packet(data, end.connection.remote, end.connection.local)
            self._handlers.on_drained()

    def ended(self, end: _End, reason: str) -> None:
        if self._ends.get(end.key) is end:
            del self._ends[end.key]
            self._handlers.on_lost(*end.key, reason)

    def given_up(self, local: Address, remote: Address, reason: str) -> None:
        if not self.is_open(local, remote):
            self._handlers.on_lost(local, remote, reason)

    def _accepted(self, base: Address, connection: Connection) -> None:
        connection.stream = self._ports[base].let_in(connection)

    def _go_on(self) -> None:
        for port in self._ports.values():
            port.proven()


class _End:
    """This side of one connection. `tell_plan` hears how it ended, unless it had proven itself."""

    def __init__(
        self,
        pairs: VirtualTcpPairs,
        on_open: Callable[[], None] = lambda: None,
        tell_plan: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.connection: Connection
        self.is_trusted = self.is_nominated = False
        self._pairs = pairs
        self._on_open = on_open
        self._tell_plan = tell_plan

    @property
    def key(self) -> tuple[Address, Address]:
        return (self.connection.local, self.connection.remote)

    def on_open(self) -> None:
        self._on_open()
        self._pairs.opened(self)

    def on_message(self, data: bytes) -> None:
        self._pairs.packet(self, data)

    def on_closed(self, reason: str) -> None:
        self._pairs.ended(self, reason)
        if not self.is_trusted:
            self._tell_plan(reason)


class _Port:
    """The plans of one base."""

    def __init__(
        self, pairs: VirtualTcpPairs, internet: Internet, tcp: TcpHost, base: Address, budget: SynBudget
    ) -> None:
        self._pairs, self._internet, self._tcp = pairs, internet, tcp
        self._base = base
        self._budget = budget
        self._tries: dict[int, _End] = {}
        self._punches: dict[Address, _Punch] = {}
        self._plan = DialPlan(budget, entropy=internet.random.randbytes)
        self._pump: VirtualPump[DialCommand, DialEvent] = VirtualPump(
            internet, self._plan, self._do, self._on_event
        )
        self._plan.start(internet.now)
        self._pump.flush()

    def dial(self, remote: Address) -> None:
        self._plan.add(remote, self._internet.now)
        self._pump.flush()

    def punch(self, remote: Address) -> None:
        if remote not in self._punches:
            schedule = TcpSchedule(remote, self._budget, entropy=self._internet.random.randbytes)
            self._punches[remote] = _Punch(self, self._internet, schedule)
            self._punches[remote].begin()

    def let_in(self, connection: Connection) -> _End:
        """The end of what was accepted; that of a punch where one dials there."""
        punch = self._punches.get(connection.remote)
        end = _End(self._pairs) if punch is None else punch.let_in()
        end.connection = connection
        return end

    def give_up(self, remote: Address) -> None:
        self._plan.remove(remote)
        self._pump.flush()
        punch = self._punches.pop(remote, None)
        if punch is not None:
            punch.close()

    def proven(self) -> None:
        for punch in list(self._punches.values()):
            punch.proven()

    def close(self) -> None:
        self._plan.stop()
        self._pump.flush()
        self._pump.close()
        for punch in self._punches.values():
            punch.close()

    def connect(self, remote: Address, end: _End, hops: int | None = None) -> bool:
        """Let a SYN leave; False where the pair of addresses is in use."""
        try:
            end.connection = self._tcp.connect(remote, self._base, end, hops=hops)
        except UsageError:
            return False
        end.connection.restore_hops()
        return True

    def end(self, on_open: Callable[[], None], tell_plan: Callable[[str], None]) -> _End:
        return _End(self._pairs, on_open, tell_plan)

    def punch_over(self, remote: Address, failure: PunchFailed) -> None:
        self._punches.pop(remote).close()
        self._pairs.given_up(self._base, remote, failure.reason.value)

    def _do(self, command: DialCommand) -> None:
        number = command.number
        if not isinstance(command, Connect):
            end = self._tries.pop(number, None)
            if end is not None:
                end.connection.close()
            return
        end = self.end(lambda: self._plan.connected(number), lambda reason: self._failed(number, reason))
        if self.connect(command.remote, end):
            self._tries[number] = end
        else:
            self._internet.post(self._internet.now, self._failed, number, "in use")

    def _failed(self, number: int, reason: str) -> None:
        end = self._tries.pop(number, None)
        outcome = Outcome.UNSENT if end is None else _OUTCOMES.get(reason, Outcome.UNPROVEN)
        self._plan.failed(number, outcome, self._internet.now)
        self._pump.flush()

    def _on_event(self, event: DialEvent) -> None:
        if isinstance(event, GivenUp):
            self._pairs.given_up(self._base, event.tried.remote, event.tried.outcome.value)


class _Punch:
    """One simultaneous open, as `net/tcp_punch.py`."""

    def __init__(self, port: _Port, internet: Internet, schedule: TcpSchedule) -> None:
        self._port, self._internet, self._schedule = port, internet, schedule
        self._end: _End | None = None  # of the attempt under way
        self._pump: VirtualPump[Command, PunchFailed] = VirtualPump(
            internet, schedule, self._do, lambda failure: port.punch_over(schedule.remote, failure)
        )

    def begin(self) -> None:
        self._schedule.start(self._internet.now)
        self._pump.flush()

    def proven(self) -> None:
        self._schedule.proven(self._internet.now)
        self._pump.flush()

    def let_in(self) -> _End:
        number = self._schedule.let_in()
        self._pump.flush()
        return self._port.end(lambda: None, lambda reason: self._lost(number))

    def close(self) -> None:
        self._schedule.stop()
        self._pump.flush()
        self._pump.close()

    def _do(self, command: Command) -> None:
        if not isinstance(command, Attempt):
            if self._end is not None:
                self._end.connection.close()
            return
        number = command.number
        end = self._port.end(lambda: self._opened(number), lambda reason: self._failed(number, reason))
        if self._port.connect(self._schedule.remote, end, command.hop_limit):
            self._end = end
        else:
            self._internet.post(self._internet.now, self._unsent, number)

    def _opened(self, number: int) -> None:
        self._schedule.opened(number)
        self._pump.flush()

    def _failed(self, number: int, reason: str) -> None:
        """Before it was open, or after."""
        now = self._internet.now
        if reason == "refused":
            self._schedule.refused(number, now)
        elif reason in ("reset", "closed"):
            self._schedule.lost(number, now)
        else:
            self._schedule.unreachable(number, now)
        self._pump.flush()

    def _lost(self, number: int) -> None:
        self._schedule.lost(number, self._internet.now)
        self._pump.flush()

    def _unsent(self, number: int) -> None:
        self._schedule.unsent(number, self._internet.now)
        self._pump.flush()


class _Question:
    """A connection with a STUN server from a shared port; it stays open with the mapping."""

    def __init__(
        self,
        internet: Internet,
        tcp: TcpHost,
        base: Address,
        server: Address,
        on_mapping: Callable[[MappingEvent], None],
    ) -> None:
        self._internet, self._base, self._server = internet, base, server
        self._framer = StreamFramer()
        self._client = BindingClient(entropy=internet.random.randbytes)
        self._on_mapping = on_mapping
        self._pump: VirtualPump[Transmit, BindingEvent] = VirtualPump(
            internet, self._client, self._send, self._on_event
        )
        self._connection = tcp.connect(server, base, self)

    def on_open(self) -> None:
        self._client.query(self._server, self._internet.now, self._base, Transport.TCP)
        self._pump.flush()

    def on_message(self, data: bytes) -> None:
        self._framer.feed(data)
        while (message := self._framer.next_message()) is not None:
            self._client.receive(message, self._server, self._internet.now, self._base)
        self._pump.flush()

    def on_closed(self, reason: str) -> None:
        self._pump.close()
        self._on_mapping(MappingLost(self._server, self._base, reason))

    def _send(self, transmit: Transmit) -> None:
        self._connection.send(bytes(transmit.data))

    def _on_event(self, event: BindingEvent) -> None:
        if isinstance(event, Mapped):
            self._on_mapping(event)
