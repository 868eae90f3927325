"""One local TCP port that listens, dials, meets others half-way and asks STUN servers, on loopback."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.transport import Transport
from crowline.net import tcp, tcp_dial, tcp_mapping
from crowline.net.tcp import (
    MAX_STRANGERS,
    SYN_REPEAT,
    ConnectFailed,
    Opened,
    PunchOver,
    TcpEvent,
    TcpPort,
)
from crowline.net.tcp_dial import Dial, Obstacle
from crowline.net.tcp_mapping import MappingLost
from crowline.net.tcp_sockets import name_of, open_shared, reset
from crowline.net.tcp_stream import TcpStream
from crowline.punch import tcp_schedule
from crowline.punch.syn_budget import MAX_UNPROVEN, SynBudget
from crowline.punch.tcp_schedule import PunchEnd, TcpSchedule
from crowline.stun.client import Mapped
from crowline.stun.responder import bare_answer

E = TypeVar("E")
PATIENCE = 30.0  # seconds for something that must happen
LOOPBACK = Address("127.0.0.1", 0)


class Ear:
    """A port and what it said."""

    def __init__(self, address: Address = LOOPBACK) -> None:
        self.events: list[TcpEvent] = []
        self._changed = asyncio.Event()
        self.port = TcpPort.bind(address, self._hear, entropy=random.Random(1).randbytes)

    @property
    def local(self) -> Address:
        return self.port.local

    async def next(self, kind: type[E], count: int = 1) -> E:
        """The `count`-th event of that kind."""
        async with asyncio.timeout(PATIENCE):
            while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
                self._changed.clear()
                await self._changed.wait()
        return found[count - 1]

    def _hear(self, event: TcpEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def close(self) -> None:
        self.port.close()
        for event in self.events:
            if isinstance(event, Opened):
                event.stream.abort()


@asynccontextmanager
async def ears(count: int = 1) -> AsyncIterator[list[Ear]]:
    made: list[Ear] = []
    try:
        for _ in range(count):
            made.append(Ear())
        yield made
    finally:
        for ear in made:
            ear.close()


def proven(address: Address) -> SynBudget:
    budget = SynBudget(10)
    budget.prove(address)
    return budget


def schedule(remote: Address, seed: int = 1) -> TcpSchedule:
    return TcpSchedule(remote, proven(remote), entropy=random.Random(seed).randbytes, repeat=SYN_REPEAT)


async def talk(first: TcpStream, second: TcpStream) -> None:
    """What one sends the other gets."""
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    second.start(got.set_result, lambda _: None)
    first.send(b"hello")
    async with asyncio.timeout(PATIENCE):
        assert await got == b"hello"


def silent_listener(stack: AsyncExitStack) -> Address:
    """A port whose queue is full: SYNs get no answer."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    stack.callback(listener.close)
    address = Address(*listener.getsockname())
    for _ in range(4):
        sock = socket.socket()
        stack.callback(sock.close)
        sock.setblocking(False)
        sock.connect_ex((address.host, address.port))
    return address


@pytest.fixture
def closed_port() -> Iterator[Address]:
    """A port at which nobody listens, and nobody else will; a `TcpPort` may have it too."""
    with open_shared(LOOPBACK) as holder:
        yield name_of(holder.getsockname())


# --- listening and dialling -----------------------------------------------------------------------------


async def test_a_port_that_dials_one_that_listens() -> None:
    """Both get the stream; the dialler leaves by the port that it listens on itself."""
    async with ears(2) as (active, passive):
        number = active.port.connect(passive.local)
        dialled, accepted = await active.next(Opened), await passive.next(Opened)
        assert (dialled.number, accepted.number) == (number, None)
        assert dialled.stream.local == accepted.stream.remote == active.local
        assert dialled.stream.remote == accepted.stream.local == passive.local
        assert accepted.stream.is_accepted and not dialled.stream.is_accepted
        await talk(dialled.stream, accepted.stream)
        await talk(accepted.stream, dialled.stream)


