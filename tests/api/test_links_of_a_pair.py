"""Several QUIC links on one pair: whose datagram is whose, and larger packets where the path carries them."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from crowline.api import larger_links, links
from crowline.api.links import MAX_LINKS_OF_A_PAIR, LinkSecrets, LinkTable
from crowline.api.pair_link import STALL_TIME, PairLink
from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.candidate import Candidate, CandidateType
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.link import growth
from crowline.link.identity import Identity
from crowline.link.quic import DATAGRAM_SIZE
from waiting import until

CLIENT, SERVER = Address("192.0.2.1", 5000), Address("198.51.100.2", 6000)
IDENTITY = Identity.generate()
SECRETS = LinkSecrets(IDENTITY, IDENTITY.fingerprint, Secret(b"k" * 32))
EARLY_TRIES = growth._EARLY_TRIES
PATIENCE = 30.0  # seconds for something that must come


@dataclass(eq=False)
class Side:
    """A table whose datagrams arrive at the other side's, in order, as far as they are small enough."""

    client: bool
    # The largest datagram that this side's network lets out, and that the path carries from here.
    largest: int = 1472
    mtu: int = 65535
    kind: CandidateType = CandidateType.HOST
    other: Side | None = None
    received: dict[int, bytearray] = field(default_factory=dict)
    ups: list[PairLink] = field(default_factory=list)
    downs: list[str] = field(default_factory=list)
    opened: list[ValidPair] = field(default_factory=list)
    ailing: set[int] = field(default_factory=set)
    table: LinkTable = field(init=False)
    pair: ValidPair = field(init=False)

    def __post_init__(self) -> None:
        here, there = (CLIENT, SERVER) if self.client else (SERVER, CLIENT)
        local = Candidate("1", 1, "udp", 1, here, self.kind)
        remote = Candidate("1", 1, "udp", 1, there, self.kind)
        self.pair = ValidPair(local, remote, CandidatePair(local, remote, 7), proven_at=time.monotonic())
        self.table = LinkTable(
            client=self.client,
            secrets=SECRETS,
            entropy=os.urandom,
            numbers=itertools.count(1),
            send=self.send,
            valid_pairs=lambda: [self.pair],
            on_open=self.opened.append,
            is_ailing=self.ailing.__contains__,
            largest=lambda pair: self.largest,
            on_up=self.on_up,
            on_data=self.on_data,
            on_datagram=lambda link, data: None,
            on_down=lambda link, reason: self.downs.append(reason),
        )

    def send(self, transmit: Transmit) -> None:
        size = transmit.segment_size or len(transmit.data)
        if size <= self.mtu:
            asyncio.get_running_loop().call_soon(self.arrive, bytes(transmit.data), size)

    def arrive(self, data: bytes, size: int) -> None:
        assert self.other is not None
        self.other.table.packet(memoryview(data), size, self.pair.base, self.pair.remote.address)
        self.other.table.flush()

    def on_up(self, link: PairLink) -> None:
        """As the session would: the better of two is chosen."""
        self.ups.append(link)
        if link.merit == max(each.merit for each in self.table.links() if each.is_up):
            self.table.chosen(link.number)

    def on_data(self, link: PairLink, data: Buffer) -> None:
        self.received.setdefault(link.number, bytearray()).extend(data)


@asynccontextmanager
async def joined(client: Side, server: Side) -> AsyncIterator[None]:
    client.other, server.other = server, client
    client.table.pair_valid(client.pair)
    try:
        await until(lambda: bool(client.ups and server.ups))
        yield
    finally:
        client.table.close()
        server.table.close()


def say(side: Side, link: PairLink, data: bytes) -> None:
    link.send(data, asyncio.get_running_loop().time())
    side.table.flush()


@pytest.fixture(autouse=True)
def bulk_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "WORTH", 1000)
    monkeypatch.setattr(growth, "FAST", 0.0)
    monkeypatch.setattr(growth, "_EARLY_TRIES", 0)


@pytest.fixture
def bulk_is_much(monkeypatch: pytest.MonkeyPatch, bulk_is_little: None) -> None:
    monkeypatch.setattr(growth, "WORTH", 1 << 30)
    monkeypatch.setattr(growth, "_EARLY_TRIES", EARLY_TRIES)


