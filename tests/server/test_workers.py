"""The front with worker processes, on real sockets of the loopback interface."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.errors import LocalProblem, UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from crowline.server import worker_pool, worker_process
from crowline.server.front import StunTurnFront
from crowline.server.settings import Settings, build
from crowline.stun import attributes as a
from crowline.stun.budget import Allowance
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.auth import issue_credentials
from crowline.turn.client import TurnClient, TurnEvent
from crowline.turn.events import AllocationFailed, Moved
from crowline.turn.framing import StreamFramer
from crowline.turn.quota import Limits
from needs import needs_program
from peer_programs import background, run
from turn_socket import PATIENCE, SocketClient, free_port, plain_socket, turn_client

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares UDP ports out")

SECRET = Secret(b"secret of a test")
HOME = Address("127.0.0.1", 0)
PEER_HOST = "127.0.0.2"
LOGIN = ("-u", "user", "-w", "password")
SOON = 1.0  # seconds in which a worker that died is replaced; generous on a busy machine
NOBODY_IS_LEFT = 5.0


@asynccontextmanager
async def front(*listen: Address, **options: Any) -> AsyncIterator[StunTurnFront]:
    options.setdefault("permits", lambda user, peer: True)
    options.setdefault("policy", AddressPolicy(allow_loopback=True))
    options.setdefault("workers", 2)
    running = StunTurnFront(listen or (HOME,), secret=SECRET, **options)
    await running.start()
    try:
        yield running
    finally:
        await running.close()


def credentials(user: str = "mailbox") -> tuple[str, str]:
    return issue_credentials(SECRET, user, int(time.time()) + 3600)


def client_of(running: StunTurnFront, user: str = "mailbox") -> Any:
    return turn_client(running.address, *credentials(user))


def home_of(running: StunTurnFront, relayed: Address) -> int:
    """The worker that has the allocation of a relayed address."""
    pool = vars(running)["_pool"]
    placements = vars(pool)["_placements"].values()
    home: int = next(each.home for each in placements if relayed in each.relays)
    return home


@asynccontextmanager
async def client_in_each(running: StunTurnFront, user: str = "mailbox") -> AsyncIterator[list[SocketClient]]:
    """A client with an allocation in worker 0 and one in worker 1."""
    found: dict[int, SocketClient] = {}
    async with AsyncExitStack() as stack:
        while len(found) < 2:
            client = await stack.enter_async_context(client_of(running, user))
            relayed = (await client.allocate()).relayed
            found.setdefault(home_of(running, relayed), client)
        yield [found[0], found[1]]


def relayed_of(client: SocketClient) -> Address:
    assert client.client.relayed is not None
    return client.client.relayed


def binding() -> bytes:
    return Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), ()).encode()


async def until(condition: Any, seconds: float = PATIENCE) -> None:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


# --- spreading ------------------------------------------------------------------------------------------


async def test_clients_spread_over_workers_and_data_flows_both_ways() -> None:
    """Many ports reach both workers, and each client's data goes to its peer and back."""
    async with front() as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(running, f"user{n}")) for n in range(12)]
        homes = Counter[int]()
        with plain_socket(PEER_HOST) as peer:
            for client in clients:
                relayed = (await client.allocate()).relayed
                homes[home_of(running, relayed)] += 1
                await client.bind(peer.local)
                client.send(b"out", peer.local)
                assert await peer.receive() == (b"out", relayed)
                peer.send(b"in", relayed)
                await client.until(lambda client=client: client.payloads)
                assert client.payloads == [(b"in", peer.local)]
        assert set(homes) == {0, 1}
        assert running.counters["allocations"] == 12


async def test_runs_of_datagrams_pass_a_worker() -> None:
    """Bulk data goes both ways whole and in order."""
    async with front() as running, client_of(running) as client:
        relayed = (await client.allocate()).relayed
        with plain_socket(PEER_HOST) as peer:
            await client.bind(peer.local)
            sent = [bytes([n]) * 1000 for n in range(40)]
            client.send(b"".join(sent), peer.local, 1000)
            assert [(await peer.receive())[0] for _ in sent] == sent
            for piece in sent:
                peer.send(piece, relayed)
            await client.until(lambda: len(client.payloads) == 40)
            assert [data for data, _ in client.payloads] == sent


