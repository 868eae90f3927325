"""TCP pairs in virtual time: between places of every sort, by the plans of the product."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.lab.presets import PRESETS
from crowline.lab.virtual import Internet
from crowline.lab.virtual_server import STUN_PORT, VirtualServer
from crowline.lab.virtual_site import build_site
from crowline.lab.virtual_tcp import TcpHost
from crowline.lab.virtual_tcp_pairs import VirtualTcpPairs
from crowline.net.tcp_mapping import MappingEvent, MappingLost
from crowline.net.tcp_pairs import TcpHandlers
from crowline.punch.syn_budget import SynBudget
from crowline.punch.tcp_schedule import PATIENCE

DELAY = 0.02  # seconds one way between two sites


class Side:
    """One site's pairs on its first IPv4 address, and what they said."""

    def __init__(self, world: World, place: str, number: int) -> None:
        self.internet = world.internet
        self.site = build_site(world.internet, PRESETS[place], number)
        self.opened: list[float] = []
        self.packets: list[tuple[bytes, Address, Address]] = []
        self.lost: list[str] = []
        self.mapped: Address | None = None
        self.is_silent = False
        self.budget = SynBudget(10)
        handlers = TcpHandlers(
            self._packet, self._opened, lambda *loss: self.lost.append(loss[2]), self._mapping, lambda: None
        )
        self.pairs = VirtualTcpPairs(
            world.internet, TcpHost(world.internet, self.site.host), handlers, self.budget
        )
        self.base = self.pairs.bind(self.site.addresses[0])
        self.pairs.ask(Address(world.server.ipv4, STUN_PORT))

    def _mapping(self, event: MappingEvent) -> None:
        assert not isinstance(event, MappingLost)
        self.mapped = event.address

    def _opened(self, local: Address, remote: Address) -> None:
        self.opened.append(self.internet.now)
        if not self.is_silent:
            self.pairs.send(Transmit(b"hello", remote, local, transport=Transport.TCP))

    def _packet(self, data: bytes, source: Address, local: Address) -> None:
        self.packets.append((data, source, local))
        self.pairs.authenticated(local, source)


class World:
    """Two sites and a server."""

    def __init__(self, first: str, second: str, seed: int = 1) -> None:
        self.internet = Internet(seed, delay=DELAY)
        self.server = VirtualServer(self.internet)
        self.first, self.second = Side(self, first, 1), Side(self, second, 2)
        self.internet.run(self.is_mapped, limit=5.0)

    def is_mapped(self) -> bool:
        return None not in (self.first.mapped, self.second.mapped)

    def punch(self, skew: float = 0.0) -> bool:
        """Both want the other's reflexive address; whether a packet came each way."""
        began = self.internet.now
        for side, other, later in ((self.first, self.second, 0.0), (self.second, self.first, skew)):
            assert other.mapped is not None
            side.budget.prove_host(other.mapped.host)
            self.internet.call_at(began + later, self._want, side, other.mapped)
        return self.internet.run(self.is_met, limit=PATIENCE + 1)

    def is_met(self) -> bool:
        return bool(self.first.packets and self.second.packets)

    @staticmethod
    def _want(side: Side, remote: Address) -> None:
        side.pairs.want(side.base, remote, simultaneous=True)


def test_a_server_tells_the_address_of_a_port() -> None:
    """Behind a translator that keeps ports it has the same number outside."""
    world = World("home", "public")
    assert world.first.mapped is not None and world.first.mapped.host != world.first.base.host
    assert world.first.mapped.port == world.first.base.port
    assert world.second.mapped == world.second.base


@pytest.mark.parametrize("skew", [0.0, 0.03, 0.1])
@pytest.mark.parametrize(
    "places",
    [("home", "home"), ("home", "rst-sender"), ("rst-sender", "rst-sender"), ("udp-blocked", "udp-blocked")],
    ids=" × ".join,
)
def test_translators_that_keep_ports_are_punched(places: tuple[str, str], skew: float) -> None:
    """Whether they drop or refuse what comes too early; packets come from the addresses that were told."""
    world = World(*places)
    assert world.punch(skew)
    first, second = world.first, world.second
    assert first.packets == [(b"hello", second.mapped, first.base)]
    assert second.packets == [(b"hello", first.mapped, second.base)]
    assert not first.lost and not second.lost


@pytest.mark.parametrize("places", [("symmetric", "symmetric"), ("symmetric", "home")], ids=" × ".join)
def test_translators_that_map_anew_for_everyone_are_not(places: tuple[str, str]) -> None:
    """The plan ends in its time, on both sides, and says so."""
    world = World(*places)
    assert not world.punch()
    assert len(world.first.lost) == len(world.second.lost) == 1


def test_a_public_host_is_dialled() -> None:
    """The first try gets there; packets go both ways."""
    world = World("home", "public")
    world.first.pairs.want(world.first.base, world.second.base, simultaneous=False)
    assert world.internet.run(world.is_met, limit=1.0)
    assert len(world.first.opened) == len(world.second.opened) == 1
    assert world.first.pairs.is_open(world.first.base, world.second.base)


def test_nobody_there_is_said_after_three_tries() -> None:
    """A host that refuses, and one whose translator is silent."""
    world = World("home", "public")
    side = world.first
    for remote in (Address(world.second.base.host, 9), Address("44.9.9.9", 9)):
        side.pairs.want(side.base, remote, simultaneous=False)
        assert world.internet.run(lambda: side.lost, limit=6.0)
    assert side.lost[0] == "it was refused" and not side.opened


def test_a_connection_ends_when_it_is_not_wanted() -> None:
    """The other side hears of it; an attempt ends without a word."""
    world = World("home", "public")
    first, second = world.first, world.second
    first.pairs.want(first.base, second.base, simultaneous=False)
    assert world.internet.run(world.is_met, limit=1.0)
    first.pairs.unwant(first.base, second.base)
    assert world.internet.run(lambda: second.lost, limit=1.0)
    assert second.lost == ["closed"] and not first.lost
    assert not first.pairs.send(Transmit(b"late", second.base, first.base, transport=Transport.TCP))
    first.pairs.want(first.base, Address(second.base.host, 9), simultaneous=True)
    first.pairs.unwant(first.base, Address(second.base.host, 9))
    world.internet.run(limit=10.0)
    assert not first.lost


def test_an_unproven_address_gets_what_the_budget_has() -> None:
    """A plan that it stopped goes on once the other side is known to be there."""
    world = World("home", "home")
    first, second = world.first, world.second
    assert first.mapped is not None and second.mapped is not None
    while first.budget.spend(second.mapped):
        pass
    first.pairs.want(first.base, second.mapped, simultaneous=True)
    second.pairs.want(second.base, first.mapped, simultaneous=True)
    assert not world.internet.run(world.is_met, limit=1.0)
    first.pairs.seen_at(second.mapped.host)
    assert world.internet.run(world.is_met, limit=3.0)


def test_closed_pairs_refuse() -> None:
    """What was open is closed, and the port is free."""
    world = World("home", "public")
    first, second = world.first, world.second
    first.pairs.want(first.base, second.base, simultaneous=False)
    assert world.internet.run(world.is_met, limit=1.0)
    second.pairs.close()
    assert world.internet.run(lambda: first.lost, limit=1.0)
    assert second.pairs.bases == []
    first.pairs.want(first.base, second.base, simultaneous=False)
    assert world.internet.run(lambda: len(first.lost) == 2, limit=6.0)
    assert first.lost[1] == "it was refused"