@pytest.mark.parametrize("sender", ["client", "server"])
async def test_bulk_in_either_direction_gets_a_link_with_larger_packets(sender: str) -> None:
    """It comes up beside the first, which stays; each has its own bytes, and the pair is used once."""
    client, server = Side(client=True), Side(client=False)
    sides = {"client": client, "server": server}
    async with joined(client, server):
        say(sides[sender], sides[sender].ups[0], bytes(2000))
        await until(lambda: len(client.ups) == len(server.ups) == 2)
        small, large = client.ups
        assert (small.quic.size, large.quic.size) == (DATAGRAM_SIZE, 1472)
        assert large.merit > small.merit and large.path == small.path
        assert client.opened == [client.pair] and server.opened == [server.pair]
        for number in range(20):
            say(client, small, b"small%02d" % number)
            say(client, large, b"large%02d" % number)
        whole = sum(len(data) for data in server.received.values()) + 20 * 14
        await until(lambda: sum(len(data) for data in server.received.values()) >= whole)
        by_link = [bytes(server.received[link.number]) for link in server.ups]
        assert b"large" not in by_link[0] and b"small" not in by_link[1]


@pytest.mark.usefixtures("bulk_is_much")
@pytest.mark.parametrize(("mtu", "size"), [(65535, 1472), (1460, 1452)])
async def test_a_direct_pair_gets_larger_packets_before_there_is_bulk(mtu: int, size: int) -> None:
    """Later a new link would have to find its rate anew. On a narrower path the next size is tried."""
    client, server = Side(client=True, mtu=mtu), Side(client=False, mtu=mtu)
    async with joined(client, server):
        await until(lambda: len(client.ups) == len(server.ups) == 2)
        assert [link.quic.size for link in client.ups] == [DATAGRAM_SIZE, size]


@pytest.mark.usefixtures("bulk_is_much")
async def test_a_relayed_pair_gets_them_for_bulk_only() -> None:
    """Most meetings leave their relay soon, and what it forwards is dear."""
    client, server = (Side(client=which, kind=CandidateType.RELAYED) for which in (True, False))
    async with joined(client, server):
        say(client, client.ups[0], bytes(2000))
        await until(lambda: len(server.received.get(server.ups[0].number, b"")) == 2000)
        assert len(client.table.links()) == 1


@pytest.mark.usefixtures("bulk_is_much")
async def test_bulk_that_is_under_way_is_not_moved_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is fast: what larger packets save is less than the time in which a link finds its rate."""
    monkeypatch.setattr(larger_links, "EARLY", 2000)
    client, server = Side(client=True), Side(client=False)
    client.mtu = 1300
    async with joined(client, server):
        say(client, client.ups[0], bytes(2000))
        await until(lambda: bool(client.downs))
        assert client.downs == ["the path does not carry packets of that size"]
        assert client.table.links() == client.ups[:1]


@pytest.mark.usefixtures("bulk_is_much")
async def test_a_path_that_carries_nothing_larger_is_soon_left_in_peace() -> None:
    """A handshake for each size, and no more without bulk."""
    client, server = Side(client=True, mtu=1300), Side(client=False, mtu=1300)
    async with joined(client, server):
        await until(lambda: len(client.downs) == 3)
        await asyncio.sleep(0.01)
        assert client.table.links() == client.ups == client.ups[:1]


@pytest.mark.usefixtures("bulk_is_much")
async def test_a_side_whose_way_is_narrow_answers_to_larger_packets_with_the_least() -> None:
    """Each direction has what it carries."""
    client, server = Side(client=True), Side(client=False, mtu=1300)
    async with joined(client, server):
        await until(lambda: len(client.ups) == len(server.ups) == 2)
        assert client.ups[1].quic.size == 1472 and server.ups[1].quic.size == DATAGRAM_SIZE


async def test_a_few_words_get_no_second_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake costs more than larger packets would save on them."""
    monkeypatch.setattr(growth, "WORTH", 100_000)
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        say(client, client.ups[0], bytes(99_000))
        await until(lambda: len(server.received.get(server.ups[0].number, b"")) == 99_000)
        await asyncio.sleep(0)
        assert len(client.table.links()) == 1