async def test_every_worker_answers_binding() -> None:
    """Binding needs no owner: it is answered by the socket that was asked, whichever worker reads it."""
    async with front(Address("0.0.0.0", 0), binding=Allowance(10_000.0, 10_000.0)) as running:
        for _ in range(16):
            with plain_socket() as probe:
                probe.send(binding(), Address("127.0.0.7", running.address.port))
                data, source = await probe.receive()
                assert source == Address("127.0.0.7", running.address.port)
                assert parse(data).message.get(a.XorMappedAddress) == a.XorMappedAddress(probe.local)
        await until(lambda: running.counters.get("stun_answered") == 16)


async def test_workers_answer_from_the_alternate_address() -> None:
    """RFC 5780: any worker answers from the other address and the other port."""
    async with front(alternate_address="127.0.0.3", binding=Allowance(1e4, 1e4)) as running:
        for _ in range(8):
            with plain_socket() as probe:
                change = a.ChangeRequest(change_ip=True, change_port=True)
                data = Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), (change,)).encode()
                probe.send(data, running.address)
                _, source = await probe.receive()
                assert source.host == "127.0.0.3"
                assert source.port != running.address.port


async def test_the_budget_of_a_source_is_shared_by_the_workers() -> None:
    """However many workers answer, one source gets about as much as from one process."""
    async with front(binding=Allowance(0.0, 20.0)) as running, AsyncExitStack() as stack:
        answered = 0
        for _ in range(20):
            probe = stack.enter_context(plain_socket())
            for _ in range(5):
                probe.send(binding(), running.address)
            while not await probe.hears_nothing(0.02):
                answered += 1
        assert 10 <= answered <= 20


# --- between workers ------------------------------------------------------------------------------------


async def test_allocations_of_two_workers_reach_each_other() -> None:
    """Relay to relay across workers: the permission is for the relayed host, and only relays are reached."""
    async with front() as running, client_in_each(running) as (first, second):
        one, other = relayed_of(first), relayed_of(second)
        await first.bind(other)
        await second.bind(one)
        first.send(b"across", other)
        await second.until(lambda: second.payloads)
        second.send(b"back", one)
        await first.until(lambda: first.payloads)
        assert (second.payloads, first.payloads) == ([(b"across", one)], [(b"back", other)])


async def test_no_other_socket_of_this_machine_is_reached() -> None:
    """A permission for the relayed host lets a client neither reach a plain socket there nor hear it."""
    async with front() as running, client_of(running) as client:
        relayed = (await client.allocate()).relayed
        with plain_socket(relayed.host) as service:
            await client.permit(Address(relayed.host, 1))
            client.send(b"hello", service.local)
            service.send(b"hello", relayed)
            assert await service.hears_nothing()
            assert client.payloads == []


class StreamTurnClient(SocketClient):
    """A client that speaks TCP with the server."""

    def __init__(self, server: Address, username: str, password: str) -> None:
        super().__init__(server, username, password)
        self.pump.close()
        self.client = TurnClient(
            server, username, Secret(password.encode()), entropy=os.urandom, transport=Transport.TCP
        )
        self.pump = Pump[Transmit, TurnEvent](self.client, self._write, self._on_event)

    async def connect(self) -> None:
        host, port = self.client.server.host, self.client.server.port
        self._reader, self._writer = await asyncio.open_connection(host, port)
        self._reading = asyncio.create_task(self._read())

    def send(self, data: bytes, peer: Address, segment_size: int | None = None) -> None:
        for transmit in self.client.wrap_run(data, segment_size, peer):
            self._write(transmit)

    async def disconnect(self) -> None:
        self.abandon()
        self._reading.cancel()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _write(self, transmit: Transmit) -> None:
        self._writer.write(transmit.data)

    async def _read(self) -> None:
        framer = StreamFramer()
        while data := await self._reader.read(65536):
            framer.feed(data)
            while (message := framer.next_message()) is not None:
                self._received(memoryview(message), self.client.server, len(message))


