"""A side of a meeting that has nothing but an agent, sockets and plans, and a STUN server, on loopback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from crowline.api.path_reasons import PathReasons
from crowline.api.traversal import punching
from crowline.api.traversal.adoption import Adoption
from crowline.api.traversal.agent_events import AgentEvents
from crowline.api.traversal.gatherer import Gatherer
from crowline.api.traversal.plan_notes import PlanNotes
from crowline.api.traversal.punching import Punching
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.agent import MIN_TA, IceAgent
from crowline.ice.candidate import Candidate
from crowline.ice.events import IceEvent
from crowline.net import nat_discovery
from crowline.net.plan_store import PlanStore
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from crowline.punch.nat_profile import (
    AllocationPattern,
    Filtering,
    Mapping,
    NatProfile,
    PortPattern,
)
from crowline.punch.punch_signals import PunchSignal
from crowline.punch.spray_budget import SprayQuota
from crowline.rendezvous.signals import Description, Signal
from crowline.stun.attributes import XorMappedAddress
from crowline.stun.message import Message, MessageClass, Method
from crowline.stun.nat_findings import Facet, Findings, Reason
from crowline.stun.responder import Responder

HOST, SERVER_HOST = "127.0.0.1", "127.0.0.2"
UNKNOWN = NatProfile.of(Findings(Address(SERVER_HOST, 3478), unknown=dict.fromkeys(Facet, Reason.NO_ANSWER)))
EASY = replace(
    UNKNOWN,
    answers=True,
    mapping=Mapping.ENDPOINT_INDEPENDENT,
    filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT,
    ports=PortPattern(AllocationPattern.PRESERVING),
    outside_hosts=(HOST,),
)
HARD = replace(
    EASY,
    mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT,
    ports=PortPattern(AllocationPattern.RANDOM),
)


class StunServer:
    """Answers Binding requests on loopback; with `delay` set, when that is set."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, Address]] = []
        self.delay: asyncio.Event | None = None
        self._responder = Responder()
        self._socket = UdpSocket.bind(Address(SERVER_HOST, 0), self._received)
        self.address = self._socket.local
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def asked(self) -> int:
        """How many requests, or other packets, came."""
        return len(self.requests)

    def lie(self, request: bytes, source: Address, address: Address) -> None:
        """Answer a request that somebody else was asked, with that address."""
        answer = Message(Method.BINDING, MessageClass.SUCCESS, request[8:20], (XorMappedAddress(address),))
        self._socket.send(Transmit(answer.encode(), source))

    def _received(self, data: memoryview, source: Address, _: int) -> None:
        self.requests.append((bytes(data), source))
        task = asyncio.create_task(self._answer(bytes(data), source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, source: Address) -> None:
        if self.delay is not None:
            await self.delay.wait()
        self._responder.receive(data, source, 0.0, self.address)
        while (answer := self._responder.next_transmit()) is not None:
            self._socket.send(answer)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._socket.close()


class Side:
    """A traversal without anything but its agent, its sockets and plans. It offers no candidate."""

    def __init__(
        self, *, leads: bool, folder: Path, server: StunServer | None = None, is_wanted: bool = True
    ) -> None:
        self.signals: list[Signal] = []
        self.told: Callable[[Signal], None] = self.signals.append
        self.candidates: list[Candidate] = []
        self.events: list[IceEvent] = []
        self.vouched: list[str] = []
        self.warnings: list[str] = []
        self.allowed: Callable[[Address], bool] = lambda _: True
        self.in_use: set[Address] = set()
        self.changed = asyncio.Event()
        self.reasons = PathReasons(self.changed.set)
        self.agent = IceAgent(leads, entropy=os.urandom, ta=MIN_TA, renominate=True)
        self.pump = Pump[Transmit, IceEvent](self.agent, self.send, self.on_event)
        self.gatherer = Gatherer(self, [HOST])
        self.servers = [server.address] if server is not None else []
        events = AgentEvents(
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            allowed=self,  # type: ignore[arg-type]
            gatherer=self.gatherer,
            announcer=self,  # type: ignore[arg-type]
            on_restarted=lambda: None,
        )
        self.punching = Punching(
            Adoption(self, self, self.agent, self.pump, self.gatherer, self, events),  # type: ignore[arg-type]
            self.agent,
            signal=self.say,
            servers=self.find_servers,
            reasons=self.reasons,
            is_wanted=is_wanted,
            notes=PlanNotes(PlanStore(folder)),
            quota=SprayQuota(),
        )

    @property
    def description(self) -> Description:
        return Description(self.agent.ufrag, self.agent.pwd, "00" * 32, punches=True)

    @property
    def punch_signals(self) -> list[Signal]:
        return [signal for signal in self.signals if isinstance(signal, PunchSignal)]

    def say(self, signal: Signal) -> None:
        self.told(signal)
        self.changed.set()

    def meet(self, other: Side) -> None:
        self.agent.set_remote(other.agent.ufrag, other.agent.pwd, self.pump.now)
        self.pump.flush()
        self.punching.meet(other.description)

    def send(self, transmit: Transmit) -> None:
        self.gatherer.send(transmit)

    def on_event(self, event: IceEvent) -> None:
        self.events.append(event)
        self.punching.on_event(event)
        self.changed.set()

    def close(self) -> None:
        self.pump.close()
        self.agent.close()
        self.punching.close()
        self.gatherer.close()

    async def find_servers(self) -> list[Address]:
        return self.servers

    # What the gatherer says, what plans need, and what nobody here asks for.

    def on_candidate(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)
        self.agent.add_local_candidate(candidate, self.pump.now)
        self.pump.flush()

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None:
        self.agent.receive(data, source, self.pump.now, local)
        self.pump.flush()

    def on_base_lost(self, base: Address) -> None:
        self.agent.remove_local_candidate(base, self.pump.now)

    def check(self, address: Address) -> bool:
        return self.allowed(address)

    def vouch(self, host: str) -> None:
        self.vouched.append(host)
        self.changed.set()

    def on_warning(self, sentence: str) -> None:
        self.warnings.append(sentence)
        self.changed.set()

    def bases_in_use(self) -> set[Address]:
        return self.in_use

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


async def until(condition: Callable[[], object], *sides: Side) -> None:
    """Wait until it holds; it is looked at when something happens at one of the sides, and now and then."""
    async with asyncio.timeout(30):
        while not condition():
            waiting = [asyncio.ensure_future(side.changed.wait()) for side in sides]
            await asyncio.wait(waiting, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            for each, side in zip(waiting, sides, strict=True):
                each.cancel()
                side.changed.clear()


def measuring(monkeypatch: pytest.MonkeyPatch) -> list[NatProfile]:
    """What the next measurements find, each at once; the last one again and again."""
    found = [EASY]

    async def discover(servers: Sequence[Address], *, on_early: object) -> NatProfile:
        return found.pop(0) if len(found) > 1 else found[0]

    monkeypatch.setattr(nat_discovery, "discover_nat", discover)
    monkeypatch.setattr(punching, "HEAD_START", 0.0)
    monkeypatch.setattr(punching, "WAITING_DELAY", 0.0)
    return found