async def test_bulk_on_a_slow_path_gets_no_second_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger packets save work, and there is little of it; the new link would have to find its rate."""
    monkeypatch.setattr(growth, "FAST", 1e12)
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        for _ in range(10):
            say(client, client.ups[0], bytes(5000))
            await asyncio.sleep(0.001)
        assert len(client.table.links()) == 1


@pytest.mark.parametrize("narrow", ["client", "server"])
async def test_the_next_smaller_size_is_tried_until_one_comes_through(narrow: str) -> None:
    """What this machine lets out is an upper limit only."""
    client, server = Side(client=True), Side(client=False)
    {"client": client, "server": server}[narrow].mtu = 1460
    async with joined(client, server):
        end = time.monotonic() + PATIENCE
        while len(client.ups) + len(server.ups) < 4 and time.monotonic() < end:
            say(client, client.ups[0], bytes(20_000))
            await asyncio.sleep(0.01)
        assert {"client": client, "server": server}[narrow].ups[1].quic.size == 1452
        assert client.ups[0].is_up and server.ups[0].is_up


async def test_large_packets_that_stop_to_come_through_cost_their_link_only() -> None:
    """The session has gone back to the least packets; the other link ends, and does not come back at once."""
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        say(client, client.ups[0], bytes(2000))
        await until(lambda: len(client.ups) == len(server.ups) == 2)
        small, large = client.ups
        client.ailing.add(large.number)
        client.table.chosen(small.number)
        await until(lambda: bool(client.downs and server.downs))
        assert client.downs == ["its packets are too large for the path by now"]
        say(client, small, bytes(2000))
        await asyncio.sleep(0.01)
        assert client.table.links() == [small] and small.is_up


async def test_a_flood_of_first_datagrams_on_one_pair_makes_a_handful_of_links() -> None:
    """Whoever is authenticated for a pair may begin so many connections there, and no more."""
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        for _ in range(100):
            initial = b"\xc0\x00\x00\x00\x01\x08" + os.urandom(8) + bytes(DATAGRAM_SIZE - 14)
            server.table.packet(memoryview(initial), len(initial), CLIENT, SERVER)
        assert len(server.table.links()) == MAX_LINKS_OF_A_PAIR
        say(client, client.ups[0], b"still here")
        await until(lambda: bytes(server.received.get(server.ups[0].number, b"")) == b"still here")


async def test_when_a_pair_is_lost_all_its_links_are() -> None:
    """Nothing is sent there any more."""
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        say(client, client.ups[0], bytes(2000))
        await until(lambda: len(client.ups) == 2)
        client.table.pair_lost(client.pair.key, "consent expired")
        assert client.downs == ["consent expired"] * 2
        assert not client.table.links() and not client.table.uses(client.pair)


def speaking(side: Side, link: PairLink, holds: Callable[[], bool]) -> Callable[[], bool]:
    """The condition, with something to send each time it is looked at: as a session does, which pings."""

    def look() -> bool:
        say(side, link, b"lost")
        return holds()

    return look


async def test_a_link_that_stalls_on_a_pair_that_lives_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pair does not answer either, it is the path that is silent, and another link would be too."""
    monkeypatch.setattr(links, "TEND_INTERVAL", 0.002)
    monkeypatch.setattr(growth, "WORTH", 1 << 30)
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        stalled = client.ups[0]
        server.table._links.clear()  # the other side has ended it, and its last words got lost
        server.ups[0].pump.close()
        client.ailing.add(stalled.number)
        for _ in range(20):
            speaking(client, stalled, lambda: True)()
            await asyncio.sleep(0.002)
        assert client.table.links() == [stalled]
        client.pair.proven_at = time.monotonic() + STALL_TIME
        await until(speaking(client, stalled, lambda: len(client.ups) == len(server.ups) == 2))
        assert client.downs == ["a new link took its place"]
        say(client, client.ups[1], b"again")
        await until(lambda: server.received.get(server.ups[1].number) == b"again")


async def test_a_stalled_link_is_not_replaced_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no new link comes up on the pair either, one is tried at a time."""
    monkeypatch.setattr(links, "TEND_INTERVAL", 0.001)
    monkeypatch.setattr(growth, "WORTH", 1 << 30)
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        stalled = client.ups[0]
        client.mtu = 0
        client.ailing.add(stalled.number)
        client.pair.proven_at = time.monotonic() + 60
        await until(speaking(client, stalled, lambda: stalled.stalls > 40))
        assert len(client.table.links()) == 2


async def test_a_large_link_that_the_other_side_refuses_soon_is_a_failed_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It came up here, and there a packet of the proof got lost: that size is tried again, a few times."""
    monkeypatch.setattr(links, "PROBATION", PATIENCE)
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        small = client.ups[0]
        for number in range(2, 7):
            client.table.chosen(small.number)
            say(client, small, bytes(2000))
            await until(lambda count=number: len(client.ups) == len(server.ups) == count)  # type: ignore[misc]
            server.table.remove(server.ups[-1], "the handshake lost packets")
            await until(lambda count=number: len(client.downs) == count - 1)  # type: ignore[misc]
        assert [link.quic.size for link in client.ups] == [DATAGRAM_SIZE, *[1472] * 4, 1452]
        assert client.table.links() == [small]


async def test_a_large_link_that_ends_later_says_nothing_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has proven what it is worth."""
    monkeypatch.setattr(links, "PROBATION", 0.0)
    client, server = Side(client=True), Side(client=False)
    async with joined(client, server):
        say(client, client.ups[0], bytes(2000))
        await until(lambda: len(client.ups) == len(server.ups) == 2)
        server.table.remove(server.ups[-1], "no more")
        await until(lambda: bool(client.downs))
        assert not client.table._larger._growth._of(client.pair.key).failures
