"""Workers as processes: they die, are replaced, end in order, and are refused where they cannot be."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem, UsageError
from crowline.server import worker_pool, worker_process
from crowline.server.front import StunTurnFront
from crowline.server.settings import Settings, build
from crowline.stun.budget import Allowance
from crowline.turn.quota import Limits
from peer_programs import run
from turn_front import HOME, SECRET, client_of
from turn_socket import PATIENCE, plain_socket
from waiting import until
from worker_front import (
    PEER_HOST,
    front,
    home_of,
    relayed_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares UDP ports out")

# --- dying ----------------------------------------------------------------------------------------------


async def test_a_killed_worker_is_replaced_and_no_allocation_is_lost() -> None:
    """After SIGKILL in mid-flow the same allocation carries data both ways, and no zombie is left."""
    async with front() as running, client_of(running) as client:
        relayed = (await client.allocate()).relayed
        with plain_socket(PEER_HOST) as peer:
            await client.bind(peer.local)
            client.send(b"before", peer.local)
            assert (await peer.receive())[0] == b"before"
            pid = running.worker_pids[home_of(running, relayed)]
            os.kill(pid, signal.SIGKILL)
            # What is sent meanwhile waits in the sockets, which are the owner's too.
            client.send(b"after", peer.local)
            assert await peer.receive() == (b"after", relayed)
            peer.send(b"back", relayed)
            await client.until(lambda: client.payloads)
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
        await until(lambda: not any(_lives(pid) for pid in pids))


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