async def test_one_port_dials_many() -> None:
    """All connections have the same local address."""
    async with ears(4) as (active, *others):
        for other in others:
            active.port.connect(other.local)
        streams = [(await active.next(Opened, count)).stream for count in (1, 2, 3)]
        assert {stream.local for stream in streams} == {active.local}
        assert {stream.remote for stream in streams} == {other.local for other in others}


async def test_ipv6_works_the_same() -> None:
    """Where the machine has it."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    first, second = Ear(Address("::1", 0)), Ear(Address("::1", 0))
    try:
        first.port.connect(second.local)
        await talk((await first.next(Opened)).stream, (await second.next(Opened)).stream)
    finally:
        first.close()
        second.close()


async def test_nobody_there_is_said(closed_port: Address) -> None:
    """With the system's word for it."""
    async with ears() as (ear,):
        number = ear.port.connect(closed_port)
        failed = await ear.next(ConnectFailed)
        assert (failed.number, failed.remote, failed.obstacle) == (number, closed_port, Obstacle.REFUSED)
        assert "refused" in failed.message.lower()


async def test_silence_is_said() -> None:
    """After the time for a connection."""
    async with AsyncExitStack() as stack, ears() as (ear,):
        ear.port.connect(silent_listener(stack), limit=0.05)
        assert (await ear.next(ConnectFailed)).obstacle is Obstacle.SILENT


async def test_a_cancelled_connection_says_nothing() -> None:
    """Neither success nor failure; the next number is another one."""
    async with AsyncExitStack() as stack, ears(2) as (ear, other):
        number = ear.port.connect(silent_listener(stack))
        ear.port.cancel(number)
        ear.port.cancel(number)
        assert ear.port.connect(other.local) != number
        await ear.next(Opened)
        assert len(ear.events) == 1


async def test_a_port_that_dials_itself_meets_nobody() -> None:
    """TCP would connect a socket with itself."""
    async with ears() as (ear,):
        ear.port.connect(ear.local)
        assert (await ear.next(ConnectFailed)).remote == ear.local


async def test_a_taken_port_is_a_local_problem() -> None:
    """In words with the address; nothing stays open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(*listener.getsockname())
        with pytest.raises(LocalProblem, match=f"TCP {address} cannot be used"):
            TcpPort.bind(address, lambda _: None, entropy=random.Random(1).randbytes)


async def test_a_closed_port_refuses_and_is_silent(closed_port: Address) -> None:
    """What nobody trusts goes with it; what somebody trusts stays open."""
    async with ears(3) as (ear, friend, stranger):
        for other in (friend, stranger):
            other.port.connect(ear.local)
        streams = {event.stream.remote: event.stream for event in [await ear.next(Opened, n) for n in (1, 2)]}
        streams[friend.local].trust()
        number = ear.port.connect(closed_port)
        ear.port.close()
        ear.port.close()
        ear.port.cancel(number)
        assert streams[friend.local].is_open and not streams[stranger.local].is_open
        await talk(streams[friend.local], (await friend.next(Opened)).stream)
        assert len(ear.events) == 2
        friend.port.connect(ear.local)
        failed = await friend.next(ConnectFailed)
        assert failed.obstacle in (Obstacle.REFUSED, Obstacle.UNSENT)  # the latter: that pair is in use


# --- strangers ------------------------------------------------------------------------------------------


async def test_a_stranger_who_proves_nothing_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for a check; whoever reads hears why. One who is trusted in time stays."""
    monkeypatch.setattr(tcp, "TRUST_LIMIT", 0.2)
    async with ears(3) as (ear, friend, stranger):
        for other in (friend, stranger):
            other.port.connect(ear.local)
        streams = {event.stream.remote: event.stream for event in [await ear.next(Opened, n) for n in (1, 2)]}
        reasons: asyncio.Queue[str] = asyncio.Queue()
        streams[friend.local].trust()
        streams[stranger.local].start(lambda _: None, reasons.put_nowait)
        async with asyncio.timeout(PATIENCE):
            assert "prove" in await reasons.get()
        assert not streams[stranger.local].is_open
        assert streams[friend.local].is_open


