"""Programs that other people wrote, as processes of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from turn_socket import PATIENCE

PROGRAM_TIME = 90.0  # seconds; coturn's client alone takes about five


async def run(*command: str) -> str:
    """What a program prints until it ends; it must end well."""
    code, output = await end_of(*command)
    assert code == 0, output
    return output


async def end_of(*command: str) -> tuple[int | None, str]:
    """Exit code and all that a program prints; one that takes too long is killed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(PROGRAM_TIME):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(errors="replace")


@asynccontextmanager
async def background(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that runs for as long as the block."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