async def test_a_stream_client_and_udp_clients_of_all_workers_reach_each_other() -> None:
    """The allocation of a TCP client lives in the owner; those of workers speak with it, both ways."""
    async with front() as running, client_in_each(running) as clients:
        stream = StreamTurnClient(running.tcp_addresses[0], *credentials())
        await stream.connect()
        try:
            ours = (await stream.allocate()).relayed
            assert home_of(running, ours) not in (0, 1)
            for client in clients:
                theirs = relayed_of(client)
                await stream.bind(theirs)
                await client.bind(ours)
                stream.send(b"from the stream", theirs)
                await client.until(lambda client=client: client.payloads)
                assert client.payloads == [(b"from the stream", ours)]
                client.send(b"to the stream", ours)
                await stream.until(lambda: stream.payloads)
                assert stream.payloads.pop() == (b"to the stream", theirs)
        finally:
            await stream.disconnect()


@pytest.mark.peer
@pytest.mark.parametrize(("way", "clients"), [((), "20"), (("-t",), "2")], ids=["UDP", "TCP"])
async def test_coturn_clients_relay_to_an_echoing_peer(way: tuple[str, ...], clients: str) -> None:
    """Workers have the allocations of UDP clients, the owner those of stream clients; both carry data."""
    program, echo = needs_program("turnutils_uclient"), needs_program("turnutils_peer")
    port = free_port(PEER_HOST)
    options = {"users": {"user": Secret(b"password")}, "limits": Limits(allocations_per_user=100)}
    async with front(**options) as running, background(echo, "-L", PEER_HOST, "-p", str(port)):
        output = await run(
            program, *way, "-s", "-c", "-n", "10", "-m", clients, "-l", "200", *LOGIN,
            "-e", PEER_HOST, "-r", str(port), "-p", str(running.address.port), "127.0.0.1",
        )  # fmt: skip
    assert "Total lost packets 0" in output


@pytest.mark.peer
async def test_tcp_allocations_find_their_connections() -> None:
    """RFC 6062 with workers: ConnectionBind comes on a stream of its own and finds the allocation."""
    program = needs_program("turnutils_uclient")
    async with front(users={"user": Secret(b"password")}) as running:
        output = await run(
            program, "-T", "-c", "-n", "10", "-m", "2", "-l", "200", *LOGIN,
            "-p", str(running.address.port), "127.0.0.1",
        )  # fmt: skip
        assert "handler_error" not in running.counters
    assert "Total lost packets 0" in output


@pytest.mark.peer
async def test_coturn_clients_relay_to_each_other() -> None:
    """Twenty of coturn's clients, spread over two workers, lose nothing.

    They speak by indications: their channels have numbers that RFC 8656 §12 reserves.
    """
    program = needs_program("turnutils_uclient")
    limits = Limits(allocations_per_user=100)
    async with front(users={"user": Secret(b"password")}, limits=limits) as running:
        output = await run(
            program, "-y", "-s", "-m", "20", "-n", "10", "-l", "170", *LOGIN, "-c",
            "-p", str(running.address.port), "127.0.0.1",
        )  # fmt: skip
        assert "handler_error" not in running.counters
    assert "Total lost packets 0" in output


# --- what holds for a user ------------------------------------------------------------------------------


async def test_the_quota_of_a_user_holds_across_workers() -> None:
    """Allocations are counted once, wherever they live."""
    limits = Limits(allocations_per_user=4)
    async with front(limits=limits) as running, AsyncExitStack() as stack:
        homes = set()
        for _ in range(4):
            client = await stack.enter_async_context(client_of(running))
            homes.add(home_of(running, (await client.allocate()).relayed))
        fifth = await stack.enter_async_context(client_of(running))
        fifth.client.allocate(fifth.pump.now)
        fifth.pump.flush()
        assert (await fifth.event(AllocationFailed)).code == 486


async def test_the_rate_of_a_user_is_divided_between_workers() -> None:
    """A user in two workers gets no more than its burst and rate through both together."""
    limits = Limits(bytes_per_second=1000.0)
    async with front(limits=limits) as running, client_in_each(running) as clients:
        with plain_socket(PEER_HOST) as peer:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            for client in clients:
                await client.bind(peer.local)
            for _ in range(300):
                for client in clients:
                    client.send(bytes(1000), peer.local)
            received = 0
            with suppress(TimeoutError):
                while True:
                    received += len((await peer.receive(0.3))[0])
            assert 0 < received <= limits.burst + 5000


