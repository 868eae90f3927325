"""How a server ends that is still in use."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.rendezvous import wire
from crowline.server.config import ServerConfig
from crowline.server.server import Server
from crowline.turn.events import AllocationFailed
from hub_server import hear, meet
from turn_socket import turn_client
from waiting import until

HOME = Address("127.0.0.1", 0)
CONFIG = ServerConfig(
    listen=HOME, stun_listen=HOME, allow_loopback=True, users={"user": Secret(b"password")}, drain=20.0
)


async def test_an_idle_server_ends_at_once() -> None:
    """Nobody is there to wait for; a side that waits for another can no longer be met."""
    async with Server(CONFIG) as server, connect(f"{server.url}/v1", proxy=None) as socket:
        await hear(socket)
        async with asyncio.timeout(CONFIG.drain / 2):
            await server.drain()


async def test_allocations_are_waited_for_and_no_new_ones_made() -> None:
    """Whoever has a relay keeps it, others are refused with 508, and the last one to go ends the wait."""
    async with Server(CONFIG) as server, turn_client(server.stun, "user", "password") as client:
        await client.allocate()
        waiting = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        async with turn_client(server.stun, "user", "password") as late:
            late.client.allocate(late.pump.now)
            late.pump.flush()
            assert (await late.event(AllocationFailed)).code == 508
        await client.permit(Address("127.0.0.9", 9))
        assert not waiting.done()
        await client.close()
        async with asyncio.timeout(30):
            await waiting


async def test_clients_are_sent_elsewhere() -> None:
    """With another server named, new allocations are told to go there."""
    config = replace(CONFIG, alternate_server=Address("127.0.0.77", 3478))
    async with Server(config) as server, turn_client(server.stun, "user", "password") as client:
        await client.allocate()
        waiting = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        async with turn_client(server.stun, "user", "password") as late:
            late.client.allocate(late.pump.now)
            late.pump.flush()
            await until(lambda: vars(server)["_front"].counters.get("turn_refused_300", 0) > 0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_meetings_are_waited_for_and_nobody_else_gets_in() -> None:
    """Two sides that have met go on over their WebSockets; new connections are refused."""
    async with Server(CONFIG) as server:
        async with (
            connect(f"{server.url}/v1", proxy=None) as host,
            connect(f"{server.url}/v1", proxy=None) as join,
        ):
            await meet(host, join)
            waiting = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            # In the first moment it may still be let in by the kernel, and hears nothing then.
            with pytest.raises((OSError, InvalidMessage)):
                await connect(f"{server.url}/v1", proxy=None)
            await join.send(wire.encode(wire.Relay("sealed", b"still here")).decode())
            assert await hear(host) == wire.Relayed("sealed", b"still here")
            assert not waiting.done()
        async with asyncio.timeout(30):
            await waiting


async def test_the_wait_has_an_end() -> None:
    """After `drain` seconds what is left is ended."""
    async with (
        Server(replace(CONFIG, drain=0.3)) as server,
        turn_client(server.stun, "user", "password") as client,
    ):
        await client.allocate()
        async with asyncio.timeout(30):
            await server.drain()


async def test_a_process_in_use_ends_with_the_second_signal() -> None:
    """SIGTERM waits for a meeting, and a second one does not; the exit code is 0 all the same."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from crowline.cli import main; main()", "serve", "--json",
        "--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        url = json.loads(await process.stdout.readline())["url"]
        async with (
            connect(f"{url}/v1", proxy=None) as host,
            connect(f"{url}/v1", proxy=None) as join,
        ):
            await meet(host, join)
            process.terminate()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await process.wait()
            await join.send(wire.encode(wire.Relay("sealed", b"still here")).decode())
            assert await hear(host) == wire.Relayed("sealed", b"still here")
            process.terminate()
            async with asyncio.timeout(30):
                _, errors = await process.communicate()
        assert process.returncode == 0
        assert b"Traceback" not in errors
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
