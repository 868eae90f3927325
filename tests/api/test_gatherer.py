"""The sockets of a meeting: when the network is another one, and at its end."""

from __future__ import annotations

import asyncio

import turn_front
from crowline.api.traversal.gatherer import Gatherer
from crowline.api.traversal.relay import Login
from crowline.api.traversal.relay_server import RelayServer
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.ice.candidate import Candidate, CandidateType
from turn_socket import plain_socket


class Recorder:
    """The owner of a gatherer; keeps the packets that it is told of."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.candidates: list[Candidate] = []
        self.told = asyncio.Event()

    def on_candidate(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)
        self.told.set()

    def on_base_lost(self, base: Address) -> None: ...

    def on_gathered(self) -> None: ...

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        self.packets.append(bytes(data))
        self.told.set()

    def on_drained(self) -> None: ...


async def test_nothing_is_told_while_allocations_are_given_back() -> None:
    """Servers may still answer; whoever else sends finds a meeting that is over, and begins no link."""
    owner = Recorder()
    gatherer = Gatherer(owner, ["127.0.0.1"])
    [local] = gatherer._sockets
    with plain_socket() as peer:
        peer.send(b"\xc0before", local)
        async with asyncio.timeout(30):
            await owner.told.wait()
        await gatherer.give_back()
        gatherer.on_relayed(memoryview(b"\xc0late"), 5, peer.local, local)
        gatherer._received(memoryview(b"\xc0late"), 5, peer.local, local)
    gatherer.close()
    assert owner.packets == [b"\xc0before"]


async def test_an_address_that_is_preferred_is_so_when_it_comes_later() -> None:
    """A cable beside a radio has the better pairs, which both sides move to."""
    owner = Recorder()
    gatherer = Gatherer(owner, ["127.0.0.2"])
    gatherer.offer_hosts()
    gatherer.follow(["127.0.0.3", "127.0.0.2"], ())
    radio, cable = owner.candidates
    assert (radio.address.host, cable.address.host) == ("127.0.0.2", "127.0.0.3")
    assert cable.priority > radio.priority
    gatherer.close()


async def test_bulk_by_a_relay_comes_as_it_was_sent() -> None:
    """Runs by a server between two meetings, with ends of their own, in order."""
    size, runs = 1000, [bytes([0xC0 + number]) * (10_000 + number) for number in range(20)]
    async with turn_front.front() as running:
        username, password = turn_front.credentials()
        sides = [Recorder(), Recorder()]
        gatherers = [Gatherer(side, ["127.0.0.1"]) for side in sides]
        for gatherer in gatherers:
            gatherer.allocate(RelayServer((running.address,), ()), Login(username, Secret(password.encode())))
        async with asyncio.timeout(30):
            here, there = [await relayed(side) for side in sides]
            for gatherer, own, other in zip(gatherers, (here, there), (there, here), strict=True):
                gatherer.permit(other)
                gatherer.bind(own, other)
            for run in runs:
                gatherers[0].send(Transmit(run, there, here, size))
            while sum(map(len, sides[1].packets)) < sum(map(len, runs)):
                sides[1].told.clear()
                await sides[1].told.wait()
        for gatherer in gatherers:
            gatherer.close()
    assert b"".join(sides[1].packets) == b"".join(runs)


async def relayed(side: Recorder) -> Address:
    """The relayed address that a side was told of."""
    while not (found := [each for each in side.candidates if each.type is CandidateType.RELAYED]):
        side.told.clear()
        await side.told.wait()
    return found[0].address
