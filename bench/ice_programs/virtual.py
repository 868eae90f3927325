"""What `bench/ice.py` measures in virtual time, with the machines of the product and stand-ins for QUIC."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

from crowline.lab.network import Packet
from crowline.lab.presets import PRESETS
from crowline.lab.virtual import Internet
from crowline.lab.virtual_attempt import Geometry, virtual_attempt
from crowline.lab.virtual_peer import VirtualPeer
from crowline.lab.virtual_server import VirtualServer
from crowline.lab.virtual_site import build_site
from crowline.lab.workers import run_all
from crowline.rendezvous.code import Code
from crowline.rendezvous.role import Role
from crowline.session.events import LinkChosen, SessionEvent, StreamReadable

LOSS = 0.01
CUT = 1e9  # seconds that a packet on a path takes which is cut
TICK = 0.01  # seconds between two writes of an application
CALM = 3.0  # seconds after which every link is up
PATIENCE = 20.0


@dataclass(frozen=True)
class FirstAttempt:
    """A pair of presets and a seed."""

    a: str
    b: str
    seed: int


def try_once(attempt: FirstAttempt) -> bool:
    """Whether the path is direct in the end, on lines that lose packets."""
    geometry = Geometry(loss=LOSS)
    return virtual_attempt(PRESETS[attempt.a], PRESETS[attempt.b], attempt.seed, geometry=geometry).is_direct


def punchable() -> list[tuple[str, str]]:
    """The pairs of presets that get a direct path where nothing is lost."""
    pairs = combinations_with_replacement(PRESETS, 2)
    return [(a, b) for a, b in pairs if virtual_attempt(PRESETS[a], PRESETS[b]).is_direct]


def first_attempts(seeds: int, jobs: int) -> dict[tuple[str, str], list[bool]]:
    """Of each punchable pair, what became of that many attempts."""
    pairs = punchable()
    attempts = [FirstAttempt(a, b, seed) for a, b in pairs for seed in range(seeds)]
    results: dict[tuple[str, str], list[bool]] = {pair: [] for pair in pairs}
    for attempt, is_direct in run_all(try_once, attempts, jobs=jobs):
        results[attempt.a, attempt.b].append(is_direct)
    return results


class Talker(VirtualPeer):
    """A side that notes when it changes paths, and when what was written at which time arrives."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arrived: list[tuple[float, float]] = []
        self.times: dict[str, float] = {}
        self._unread = b""
        super().__init__(*arguments, **options)

    def say(self) -> None:
        """Write the time, once there is a stream."""
        self._session.write(0, f"{self._internet.now:020.6f}".encode())
        self._session_pump.flush()

    def _on_session_event(self, event: SessionEvent) -> None:
        now = self._internet.now
        if isinstance(event, LinkChosen) and event.link is not None and self.present is not None:
            link = self.up.get(event.link)
            kind = link.category if link is not None else "hub"
            self.times.setdefault(kind, (now - self.present) * 1000)
            self._on_progress()
        elif isinstance(event, StreamReadable):
            self._unread += bytes(self._session.read(event.stream, 1 << 16))
            if self.greeted is None and self._unread:
                self._take_greeting()
            while len(self._unread) >= 20:
                self.arrived.append((now, float(self._unread[:20])))
                self._unread = self._unread[20:]

    def _take_greeting(self) -> None:
        self.greeted = self._internet.now
        self._unread = self._unread[len(b"hello") :]
        if self.role is Role.JOIN:
            self._session.write(0, b"hello")


class Meeting:
    """Two sides behind two presets, 20 ms apart and 10 ms from the server, one way."""

    def __init__(self, a: str, b: str, seed: int) -> None:
        geometry = Geometry()
        self.internet = Internet(seed, delay=geometry.between)
        self.server = VirtualServer(self.internet)
        self.sites = [build_site(self.internet, PRESETS[name], place) for place, name in enumerate((a, b), 1)]
        for site in self.sites:
            self.internet.set_delay(site.place, self.server.host, geometry.to_server)
        self.talkers: list[Talker] = []
        self._add(0, None)

    def run(self, seconds: float) -> None:
        self.internet.run(limit=seconds)

    def cut(self) -> None:
        """Nothing that leaves from now on comes through between the two; both still reach the server."""
        self.internet.set_delay(self.sites[0].place, self.sites[1].place, CUT)

    def _add(self, number: int, code: Code | None) -> None:
        self.talkers.append(
            Talker(
                self.internet,
                self.sites[number],
                self.server.address_for(self.sites[number].addresses),
                code=code,
                on_code=lambda code: self._add(1, code),
                on_progress=lambda: None,
            )
        )


def set_up(a: str, b: str, seed: int) -> dict[str, float]:
    """Milliseconds from the hub's word to a path of each kind, the later of both sides."""
    meeting = Meeting(a, b, seed)
    meeting.run(CALM)
    one, other = (talker.times for talker in meeting.talkers)
    return {kind: max(one[kind], other[kind]) for kind in one.keys() & other.keys()}


def failover(seed: int) -> float:
    """Seconds from the cut of a direct path until bytes written after it arrive, in the worse direction."""
    meeting = Meeting("home", "home", seed)
    meeting.run(CALM)
    assert all("direct" in talker.times for talker in meeting.talkers)
    meeting.run(random.Random(seed).uniform(0.0, 5.0))
    now = at = meeting.internet.now
    meeting.cut()
    while now < at + PATIENCE:
        for talker in meeting.talkers:
            talker.say()
        meeting.run(TICK)
        now = meeting.internet.now
        flowing = [
            next((arrived for arrived, said in talker.arrived if said >= at), None)
            for talker in meeting.talkers
        ]
        known = [time for time in flowing if time is not None]
        if len(known) == len(flowing):
            return max(known) - at
    raise AssertionError("no byte flows after the cut")


def keepalive(seconds: float) -> float:
    """Packets a second that a host of an idle direct connection sends: its links, their pairs and the hub."""
    meeting = Meeting("home", "home", 1)
    meeting.run(CALM)
    own = meeting.sites[0].addresses
    sent: list[Packet] = []
    meeting.internet.observe = lambda _, packet: sent.append(packet) if packet.source.host in own else None
    meeting.run(seconds)
    return len(sent) / seconds
