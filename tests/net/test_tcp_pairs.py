"""TCP as an ICE agent sees it: pairs of addresses on which packets go, on real sockets of loopback."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, UsageError
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.ice.framing import frame
from crowline.net import tcp, tcp_dialler, tcp_pairs
from crowline.net.tcp_framed import MAX_UNTRUSTED
from crowline.net.tcp_mapping import MappingEvent, MappingLost
from crowline.net.tcp_pairs import TcpHandlers, TcpPairs
from crowline.net.tcp_sockets import name_of, open_shared, reset
from crowline.punch.dial_plan import TRIES, Outcome
from crowline.punch.syn_budget import MAX_UNPROVEN, SynBudget
from crowline.stun.client import Mapped
from crowline.stun.responder import bare_answer

PATIENCE = 30.0  # seconds for something that must happen
LOOPBACK = Address("127.0.0.1", 0)

Pair = tuple[Address, Address]


class Side:
    """One side with one port, and all that it was told."""

    def __init__(self, seed: int = 1, address: Address = LOOPBACK) -> None:
        self.packets: list[tuple[bytes, Address, Address]] = []
        self.opened: list[Pair] = []
        self.lost: list[tuple[Address, Address, str]] = []
        self.mappings: list[MappingEvent] = []
        self.drained = 0
        self.budget = SynBudget(100)
        self._changed = asyncio.Event()
        handlers = TcpHandlers(
            on_packet=lambda *packet: self._note(self.packets, packet),
            on_opened=lambda *pair: self._note(self.opened, pair),
            on_lost=lambda *loss: self._note(self.lost, loss),
            on_mapping=lambda event: self._note(self.mappings, event),
            on_drained=self._drained,
        )
        self.pairs = TcpPairs(handlers, self.budget, entropy=random.Random(seed).randbytes)
        self.local = self.pairs.bind(address)

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def until_opened(self, count: int = 1) -> Pair:
        await self.until(lambda: len(self.opened) >= count)
        return self.opened[count - 1]

    async def until_lost(self, count: int = 1) -> str:
        await self.until(lambda: len(self.lost) >= count)
        return self.lost[count - 1][2]

    def send(self, data: bytes, remote: Address) -> bool:
        return self.pairs.send(Transmit(data, remote, self.local, transport=Transport.TCP))

    def _note(self, notes: list, note: object) -> None:
        notes.append(note)
        self._changed.set()

    def _drained(self) -> None:
        self.drained += 1
        self._changed.set()


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Side, Side]]:
    sides = Side(1), Side(2)
    try:
        yield sides
    finally:
        for side in sides:
            side.pairs.close()


@asynccontextmanager
async def one() -> AsyncIterator[Side]:
    side = Side()
    try:
        yield side
    finally:
        side.pairs.close()


@pytest.fixture
def closed_port() -> Iterator[Address]:
    """A port at which nobody listens, and nobody else will; `TcpPairs` may have it too."""
    with open_shared(LOOPBACK) as holder:
        yield name_of(holder.getsockname())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who listens and is not Crowline."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(PATIENCE)
        yield sock


async def accepted(listener: socket.socket) -> socket.socket:
    sock, _ = await asyncio.to_thread(listener.accept)
    return sock


async def talk(first: Side, second: Side) -> None:
    """A packet each way, with the addresses that an agent needs."""
    count = len(first.packets), len(second.packets)
    assert first.send(b"question", second.local)
    await second.until(lambda: len(second.packets) > count[1])
    assert second.packets[-1] == (b"question", first.local, second.local)
    assert second.send(b"answer", first.local)
    await first.until(lambda: len(first.packets) > count[0])
    assert first.packets[-1] == (b"answer", second.local, first.local)


# --- connections ----------------------------------------------------------------------------------------


async def test_a_side_that_listens_is_dialled() -> None:
    """Both hear of the pair; packets go both ways, whole and in order."""
    async with two() as (active, passive):
        active.pairs.want(active.local, passive.local, simultaneous=False)
        assert await active.until_opened() == (active.local, passive.local)
        assert await passive.until_opened() == (passive.local, active.local)
        await talk(active, passive)
        passive.pairs.authenticated(passive.local, active.local)
        packets = [bytes([number]) * (1 + 600 * number) for number in range(1, 50)]
        for packet in packets:
            active.send(packet, passive.local)
        await passive.until(lambda: len(passive.packets) == 1 + len(packets))
        assert [data for data, _, _ in passive.packets[1:]] == packets
        assert passive.drained


async def test_two_sides_meet_half_way() -> None:
    """Both dial: there is one connection, and both have it."""
    async with two() as (first, second):
        first.pairs.want(first.local, second.local, simultaneous=True)
        second.pairs.want(second.local, first.local, simultaneous=True)
        await first.until_opened()
        await second.until_opened()
        for side, other in ((first, second), (second, first)):
            side.pairs.authenticated(side.local, other.local)
        await talk(first, second)
        assert not first.lost and not second.lost


async def test_two_sides_that_dial_each_other_need_one_connection() -> None:
    """Where the other side was quicker, an own attempt cannot leave, and nothing is lost by it."""
    async with two() as (first, second):
        first.pairs.want(first.local, second.local, simultaneous=False)
        await first.until_opened()
        await second.until_opened()
        second.pairs._diallers[second.local].dial(first.local)
        await asyncio.sleep(1.0)
        await talk(first, second)
        for side, other in ((first, second), (second, first)):
            side.pairs.authenticated(side.local, other.local)
        await talk(first, second)
        assert not first.lost and not second.lost and len(first.opened) == len(second.opened) == 1


async def test_a_side_that_comes_later_is_met(closed_port: Address) -> None:
    """The early one goes on trying meanwhile."""
    async with one() as early:
        early.pairs.want(early.local, closed_port, simultaneous=True)
        await asyncio.sleep(0.1)
        late = Side(2, closed_port)
        try:
            late.pairs.want(late.local, early.local, simultaneous=True)
            await early.until_opened()
            await late.until_opened()
            await talk(early, late)
        finally:
            late.pairs.close()


async def test_a_connection_is_wanted_once(listener: socket.socket) -> None:
    """Wanting it again changes nothing, while it is tried and when it is there."""
    async with one() as side:
        remote = name_of(listener.getsockname())
        for _ in range(3):
            side.pairs.want(side.local, remote, simultaneous=False)
        await side.until_opened()
        side.pairs.want(side.local, remote, simultaneous=False)
        side.pairs.want(side.local, remote, simultaneous=True)
        (await accepted(listener)).close()
        await side.until_lost()
        assert len(side.opened) == 1


@pytest.mark.parametrize("simultaneous", [False, True])
async def test_a_connection_that_does_not_come_about_is_lost(
    closed_port: Address, simultaneous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three tries, or at the end of the plan; wanted again, it is tried again."""
    monkeypatch.setattr("crowline.punch.tcp_schedule.PATIENCE", 1.0)
    async with one() as side:
        for count in (1, 2):
            side.pairs.want(side.local, closed_port, simultaneous=simultaneous)
            await side.until_lost(count)
        assert [loss[:2] for loss in side.lost] == [(side.local, closed_port)] * 2
        assert simultaneous or side.lost[0][2] == Outcome.REFUSED.value
        assert side.budget.left(closed_port) == 0
        assert TRIES < MAX_UNPROVEN
        assert not side.opened