async def test_strangers_are_bounded_and_the_oldest_gives_way() -> None:
    """A flood of connections ends its own; those that are trusted or dialled do not count."""
    async with AsyncExitStack() as stack, ears(3) as (ear, friend, dialled):
        friend.port.connect(ear.local)
        trusted = (await ear.next(Opened)).stream
        trusted.trust()
        ear.port.connect(dialled.local)
        called = (await ear.next(Opened, 2)).stream
        for count in range(MAX_STRANGERS + 5):
            sock = await asyncio.to_thread(socket.create_connection, (ear.local.host, ear.local.port))
            stack.callback(sock.close)
            await ear.next(Opened, count + 3)
        opened = [event.stream for event in ear.events if isinstance(event, Opened)]
        strangers = opened[2:]
        assert [stream.is_open for stream in strangers] == [False] * 5 + [True] * MAX_STRANGERS
        assert trusted.is_open and called.is_open


async def test_running_out_of_descriptors_only_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener rests instead of asking again and again, and then goes on."""
    monkeypatch.setattr(tcp, "_EXHAUSTED_PAUSE", 0.01)

    class Exhausted:
        """A listener whose first accept fails as it does without descriptors."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock
            self.failures = 0

        def __getattr__(self, name: str) -> object:
            return getattr(self._sock, name)

        def fileno(self) -> int:
            return self._sock.fileno()

        def accept(self) -> tuple[socket.socket, object]:
            if not self.failures:
                self.failures += 1
                raise OSError(24, "Too many open files")
            return self._sock.accept()

    async with ears(2) as (ear, other):
        ear.port._listener = Exhausted(ear.port._listener)
        other.port.connect(ear.local)
        await ear.next(Opened)
        assert ear.port._listener.failures == 1


# --- meeting half-way -----------------------------------------------------------------------------------


async def test_two_ports_that_dial_each_other_share_one_connection() -> None:
    """Both punch towards the other, who listens too: each has the connection, and it is one."""
    async with ears(2) as pair:
        first, second = pair
        numbers = (
            first.port.punch(schedule(second.local, 1)),
            second.port.punch(schedule(first.local, 2)),
        )
        streams = [(await ear.next(Opened)).stream for ear in pair]
        assert streams[0].local == streams[1].remote and streams[0].remote == streams[1].local
        for ear, number in zip(pair, numbers, strict=True):
            ear.port.cancel(number)
        await talk(*streams)


async def test_a_punch_goes_on_until_the_other_side_is_there(closed_port: Address) -> None:
    """Refusals are answered by new attempts; who comes later is met."""
    async with AsyncExitStack() as stack, ears() as (early,):
        early.port.punch(schedule(closed_port))
        await asyncio.sleep(0.1)
        assert not early.events
        late = Ear(closed_port)
        stack.callback(late.close)
        opened = await early.next(Opened)
        assert opened.stream.remote == closed_port
        await talk(opened.stream, (await late.next(Opened)).stream)


