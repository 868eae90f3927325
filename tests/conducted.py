"""One conductor whose other side, sockets and servers are moved by hand, in virtual time."""

from __future__ import annotations

import random
from typing import TypeVar

from crowline.base.addresses import Address
from crowline.punch.conductor import (
    Conductor,
)
from crowline.punch.conductor_events import (
    ConductorEvent,
    SignalWanted,
    VouchWanted,
)
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice
from crowline.punch.punch_signals import PunchPool, PunchProfile, PunchReady, PunchSignal
from crowline.punch.samples import Ask
from crowline.punch.spray import Probe
from crowline.punch.spray_budget import SprayBudget

OWN, PEER, VICTIM = "203.0.113.1", "198.51.100.1", "192.0.2.66"
EASY = NatSummary(MappingKind.INDEPENDENT, FilterKind.PER_PORT, PortChoice.PRESERVING)
RANDOM = NatSummary(MappingKind.PER_PORT, FilterKind.PER_PORT, PortChoice.RANDOM)
COUNTING = NatSummary(MappingKind.PER_PORT, FilterKind.PER_PORT, PortChoice.SEQUENTIAL)
POOL = PunchPool(2000, 60_000, 64_000)

T = TypeVar("T", bound=ConductorEvent)


class Conducted:
    """`sent` has all probes and `asked` all questions with their times, `events` all else.

    With `answers`, a server sees each socket at once under its next port; with `vouches`, the hub knows every
    host.
    """

    def __init__(
        self,
        *,
        leads: bool,
        answers: bool = True,
        vouches: bool = True,
        budget: SprayBudget | None = None,
        seed: int = 1,
    ) -> None:
        self.now = 0.0
        self.answers, self.vouches = answers, vouches
        self.port = 30_000
        self.step = 7
        self.budget = budget or SprayBudget()
        self.conductor = Conductor(leads, self.budget, entropy=random.Random(seed).randbytes)
        self.sent: list[tuple[float, Probe]] = []
        self.asked: list[tuple[float, int]] = []
        self.events: list[tuple[float, ConductorEvent]] = []
        self._opened: set[int] = set()  # sockets that have sent to the other side

    def met(self, own: NatSummary, peer: NatSummary) -> Conducted:
        """Both sides are there and have measured."""
        self.conductor.meet(self.now)
        self.conductor.own_summary(own, OWN, self.now)
        self.hear(PunchProfile.of(peer, PEER))
        return self

    def hear(self, signal: PunchSignal) -> None:
        """The other side says that."""
        self.conductor.receive_signal(signal, self.now)
        self.drain()

    def ready(self, *, host: str = PEER, ports: tuple[int, ...] = (), pool: PunchPool | None = None) -> None:
        """The other side is ready for the present round."""
        self.hear(PunchReady(self.round, host, ports, pool))

    def drain(self) -> None:
        """Take everything, and answer as server and hub."""
        busy = True
        while busy:
            busy = False
            while (command := self.conductor.next_transmit()) is not None:
                busy = True
                self._carry_out(command)
            while (event := self.conductor.next_event()) is not None:
                busy = True
                self.events.append((self.now, event))
                if isinstance(event, VouchWanted) and self.vouches:
                    self.conductor.host_proven(event.host, self.now)

    def run(self, until: float) -> None:
        """Let the time pass."""
        self.drain()
        while (at := self.conductor.next_timeout()) is not None and at <= until:
            self.now = max(self.now, at)
            self.conductor.handle_timeout(self.now)
            self.drain()
        self.now = until

    def found(self, kind: type[T]) -> list[T]:
        """All events of that kind."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def said(self, kind: type[PunchSignal]) -> list[PunchSignal]:
        """All signals of that kind to the other side."""
        return [event.signal for event in self.found(SignalWanted) if isinstance(event.signal, kind)]

    @property
    def round(self) -> int:
        return self.conductor.round_number

    def _carry_out(self, command: Ask | Probe) -> None:
        if isinstance(command, Probe):
            if command.socket not in self._opened:
                self._opened.add(command.socket)
                self.port += self.step
            self.sent.append((self.now, command))
            return
        self.asked.append((self.now, command.socket))
        self.port += self.step
        if self.answers:
            local = Address("10.0.0.2", 40_000 + command.socket % 20_000)
            self.conductor.sampled(
                command.socket, Address(OWN, 1024 + (self.port - 1024) % 64_512), self.now, local
            )
