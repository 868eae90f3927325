"""STUN and TURN against programs that other people wrote: coturn's tools and server, and aioice."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from aioice import Candidate, Connection
from aioice import turn as aioice_turn

from coturn import LOGIN, coturn
from crowline.base.addresses import Address
from crowline.turn.auth import issue_credentials
from crowline.turn.events import AllocationFailed, ChannelBound, DataReceived, PermissionRefused
from needs import needs_program
from peer_programs import PROGRAM_TIME, background, run
from turn_front import SECRET, front
from turn_socket import PATIENCE, free_port, plain_socket, turn_client
from waiting import until

pytestmark = pytest.mark.peer

PEER_HOST = "127.0.0.2"
OTHER_HOST = "127.0.0.3"


def credentials() -> tuple[str, str]:
    return issue_credentials(SECRET, "alice", int(time.time()) + 3600)


# --- their clients, our server --------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_coturn_stun_client_learns_its_address(host: str) -> None:
    """`turnutils_stunclient` understands our Binding answer."""
    program = needs_program("turnutils_stunclient")
    async with front(Address(host, 0)) as running:
        output = await run(program, "-p", str(running.address.port), host)
    assert re.search(rf"UDP reflexive addr: {re.escape(host)}:\d+", output)


async def test_coturn_nat_discovery_sees_no_nat() -> None:
    """`turnutils_natdiscovery` finds mapping and filtering by our two addresses and ports (RFC 5780)."""
    program = needs_program("turnutils_natdiscovery")
    async with front(alternate_address=OTHER_HOST) as running:
        output = await run(program, "-m", "-f", "-p", str(running.address.port), "127.0.0.1")
    assert "NAT with Endpoint Independent Mapping" in output
    assert "NAT with Endpoint Independent Filtering" in output


@pytest.mark.parametrize(
    "login", [("-u", "user", "-w", "password"), ("-u", "alice", "-W", SECRET.reveal().decode())]
)
async def test_coturn_client_relays_to_an_echoing_peer(login: tuple[str, ...]) -> None:
    """`turnutils_uclient` sends by indications through our server, with long-term and time-limited names."""
    program, echo = needs_program("turnutils_uclient"), needs_program("turnutils_peer")
    port = free_port(PEER_HOST)
    async with front() as running, background(echo, "-L", PEER_HOST, "-p", str(port)):
        output = await run(
            program, "-s", "-c", "-n", "10", "-m", "2", "-l", "200", "-e", PEER_HOST, "-r", str(port),
            "-p", str(running.address.port), *login, "127.0.0.1",
        )  # fmt: skip
        assert running.counters["turn_allocated"] >= 2
    assert "tot_send_msgs=20, tot_recv_msgs=20" in output
    assert "Total lost packets 0" in output


async def test_coturn_client_relays_to_itself() -> None:
    """Relay to relay inside our server, between clients of coturn."""
    program = needs_program("turnutils_uclient")
    async with front() as running:
        output = await run(
            program, "-s", "-y", "-c", "-n", "10", "-m", "4", "-l", "200", "-u", "user", "-w", "password",
            "-p", str(running.address.port), "127.0.0.1",
        )  # fmt: skip
    assert "Total lost packets 0" in output


async def test_coturn_client_with_a_wrong_password_gets_nothing() -> None:
    """The control: with a wrong password the same client makes no allocation."""
    program = needs_program("turnutils_uclient")
    async with front() as running:
        login = ("-u", "user", "-w", "wrong", "-p", str(running.address.port))
        async with background(program, "-s", "-c", "-n", "1", "-e", PEER_HOST, *login, "127.0.0.1"):
            await until(lambda: running.counters.get("turn_rejected_401", 0) >= 2)
        assert "turn_allocated" not in running.counters


async def test_aioice_relays_by_channels() -> None:
    """aioice allocates, binds a channel and exchanges data through our server."""
    async with front() as running:
        username, password = credentials()
        received: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                received.put_nowait((data, addr))

        transport, _ = await aioice_turn.create_turn_endpoint(
            Receiver,
            server_addr=("127.0.0.1", running.address.port),
            username=username,
            password=password,
            lifetime=600,
        )
        relayed = Address(*transport.get_extra_info("sockname"))
        with plain_socket(PEER_HOST) as peer:
            transport.sendto(b"hello", (peer.local.host, peer.local.port))
            assert await peer.receive() == (b"hello", relayed)
            peer.send(b"back", relayed)
            assert await asyncio.wait_for(received.get(), PATIENCE) == (
                b"back",
                (peer.local.host, peer.local.port),
            )
        transport.close()
        await until(lambda: not running.counters["allocations"])


async def test_aioice_agents_connect_through_our_relay_only() -> None:
    """Two ICE agents with nothing but relayed candidates of our server exchange data."""
    async with front() as running:
        server = ("127.0.0.1", running.address.port)
        username, password = credentials()
        agents = [
            Connection(
                ice_controlling=controlling,
                turn_server=server,
                turn_username=username,
                turn_password=password,
            )
            for controlling in (True, False)
        ]
        for agent in agents:
            await agent.gather_candidates()
        for agent, other in (agents, agents[::-1]):
            relayed: list[Candidate] = [c for c in other.local_candidates if c.type == "relay"]
            assert len(relayed) >= 1
            for candidate in relayed:
                await agent.add_remote_candidate(candidate)
            await agent.add_remote_candidate(None)
            agent.remote_username = other.local_username
            agent.remote_password = other.local_password
        async with asyncio.timeout(PROGRAM_TIME):
            await asyncio.gather(*(agent.connect() for agent in agents))
            await agents[0].send(b"over")
            assert await agents[1].recv() == b"over"
            await agents[1].send(b"and back")
            assert await agents[0].recv() == b"and back"
        await asyncio.gather(*(agent.close() for agent in agents))


# --- our client, their server ---------------------------------------------------------------------------


async def test_our_client_relays_through_coturn(tmp_path: Path) -> None:
    """Allocate, permission, indications, channel, ChannelData both ways, and give it back."""
    async with coturn(tmp_path) as (port, _), turn_client(Address("127.0.0.1", port), *LOGIN) as client:
        allocated = await client.allocate()
        assert allocated.mapped == client.socket.local
        with plain_socket(PEER_HOST) as peer:
            await client.permit(peer.local)
            client.send(b"by indication", peer.local)
            assert await peer.receive() == (b"by indication", allocated.relayed)
            peer.send(b"back", allocated.relayed)
            assert await client.event(DataReceived) == DataReceived(b"back", peer.local)
            await client.bind(peer.local)
            assert (await client.event(ChannelBound)).peer == peer.local
            client.send(b"a" * 1000 + b"b" * 1000 + b"c", peer.local, 1000)
            assert [(await peer.receive())[0] for _ in range(3)] == [b"a" * 1000, b"b" * 1000, b"c"]
            peer.send(b"and back", allocated.relayed)
            await client.until(lambda: client.payloads == [(b"and back", peer.local)])
        await client.close()


async def test_our_client_is_refused_by_coturn(tmp_path: Path) -> None:
    """A wrong password ends in 401."""
    async with coturn(tmp_path) as (port, _), turn_client(Address("127.0.0.1", port), "alice", "x") as client:
        client.client.allocate(client.pump.now)
        client.pump.flush()
        assert (await client.event(AllocationFailed)).code == 401


async def test_our_client_survives_stale_nonces_of_coturn(tmp_path: Path) -> None:
    """When coturn's nonce has gone stale, the request is repeated with the new one."""
    async with (
        coturn(tmp_path, "--stale-nonce=1") as (port, _),
        turn_client(Address("127.0.0.1", port), *LOGIN) as client,
    ):
        await client.allocate()
        await asyncio.sleep(2.1)
        peer = Address(PEER_HOST, 5000)
        await client.permit(peer)
        assert not any(isinstance(event, PermissionRefused) for event in client.events)
        with plain_socket(PEER_HOST) as echo:
            client.send(b"x", echo.local)
            await echo.receive()


async def test_our_client_hears_of_a_forbidden_peer(tmp_path: Path) -> None:
    """A peer that coturn denies is reported with its code, the others of the batch are permitted."""
    async with (
        coturn(tmp_path, "--denied-peer-ip=127.0.0.9") as (port, _),
        turn_client(Address("127.0.0.1", port), *LOGIN) as client,
    ):
        allocated = await client.allocate()
        with plain_socket(PEER_HOST) as peer:
            await client.permit(Address("127.0.0.9", 1), peer.local)
            assert (await client.event(PermissionRefused)).code == 403
            await client.until(lambda: not client.client.is_busy)
            client.send(b"x", peer.local)
            assert await peer.receive() == (b"x", allocated.relayed)


async def test_rest_credentials_are_those_of_coturn(tmp_path: Path) -> None:
    """Names and passwords that we issue are accepted by a coturn with the same secret."""
    rest = ("--use-auth-secret", "--static-auth-secret", SECRET.reveal().decode())
    async with (
        coturn(tmp_path, login=rest) as (port, _),
        turn_client(Address("127.0.0.1", port), *credentials()) as client,
    ):
        await client.allocate()
        await client.close()