async def test_nobody_dials_from_a_port_that_is_not_there() -> None:
    """Nor is a packet sent where no connection is; it is counted."""
    async with two() as (side, other):
        side.pairs.want(other.local, side.local, simultaneous=False)
        assert not side.send(b"lost", other.local)
        assert not side.pairs.send(Transmit(b"lost", other.local))
        assert side.pairs.counters["unsent"] == 2


# --- trust ----------------------------------------------------------------------------------------------


async def test_who_is_authenticated_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the budget for its address has no limit any more; who is not goes."""
    monkeypatch.setattr(tcp, "TRUST_LIMIT", 0.2)
    async with two() as (active, passive), one() as stranger:
        active.pairs.want(active.local, passive.local, simultaneous=False)
        await passive.until_opened()
        stranger.pairs.want(stranger.local, passive.local, simultaneous=False)
        await passive.until_opened(2)
        active.pairs.authenticated(active.local, passive.local)
        passive.pairs.authenticated(passive.local, active.local)
        passive.pairs.authenticated(passive.local, active.local)
        assert active.budget.left(passive.local) is None
        assert "prove" in await passive.until_lost()
        assert passive.lost[0][1] == stranger.local
        await talk(active, passive)


async def test_a_connection_that_proves_nothing_uses_a_try_up(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else listens there: three tries, and no more."""
    monkeypatch.setattr(tcp, "TRUST_LIMIT", 0.05)
    async with one() as side:
        side.pairs.want(side.local, name_of(listener.getsockname()), simultaneous=False)
        reason = Outcome.UNPROVEN.value
        await side.until(lambda: side.lost and side.lost[-1][2] == reason)
        assert len(side.opened) == TRIES
        assert len(side.lost) == TRIES + 1