# --- moving ---------------------------------------------------------------------------------------------


class MovingClient(SocketClient):
    """A client with a ticket, that can go to another socket."""

    def __init__(self, server: Address, username: str, password: str) -> None:
        super().__init__(server, username, password)
        self.pump.close()
        self.client = TurnClient(
            server, username, Secret(password.encode()), entropy=os.urandom, mobility=True
        )
        self.pump = Pump[Transmit, TurnEvent](self.client, lambda t: self.socket.send(t), self._on_event)
        self.old: list[UdpSocket] = []

    async def move(self) -> None:
        self.old.append(self.socket)
        self.socket = UdpSocket.bind(HOME, self._received)
        self.client.move(self.pump.now)
        self.pump.flush()
        await self.event(Moved)

    def abandon(self) -> None:
        super().abandon()
        for old in self.old:
            old.close()


async def test_a_client_moves_to_another_worker() -> None:
    """The allocation follows its client's new 5-tuple; until data comes from there the old one is served."""
    async with front() as running:
        client = MovingClient(running.address, *credentials())
        try:
            relayed = (await client.allocate()).relayed
            home = home_of(running, relayed)
            with plain_socket(PEER_HOST) as peer:
                await client.bind(peer.local)
                for step in range(30):
                    await client.move()
                    peer.send(b"to the old place %d" % step, relayed)
                    await client.until(lambda step=step: len(client.payloads) == 2 * step + 1)
                    client.send(b"from the new place", peer.local)
                    assert await peer.receive() == (b"from the new place", relayed)
                    peer.send(b"to the new place", relayed)
                    await client.until(lambda step=step: len(client.payloads) == 2 * step + 2)
                    if home_of(running, relayed) != home:
                        break
                assert home_of(running, relayed) != home
                client.send(b"by the new worker", peer.local)
                assert await peer.receive() == (b"by the new worker", relayed)
        finally:
            client.abandon()


# --- dying ----------------------------------------------------------------------------------------------


async def test_a_killed_worker_is_replaced_and_no_allocation_is_lost() -> None:
    """After SIGKILL in mid-flow the same allocation carries data within a second, and no zombie is left."""
    async with front() as running, client_of(running) as client:
        relayed = (await client.allocate()).relayed
        with plain_socket(PEER_HOST) as peer:
            await client.bind(peer.local)
            client.send(b"before", peer.local)
            assert (await peer.receive())[0] == b"before"
            pid = running.worker_pids[home_of(running, relayed)]
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            # What is sent meanwhile waits in the sockets, which are the owner's too.
            client.send(b"after", peer.local)
            assert await peer.receive() == (b"after", relayed)
            peer.send(b"back", relayed)
            await client.until(lambda: client.payloads)
            assert time.monotonic() - killed < SOON
        assert not _exists(pid)
        assert len(set(running.worker_pids)) == 2
        await client.close()
        await until(lambda: running.counters["allocations"] == 0)


async def test_every_allocation_outlives_all_workers() -> None:
    """When all workers are killed at once, a hundred allocations go on, and nothing stays open after them."""
    many = Limits(allocations_per_user=200)
    options = {"limits": many, "challenge": Allowance(1000.0, 1000.0)}
    async with front(**options) as running, AsyncExitStack() as stack:
        before = open_descriptors(running)
        clients = [await stack.enter_async_context(client_of(running)) for _ in range(100)]
        await asyncio.gather(*(client.allocate() for client in clients))
        with plain_socket(PEER_HOST) as peer:
            await asyncio.gather(*(client.bind(peer.local) for client in clients))
            for pid in running.worker_pids:
                os.kill(pid, signal.SIGKILL)
            for client in clients:
                client.send(b"on", peer.local)
            sources = {(await peer.receive())[1] for _ in clients}
            assert sources == {relayed_of(client) for client in clients}
        await asyncio.gather(*(client.close() for client in clients))
        await until(lambda: open_descriptors(running) == before)