async def test_a_punch_that_meets_nobody_says_why(
    closed_port: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unproven address gets five SYNs, and the plan ends with that reason."""
    monkeypatch.setattr(tcp_schedule, "PATIENCE", 2.0)
    async with ears() as (ear,):
        plan = TcpSchedule(closed_port, SynBudget(10), entropy=random.Random(1).randbytes, repeat=SYN_REPEAT)
        number = ear.port.punch(plan)
        over = await ear.next(PunchOver)
        assert (over.number, over.remote, over.failure.reason) == (number, closed_port, PunchEnd.CAPPED)
        assert 2 <= over.failure.refusals <= MAX_UNPROVEN


async def test_a_proof_lets_a_punch_go_on(closed_port: Address) -> None:
    """When the budget of the address has no limit any more."""
    async with AsyncExitStack() as stack, ears() as (ear,):
        budget = SynBudget(10)
        for _ in range(MAX_UNPROVEN):
            budget.spend(closed_port)
        ear.port.punch(TcpSchedule(closed_port, budget, entropy=random.Random(1).randbytes))
        late = Ear(closed_port)
        stack.callback(late.close)
        ear.port.proven()
        await asyncio.sleep(0.05)
        assert not ear.events
        budget.prove(closed_port)
        ear.port.proven()
        assert (await ear.next(Opened)).stream.remote == closed_port


async def test_a_connection_that_is_reset_before_its_proof_is_followed_by_another() -> None:
    """The other side may give its half up in the moment in which this side's is complete."""
    async with AsyncExitStack() as stack, ears() as (ear,):
        listener = socket.create_server(("127.0.0.1", 0))
        stack.callback(listener.close)
        listener.settimeout(PATIENCE)
        ear.port.punch(schedule(Address(*listener.getsockname())))
        first = await ear.next(Opened)
        first.stream.start(lambda _: None, lambda _: None)
        reset((await asyncio.to_thread(listener.accept))[0])
        second = await ear.next(Opened, 2)
        assert second.number == first.number and second.stream is not first.stream
        ended = asyncio.Event()
        second.stream.trust()
        second.stream.start(lambda _: None, lambda _: ended.set())
        reset((await asyncio.to_thread(listener.accept))[0])
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert ear.events == [first, second]


async def test_a_connection_that_comes_from_where_a_punch_dials_is_the_punch_s(closed_port: Address) -> None:
    """The other side was quicker; when it is reset before its proof, the punch goes on."""
    async with ears() as (ear,):
        number = ear.port.punch(schedule(closed_port))
        for count in (1, 2):
            dial: asyncio.Queue[socket.socket | None] = asyncio.Queue()
            while not any(isinstance(event, Opened) for event in ear.events[count - 1 :]):
                attempt = Dial(
                    closed_port, ear.local, dial.put_nowait, lambda *_, done=dial: done.put_nowait(None)
                )
                async with asyncio.timeout(PATIENCE):
                    sock = await dial.get()
                attempt.cancel()
                if sock is None:
                    await asyncio.sleep(0.005)
                    continue
                opened = await ear.next(Opened, count)
                assert (opened.number, opened.stream.remote) == (number, closed_port)
                closed = asyncio.Event()
                opened.stream.start(lambda _: None, lambda _, closed=closed: closed.set())
                reset(sock)
                async with asyncio.timeout(PATIENCE):
                    await closed.wait()


async def test_a_connection_that_is_reset_as_it_is_taken_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens may be as quick as that; the attempt still comes to its end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset_meanwhile(sock: socket.socket) -> bool:
            reset(listener.accept()[0])
            return True

        monkeypatch.setattr(tcp_dial, "_is_connected", reset_meanwhile)
        async with ears() as (ear,):
            number = ear.port.connect(name_of(listener.getsockname()))
            failed = await ear.next(ConnectFailed)
            assert (failed.number, failed.obstacle) == (number, Obstacle.REFUSED)


# --- the address that a NAT gives -----------------------------------------------------------------------


class StunServer:
    """Answers Binding requests on TCP as the server does, and remembers who asked."""

    def __init__(self, answer: Callable[[bytes, Address], bytes]) -> None:
        self._answer = answer
        self.askers: list[Address] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        source = Address(*writer.get_extra_info("peername"))
        try:
            while data := await reader.read(2048):
                self.askers.append(source)
                writer.write(self._answer(data, source))
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def stun_server(
    answer: Callable[[bytes, Address], bytes] | None = None,
) -> AsyncIterator[tuple[StunServer, Address]]:
    stun = StunServer(answer or truth)
    server = await asyncio.start_server(stun.serve, "127.0.0.1", 0)
    try:
        yield stun, Address(*server.sockets[0].getsockname())
    finally:
        server.close()
        for writer in stun.writers:
            writer.close()
        await server.wait_closed()


def truth(request: bytes, source: Address) -> bytes:
    return bare_answer(request[8:20], source)


async def test_a_server_tells_the_address_of_the_very_port() -> None:
    """It sees the port that listens, and punches."""
    async with stun_server() as (stun, server), ears() as (ear,):
        ear.port.ask(server)
        ear.port.ask(server)
        mapped = await ear.next(Mapped)
        assert (mapped.address, mapped.local, mapped.server) == (ear.local, ear.local, server)
        assert mapped.transport is Transport.TCP
        assert stun.askers == [ear.local]


async def test_the_address_is_asked_for_again_and_told_when_it_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the same connection: its end would close the mapping."""
    monkeypatch.setattr(tcp_mapping, "REFRESH", 0.01)
    seen = [Address("192.0.2.1", 1)] * 3 + [Address("192.0.2.1", 2)]

    def answer(request: bytes, _: Address) -> bytes:
        return bare_answer(request[8:20], seen.pop(0) if len(seen) > 1 else seen[0])

    async with stun_server(answer) as (stun, server), ears() as (ear,):
        ear.port.ask(server)
        assert (await ear.next(Mapped)).address.port == 1
        assert (await ear.next(Mapped, 2)).address.port == 2
        assert len(stun.writers) == 1 and len(set(stun.askers)) == 1 and len(stun.askers) >= 4


async def test_an_answer_in_pieces_is_put_together() -> None:
    """A stream has no borders."""
    async with AsyncExitStack() as stack, ears() as (ear,):
        listener = socket.create_server(("127.0.0.1", 0))
        stack.callback(listener.close)
        ear.port.ask(Address(*listener.getsockname()))
        sock, source = await asyncio.to_thread(listener.accept)
        stack.callback(sock.close)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = await asyncio.to_thread(sock.recv, 2048)
        for byte in truth(request, Address(*source)):
            sock.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await ear.next(Mapped)).address == ear.local


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\x01\xff\xfc" + bytes(16)])
async def test_a_server_that_speaks_something_else_is_left(answer: bytes) -> None:
    """The port says so, and may ask it again."""
    async with stun_server(lambda *_: answer) as (_, server), ears() as (ear,):
        ear.port.ask(server)
        lost = await ear.next(MappingLost)
        assert (lost.server, lost.local) == (server, ear.local)
        assert lost.message == "what the server sends is not STUN"
        ear.port.ask(server)
        await ear.next(MappingLost, 2)


async def test_a_server_that_ends_the_connection_loses_the_mapping() -> None:
    """An address was learnt, and may be good no more."""
    async with stun_server() as (stun, server), ears() as (ear,):
        ear.port.ask(server)
        await ear.next(Mapped)
        stun.writers[0].close()
        assert (await ear.next(MappingLost)).message == "the other side closed the connection"


async def test_a_server_that_is_not_there_is_said(closed_port: Address) -> None:
    """With the system's word for it."""
    async with ears() as (ear,):
        ear.port.ask(closed_port)
        assert "refused" in (await ear.next(MappingLost)).message


async def test_a_server_that_says_nothing_to_a_connection_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for connecting."""
    monkeypatch.setattr(tcp_mapping, "CONNECT_LIMIT", 0.05)
    async with AsyncExitStack() as stack, ears() as (ear,):
        ear.port.ask(silent_listener(stack))
        assert (await ear.next(MappingLost)).message == Obstacle.SILENT.value


async def test_a_port_asks_listens_and_dials_at_once() -> None:
    """Everything from one address, as a NAT has to see it."""
    async with stun_server() as (stun, server), ears(3) as (ear, caller, called):
        ear.port.ask(server)
        ear.port.connect(called.local)
        caller.port.connect(ear.local)
        await ear.next(Mapped)
        await ear.next(Opened, 2)
        assert (await called.next(Opened)).stream.remote == ear.local == stun.askers[0]