async def test_a_stranger_who_says_too_much_goes() -> None:
    """Long before its time is over; and the port listens on."""
    async with two() as (side, other):
        with socket.create_connection((side.local.host, side.local.port)) as stranger:
            await side.until_opened()
            packet = frame(bytes(1000))
            stranger.sendall(packet * (MAX_UNTRUSTED // len(packet) + 1))
            assert "too much" in await side.until_lost()
        other.pairs.want(other.local, side.local, simultaneous=False)
        await side.until_opened(2)


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0", b"\xff\xff" + bytes(100)])
async def test_a_stranger_whose_stream_is_none_goes(nonsense: bytes) -> None:
    """A first packet that is too long, or has no byte; nothing of it is handed on."""
    async with one() as side:
        with socket.create_connection((side.local.host, side.local.port)) as stranger:
            await side.until_opened()
            stranger.sendall(nonsense)
            await side.until_lost()
        assert side.packets == []


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is reset at once, and counted; those before, which have proven themselves, stay."""
    monkeypatch.setattr(tcp_pairs, "MAX_CONNECTIONS", 2)
    async with one() as side:
        socks = [socket.create_connection((side.local.host, side.local.port)) for _ in range(2)]
        try:
            await side.until_opened(2)
            for local, remote in side.opened:
                side.pairs.authenticated(local, remote)
            with socket.create_connection((side.local.host, side.local.port)) as third:
                third.settimeout(PATIENCE)
                with pytest.raises(ConnectionResetError):
                    await asyncio.to_thread(third.recv, 1)
            assert side.pairs.counters["too many connections"] == 1
            assert len(side.opened) == 2 and not side.lost
        finally:
            for sock in socks:
                sock.close()


async def test_strangers_at_many_ports_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    """They connect and never speak, at each port as many as it takes: the oldest goes for who comes next."""
    monkeypatch.setattr(tcp_pairs, "MAX_CONNECTIONS", 2)
    async with one() as side:
        second = side.pairs.bind(LOOPBACK)
        ports = (side.local, second)
        socks = [socket.create_connection((port.host, port.port)) for port in ports]
        try:
            await side.until_opened(2)
            oldest = side.opened[0]
            side.pairs.want(side.local, name_of(listener.getsockname()), simultaneous=False)
            await side.until_opened(3)
            assert [(local, remote) for local, remote, _ in side.lost] == [oldest]
            assert not side.pairs.counters
        finally:
            for sock in socks:
                sock.close()


async def test_a_reset_before_the_proof_is_followed_by_another_connection(listener: socket.socket) -> None:
    """A simultaneous open goes on; the pair is lost and comes back."""
    async with one() as side:
        remote = name_of(listener.getsockname())
        side.budget.prove(remote)
        side.pairs.want(side.local, remote, simultaneous=True)
        for count in (1, 2):
            await side.until_opened(count)
            reset(await accepted(listener))
            await side.until_lost(count)
        await side.until_opened(3)
        assert {*side.opened} == {(side.local, remote)}


@pytest.mark.parametrize("prove", ["authenticated", "seen_at"])
async def test_a_proof_by_another_way_lets_attempts_go_on(closed_port: Address, prove: str) -> None:
    """An address that got its five SYNs is tried again once the other side is known to be there."""
    async with one() as side:
        while side.budget.spend(closed_port):
            pass
        side.pairs.want(side.local, closed_port, simultaneous=True)
        late = Side(2, closed_port)
        try:
            await asyncio.sleep(0.1)
            assert not late.opened
            if prove == "seen_at":
                side.pairs.seen_at(closed_port.host)
            else:
                side.pairs.authenticated(side.local, closed_port)
            await side.until_opened()
        finally:
            late.pairs.close()


# --- the end --------------------------------------------------------------------------------------------


async def test_a_pair_that_is_not_wanted_any_more_ends() -> None:
    """Without a word here; the other side hears of it. It may be wanted again at once."""
    async with two() as (side, other):
        for count in (1, 2):
            side.pairs.want(side.local, other.local, simultaneous=False)
            await side.until_opened(count)
            await other.until_opened(count)
            side.pairs.unwant(side.local, other.local)
            side.pairs.unwant(side.local, other.local)
            await other.until_lost(count)
            assert side.pairs.stream(side.local, other.local) is None
        assert not side.lost


@pytest.mark.parametrize("simultaneous", [False, True])
async def test_attempts_that_are_not_wanted_any_more_end(closed_port: Address, simultaneous: bool) -> None:
    """Nothing more leaves for that address: whoever comes there is not connected."""
    async with one() as side:
        side.pairs.want(side.local, closed_port, simultaneous=simultaneous)
        side.pairs.unwant(side.local, closed_port)
        late = Side(2, closed_port)
        try:
            await asyncio.sleep(0.5)
            assert not late.opened and not side.opened and not side.lost
        finally:
            late.pairs.close()


async def test_the_other_sides_end_loses_the_pair() -> None:
    """In words, once."""
    async with two() as (side, other):
        side.pairs.want(side.local, other.local, simultaneous=False)
        await side.until_opened()
        await other.until_opened()
        side.pairs.authenticated(side.local, other.local)
        other.pairs.close()
        assert await side.until_lost()
        assert len(side.lost) == 1 and not side.send(b"late", other.local)


class Tenant:
    """A link that takes what comes."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def receive(self, data: memoryview) -> None:
        self.received.put_nowait(bytes(data))

    def drained(self) -> None:
        pass

    def disconnected(self) -> None:
        pass


async def test_a_link_outlives_what_ice_does_with_its_pair() -> None:
    """Once nominated, neither `unwant`, nor the end of the base, nor that of all pairs ends a connection."""
    async with two() as (side, other):
        side.pairs.want(side.local, other.local, simultaneous=False)
        await side.until_opened()
        await other.until_opened()
        await talk(side, other)
        streams = side.pairs.stream(side.local, other.local), other.pairs.stream(other.local, side.local)
        assert streams[0] is not None and streams[1] is not None
        tenants = Tenant(), Tenant()
        for stream, tenant, is_controlling in zip(streams, tenants, (True, False), strict=True):
            stream.nominate(tenant, is_controlling=is_controlling)
        try:
            side.pairs.unwant(side.local, other.local)
            other.pairs.unbind(other.local)
            side.pairs.close()
            streams[0].write(b"over")
            streams[1].write(b"and back")
            async with asyncio.timeout(PATIENCE):
                assert await tenants[1].received.get() == b"over"
                assert await tenants[0].received.get() == b"and back"
        finally:
            for stream in streams:
                stream.close()


async def test_an_address_that_is_gone_takes_its_pairs_along() -> None:
    """Other bases stay, and are dialled from as before."""
    async with two() as (side, other):
        second = side.pairs.bind(LOOPBACK)
        assert side.pairs.bases == [side.local, second]
        for base in (side.local, second):
            side.pairs.want(base, other.local, simultaneous=False)
        await other.until_opened(2)
        await side.until_opened(2)
        side.pairs.unbind(side.local)
        side.pairs.unbind(side.local)
        await other.until_lost()
        assert [loss[:2] for loss in other.lost] == [(other.local, side.local)]
        assert side.pairs.stream(second, other.local) is not None
        assert side.pairs.bases == [second] and not side.lost


async def test_closed_pairs_bind_nothing() -> None:
    """And a taken port is a local problem."""
    async with one() as side:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LocalProblem):
            side.pairs.bind(name_of(taken.getsockname()))
        side.pairs.close()
        side.pairs.close()
        with pytest.raises(UsageError):
            side.pairs.bind(LOOPBACK)


async def test_a_server_that_was_lost_is_asked_again(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been restarted; nobody is asked any more by pairs that are closed."""
    monkeypatch.setattr(tcp_dialler, "ASK_AGAIN", 0.01)
    async with one() as side:
        side.pairs.ask(name_of(listener.getsockname()))
        (await accepted(listener)).close()
        await side.until(lambda: len(side.mappings) == 1)
        assert isinstance(side.mappings[0], MappingLost)
        with await accepted(listener) as sock:
            sock.settimeout(PATIENCE)
            request = await asyncio.to_thread(sock.recv, 100)
            sock.sendall(bare_answer(request[8:20], name_of(sock.getpeername())))
            await side.until(lambda: len(side.mappings) == 2)
            assert isinstance(side.mappings[1], Mapped) and side.mappings[1].address == side.local


async def test_servers_tell_the_address_of_each_port() -> None:
    """Those of the other family are not asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = name_of(writer.get_extra_info("peername"))
        while request := await reader.read(100):
            writer.write(bare_answer(request[8:20], source))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with one() as side:
        second = side.pairs.bind(LOOPBACK)
        side.pairs.ask(name_of(server.sockets[0].getsockname()))
        side.pairs.ask(Address("::1", 1))
        await side.until(lambda: len(side.mappings) == 2)
        assert all(isinstance(event, Mapped) for event in side.mappings)
        assert {event.address for event in side.mappings} == {side.local, second}
    server.close()
    await server.wait_closed()
