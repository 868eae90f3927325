"""The worked examples of the library, run as programs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from crowline.base.addresses import Address
from datagram_endpoint import endpoint
from turn_front import front

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60.0  # seconds until something must have happened
# Not the server's own host: a port of that which lies in the relay's range is taken for another allocation.
PEER_HOST = "127.0.0.2"


@asynccontextmanager
async def program(name: str, *arguments: str) -> AsyncIterator[Process]:
    """That example, which is stopped by Ctrl-C at the end if it still runs, and has to end well."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *arguments,
        stdin=PIPE,
        stdout=PIPE,
        env=os.environ | {"TURN_PASSWORD": "password"},
    )
    try:
        yield running
        if running.returncode is None:
            running.send_signal(signal.SIGINT)
        assert await running.wait() == 0
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
        await drain(running)


async def drain(running: Process) -> None:
    """Read to the end of what the program said, so that its pipe closes."""
    assert running.stdin is not None and running.stdout is not None
    running.stdin.close()
    await running.stdout.read()


async def said(running: Process) -> str:
    """The next line."""
    assert running.stdout is not None
    line = (await running.stdout.readline()).decode()
    assert line, "the program has ended"
    return line.rstrip("\n")


async def tell(running: Process, *lines: str) -> None:
    assert running.stdin is not None
    running.stdin.write("".join(f"{line}\n" for line in lines).encode())
    await running.stdin.drain()


async def test_stun_address() -> None:
    """It says what two servers see, that a third is mute, and goes on to use its socket."""
    async with front() as first, front() as second, endpoint() as friend, asyncio.timeout(PATIENCE):
        servers = [str(running.address) for running in (first, second)]
        async with program("stun_address.py", *servers) as running:
            port = int((await said(running)).removeprefix("local port "))
            for server in servers:
                assert await said(running) == f"{server} sees 127.0.0.1:{port}"
            friend.write(b"hello", Address("127.0.0.1", port))
            assert await said(running) == f"{friend.local} says b'hello'"


async def test_turn_echo() -> None:
    """A peer speaks to the relayed address and hears its own words in capitals."""
    async with (
        front() as server,
        endpoint(PEER_HOST) as peer,
        asyncio.timeout(PATIENCE),
        program("turn_echo.py", str(server.address), "user", PEER_HOST) as running,
    ):
        first, _, _ = (await said(running)).partition(";")
        host, _, port = first.removeprefix("relayed ").partition(":")
        relayed = Address(host, int(port))
        peer.write(b"can you hear me?", relayed)
        assert await peer.others.get() == (b"CAN YOU HEAR ME?", relayed)


@pytest.mark.parametrize("relayed", [False, True], ids=["plain", "with servers"])
async def test_ice_chat(relayed: bool) -> None:
    """Lines that are pasted into the other terminal are all it takes; then what is typed appears there."""
    async with front() as server, asyncio.timeout(PATIENCE):
        address = str(server.address)
        servers = ["--tcp", "--stun", address, "--turn", address, "--user", "user"] if relayed else []
        async with (
            program("ice_chat.py", "call", *servers) as caller,
            program("ice_chat.py", "answer", *servers) as answerer,
        ):
            await paste(caller, answerer)
            await paste(answerer, caller)
            for running in (caller, answerer):
                assert (await said(running)).startswith("connected (")
            await tell(caller, "hello")
            assert await said(answerer) == "> hello"
            await tell(answerer, "who is it?")
            assert await said(caller) == "> who is it?"
            for running in (caller, answerer):
                assert running.stdin is not None
                running.stdin.close()
                await running.wait()


async def paste(one: Process, other: Process) -> None:
    """Carry what one side prints to the other, by hand."""
    lines = [await said(one)]
    while lines[-1] != "end-of-candidates":
        lines.append(await said(one))
    await tell(other, *lines)
