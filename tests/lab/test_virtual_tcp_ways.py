"""Agents that have TCP alone, in virtual time: who can be reached is dialled, others meet half-way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.ice.agent import MIN_TA, IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory, CandidateType, TcpType
from crowline.ice.events import IceEvent, IceFailed, PairNominated
from crowline.ice.pair import ValidPair
from crowline.lab.presets import PRESETS
from crowline.lab.virtual import Internet
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_server import STUN_PORT, VirtualServer
from crowline.lab.virtual_site import build_site
from crowline.lab.virtual_tcp import TcpHost
from crowline.lab.virtual_tcp_ways import VirtualTcpWays

SIGNAL_DELAY = 0.02  # seconds from one side to the other by way of the hub
LIMIT = 8.0  # seconds for everything: gathering, five of a simultaneous open, checks

REACHED = [
    ("public", "public"),
    ("home", "public"),
    ("public", "home"),
    ("symmetric", "public"),
    ("public", "symmetric"),
    ("home", "home"),
    ("udp-blocked", "udp-blocked"),
    ("home", "rst-sender"),
    ("rst-sender", "rst-sender"),
    ("ipv6-home", "ipv6-home"),
]
HALF_WAY = REACHED[5:9]
UNREACHED = [("symmetric", "symmetric"), ("home", "symmetric"), ("https-only", "home")]


class Side:
    """One agent with its ways; it tells the other everything a signal's delay later."""

    def __init__(self, world: World, place: str, number: int, *, controlling: bool) -> None:
        self.internet = world.internet
        self.other: Side
        self.nominated: ValidPair | None = None
        self.failed = False
        self.data: list[bytes] = []
        self.lost: list[tuple[Address, Address]] = []
        self.gathered = 0
        site = build_site(world.internet, PRESETS[place], number)
        entropy = world.internet.random.randbytes
        self.agent = IceAgent(controlling, entropy=entropy, ta=MIN_TA, renominate=True)
        self.pump: VirtualPump[Transmit, IceEvent] = VirtualPump(
            world.internet, self.agent, lambda transmit: self.ways.send(transmit), self._on_event
        )
        tcp = TcpHost(world.internet, site.host)
        self.ways = VirtualTcpWays(world.internet, tcp, self, self.agent, self.pump, CandidateFactory())
        own = site.addresses[0]
        server = world.server.ipv6 if ":" in own else world.server.ipv4
        self.begin = lambda: self.ways.open(site.addresses, Address(server, STUN_PORT))

    def on_candidate(self, candidate: Candidate) -> None:
        self.agent.add_local_candidate(candidate, self.internet.now)
        self.pump.flush()
        self._tell(lambda now: self.other.agent.add_remote_candidate(candidate, now))

    def on_gathered(self) -> None:
        self.gathered += 1
        self.agent.end_of_local_candidates(self.internet.now)
        self._tell(self.other.agent.end_of_remote_candidates)

    def on_packet(self, data: Buffer, source: Address, local: Address) -> None:
        assert self.agent.is_valid(local, source, Transport.TCP)
        self.data.append(bytes(data))

    def on_connection_lost(self, local: Address, remote: Address) -> None:
        self.lost.append((local, remote))

    def describe(self) -> None:
        ufrag, pwd = self.agent.ufrag, self.agent.pwd
        self._tell(lambda now: self.other.agent.set_remote(ufrag, pwd, now))

    def _tell(self, act: Callable[[float], object]) -> None:
        def hear() -> None:
            act(self.internet.now)
            self.other.pump.flush()

        self.internet.call_at(self.internet.now + SIGNAL_DELAY, hear)

    def _on_event(self, event: IceEvent) -> None:
        self.ways.on_event(event)
        if isinstance(event, PairNominated):
            self.nominated = event.pair
        elif isinstance(event, IceFailed):
            self.failed = True


class World:
    def __init__(self, first: str, second: str, seed: int) -> None:
        self.internet = Internet(seed, delay=0.02)
        self.server = VirtualServer(self.internet)
        self.sides = (
            Side(self, first, 1, controlling=True),
            Side(self, second, 2, controlling=False),
        )
        self.sides[0].other, self.sides[1].other = self.sides[1], self.sides[0]
        for side in self.sides:
            side.describe()
            side.begin()

    def is_met(self) -> bool:
        return None not in (self.sides[0].nominated, self.sides[1].nominated)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("places", REACHED, ids=" × ".join)
def test_agents_find_a_way_by_tcp(places: tuple[str, str], seed: int) -> None:
    """Both agree on a pair that carries packets."""
    world = World(*places, seed)
    assert world.internet.run(world.is_met, limit=LIMIT)
    world.internet.run(limit=1.0)
    first, second = world.sides
    assert first.nominated is not None and second.nominated is not None
    pair, mirror = first.nominated, second.nominated
    assert pair.transport is mirror.transport is Transport.TCP
    first.ways.send(Transmit(b"data", pair.remote.address, pair.base, transport=Transport.TCP))
    second.ways.send(Transmit(b"back", mirror.remote.address, mirror.base, transport=Transport.TCP))
    assert world.internet.run(lambda: first.data and second.data, limit=1.0)
    assert (first.data, second.data) == ([b"back"], [b"data"])
    assert [side.gathered for side in world.sides] == [1, 1]


@pytest.mark.parametrize("places", HALF_WAY, ids=" × ".join)
def test_who_cannot_be_reached_is_met_half_way(places: tuple[str, str]) -> None:
    """By candidates of the type `so` on both sides."""
    world = World(*places, 1)
    assert world.internet.run(world.is_met, limit=LIMIT)
    for side in world.sides:
        assert side.nominated is not None
        assert side.nominated.checked.local.tcp_type is TcpType.SIMULTANEOUS_OPEN
        assert side.nominated.checked.remote.tcp_type is TcpType.SIMULTANEOUS_OPEN


@pytest.mark.parametrize("places", [("symmetric", "public"), ("public", "symmetric")], ids=" × ".join)
def test_the_side_that_can_be_reached_is_dialled_whoever_controls(places: tuple[str, str]) -> None:
    """The reverse connection: nobody had to be asked for it."""
    world = World(*places, 1)
    assert world.internet.run(world.is_met, limit=LIMIT)
    public = world.sides[places.index("public")]
    assert public.nominated is not None
    assert public.nominated.base.port != public.nominated.remote.address.port
    assert public.nominated.remote.type is CandidateType.PEER_REFLEXIVE


@pytest.mark.parametrize("places", UNREACHED, ids=" × ".join)
def test_who_cannot_be_met_either_is_not(places: tuple[str, str]) -> None:
    """Where a translator maps anew for everyone, or nothing but HTTPS gets out."""
    world = World(*places, 1)
    assert not world.internet.run(world.is_met, limit=LIMIT)


def test_a_connection_that_breaks_is_told() -> None:
    """To the agent, and to whoever has a link on it."""
    world = World("home", "public", 1)
    assert world.internet.run(world.is_met, limit=LIMIT)
    first, second = world.sides
    assert first.nominated is not None
    first.ways.close()
    assert world.internet.run(lambda: second.lost, limit=1.0)
    assert not second.agent.is_valid(*second.lost[0], Transport.TCP)
