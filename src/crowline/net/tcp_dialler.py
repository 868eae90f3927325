"""Reaches the other side's TCP candidates from one port: dials those that listen, meets others half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.net.pump import Pump
from crowline.net.tcp import SYN_REPEAT, ConnectFailed, Opened, PunchOver, TcpEvent, TcpPort
from crowline.net.tcp_mapping import MappingEvent, MappingLost
from crowline.net.tcp_stream import TcpStream
from crowline.punch.dial_plan import Connect, DialCommand, DialEvent, DialPlan, GivenUp, Outcome
from crowline.punch.syn_budget import SynBudget
from crowline.punch.tcp_schedule import TcpSchedule

# Addresses that are met half-way at a time; each has its own plan of five seconds.
MAX_PUNCHES = 64
# Seconds after which a STUN server whose connection was lost is asked again: it may have been restarted.
ASK_AGAIN = 30.0


class DiallerHandlers(Struct, frozen=True):
    """`on_opened` gets every connection, accepted ones too; `on_mapping` what STUN servers say.

    `on_given_up(local, remote, reason)`: the other side was not reached there.
    """

    on_opened: Callable[[TcpStream], None]
    on_given_up: Callable[[Address, Address, str], None]
    on_mapping: Callable[[MappingEvent], None]


class TcpDialler:
    """One `TcpPort` and its plans. `round_trip` is a guess in seconds for the way to the other side."""

    def __init__(
        self,
        address: Address,
        handlers: DiallerHandlers,
        budget: SynBudget,
        *,
        entropy: Callable[[int], bytes],
        round_trip: float = 0.0,
    ) -> None:
        """Raises `LocalProblem` where the port cannot be had."""
        self._port = TcpPort.bind(address, self._event, entropy=entropy)
        self._handlers = handlers
        self._budget = budget
        self._entropy = entropy
        self._round_trip = round_trip
        self._later: dict[Address, asyncio.TimerHandle] = {}
        self._punches: dict[Address, int] = {}
        # Tries of the plan by the port's numbers, and the other way round.
        self._tries: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        # Tries whose connections stand and have proven nothing yet.
        self._standing: dict[TcpStream, int] = {}
        self._plan = DialPlan(budget, entropy=entropy, repeat=SYN_REPEAT)
        self._pump = Pump[DialCommand, DialEvent](self._plan, self._do, self._plan_event)
        self._plan.start(self._pump.now)
        self._pump.flush()

    @property
    def local(self) -> Address:
        """The address of the port: the base of its candidates."""
        return self._port.local

    def ask(self, server: Address) -> None:
        """Learn the address that a NAT gives to the port: `Mapped` or `MappingLost` follows.

        What was lost is asked for again after a while.
        """
        self._port.ask(server)

    def stop_asking(self) -> None:
        """Ask no server any more."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        self._port.stop_asking()

    def dial(self, remote: Address) -> None:
        """Connect to where the other side should listen, in up to three tries."""
        self._plan.add(remote, self._pump.now)
        self._pump.flush()

    def punch(self, remote: Address) -> None:
        """Meet the other side, which dials too, half-way."""
        if remote in self._punches or len(self._punches) >= MAX_PUNCHES:
            return
        schedule = TcpSchedule(
            remote, self._budget, entropy=self._entropy, round_trip=self._round_trip, repeat=SYN_REPEAT
        )
        self._punches[remote] = self._port.punch(schedule)

    def give_up(self, remote: Address) -> None:
        """Try to reach it no more; nothing is said of it. What is connected stays."""
        self._plan.remove(remote)
        self._pump.flush()
        number = self._punches.pop(remote, None)
        if number is not None:
            self._port.cancel(number)

    def proven(self) -> None:
        """The budget has fewer limits than before."""
        self._port.proven()

    def trust(self, stream: TcpStream) -> None:
        """A connection of this port has proven whose it is: no other one is wanted from there."""
        self._standing.pop(stream, None)
        self.give_up(stream.remote)
        stream.trust()

    def ended(self, stream: TcpStream) -> None:
        """A connection of this port ended; tries of its address may go on, if it had proven nothing."""
        number = self._standing.pop(stream, None)
        if number is not None:
            self._plan.failed(number, Outcome.UNPROVEN, self._pump.now)
            self._pump.flush()
        punch = self._punches.get(stream.remote)
        if punch is not None and not self._port.is_punching(punch):
            del self._punches[stream.remote]

    def close(self) -> None:
        """End the plans and the port; connections that have proven themselves stay."""
        self._plan.stop()
        self._pump.flush()
        self._pump.close()
        self.stop_asking()
        self._port.close()

    def _do(self, command: DialCommand) -> None:
        if isinstance(command, Connect):
            number = self._port.connect(command.remote)
            self._tries[number], self._numbers[command.number] = command.number, number
            return
        abandoned = self._numbers.pop(command.number, None)
        if abandoned is not None:
            del self._tries[abandoned]
            self._port.cancel(abandoned)

    def _plan_event(self, event: DialEvent) -> None:
        if isinstance(event, GivenUp):
            self._handlers.on_given_up(self.local, event.tried.remote, event.tried.outcome.value)

    def _event(self, event: TcpEvent) -> None:
        if isinstance(event, Opened):
            self._opened(event)
        elif isinstance(event, ConnectFailed):
            number = self._settled(event.number)
            if number is not None:
                self._plan.failed(number, Outcome[event.obstacle.name], self._pump.now)
                self._pump.flush()
        elif isinstance(event, PunchOver):
            self._punches.pop(event.remote, None)
            self._handlers.on_given_up(self.local, event.remote, event.failure.reason.value)
        else:
            if isinstance(event, MappingLost):
                self._ask_later(event.server)
            self._handlers.on_mapping(event)

    def _ask_later(self, server: Address) -> None:
        loop = asyncio.get_running_loop()
        self._later[server] = loop.call_later(ASK_AGAIN, self._port.ask, server)

    def _opened(self, event: Opened) -> None:
        number = self._settled(event.number)
        if number is not None:
            self._standing[event.stream] = number
            self._plan.connected(number)
            self._pump.flush()
        self._handlers.on_opened(event.stream)

    def _settled(self, number: int | None) -> int | None:
        """The try of the plan that the port's number was for; it is under way no more."""
        if number is None or number not in self._tries:
            return None
        tried = self._tries.pop(number)
        del self._numbers[tried]
        return tried