async def test_a_worker_that_dies_again_and_again_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few replacements that do not last the server says so."""
    monkeypatch.setattr(worker_process, "FIRST_DELAY", 0.001)
    failures: list[LocalProblem] = []
    async with front(on_failure=failures.append) as running:
        killed: set[int] = set()
        async with asyncio.timeout(4 * PATIENCE):
            while not failures:
                pid = running.worker_pids[0]
                if pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                await asyncio.sleep(0.005)
    assert len(killed) == worker_process.MOST_FAILURES + 1
    assert "again and again" in failures[0].message
    assert failures[0].exit_code == 8


async def test_workers_that_cannot_start_are_a_local_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a working interpreter nothing starts and nothing stays open."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(worker_process, "FIRST_DELAY", 0.001)
    with pytest.raises(LocalProblem):
        async with front():
            pass


async def test_closing_leaves_no_worker() -> None:
    """A front that is closed has ended and reaped its workers."""
    async with front(workers=3) as running:
        pids = running.worker_pids
        assert len(set(pids)) == 3
    assert not any(_exists(pid) for pid in pids)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a server."""
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            _, _, rest = (each / "stat").read_text().rpartition(")")
            if int(rest.split()[1]) == pid:
                found.append(int(each.name))
    return found


@asynccontextmanager
async def served(*flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`crowline serve` as a process, listening."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crowline", "serve", "--json", "--listen", "127.0.0.1:0",
        "--stun-listen", "127.0.0.1:0", *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert b"listening" in await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_workers_end_with_their_owner() -> None:
    """When the server itself is killed no worker is left."""
    async with served("--workers", "2") as process:
        pids = workers_of(process.pid)
        assert len(pids) == 2
        process.kill()
        await process.wait()
        await until(lambda: not any(_lives(pid) for pid in pids), NOBODY_IS_LEFT)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_signals_are_for_the_owner(number: signal.Signals, code: int) -> None:
    """Workers have names, do not mind signals, and end with a server that ends in order."""
    async with served("--workers", "2") as process:
        pids = workers_of(process.pid)
        names = sorted(_name(pid) for pid in pids)
        assert names == ["crowline-wk-0", "crowline-wk-1"]
        for pid in pids:
            os.kill(pid, number)
        await asyncio.sleep(0.1)
        assert all(_lives(pid) for pid in pids)
        process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == code
        assert not any(_lives(pid) for pid in pids)


async def test_one_process_stays_the_default() -> None:
    """Without the flag no other process is started."""
    async with served() as process:
        assert workers_of(process.pid) == []


def open_descriptors(running: StunTurnFront) -> list[int]:
    """How many each worker has."""
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in running.worker_pids]


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _lives(pid: int) -> bool:
    try:
        _, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return False
    return rest.split()[0] != "Z"


# --- limits of the machine ------------------------------------------------------------------------------


async def test_two_servers_do_not_share_a_port() -> None:
    """A second server with workers does not creep into the ports of the first one."""
    async with front() as running:
        with pytest.raises(LocalProblem):
            async with front(running.address):
                pass
        with pytest.raises(LocalProblem):
            async with front(running.address, workers=1):
                pass


async def test_a_system_that_cannot_share_ports_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux more than one worker is a local problem, in a sentence."""
    monkeypatch.setattr(worker_pool, "IS_SUPPORTED", False)
    with pytest.raises(LocalProblem, match="cannot share"):
        StunTurnFront(HOME, secret=SECRET, permits=lambda user, peer: True, workers=2)


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_number_of_workers_that_makes_no_sense_is_refused(count: int) -> None:
    """From 1 to 64."""
    with pytest.raises(UsageError):
        build(Settings(workers=count))


async def test_a_worker_imports_neither_hub_nor_http() -> None:
    """A worker's memory is its own and small: none of the large parts is loaded."""
    script = (
        "import sys, crowline.server.worker;"
        "print([n for n in sys.modules if n.startswith(('crowline.rendezvous.hub', 'crowline.api', 'uvicorn',"
        " 'starlette', 'cryptography', 'qh3', 'websockets', 'click', 'spake2', 'crowline.server.front'))])"
    )
    assert (await run(sys.executable, "-c", script)).strip() == "[]"
