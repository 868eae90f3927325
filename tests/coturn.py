"""A running `turnserver` of coturn on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from certificates import SelfSigned, self_signed
from needs import needs_program

PATIENCE = 30.0  # seconds until it must listen
LOGIN = ("alice", "a password")


def free_ports(host: str, count: int) -> list[int]:
    """Ports that were free a moment ago, for UDP and TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found: list[int] = []
    with socket.socket(family, socket.SOCK_STREAM) as tcp:
        tcp.bind((host, 0))
        start = tcp.getsockname()[1]
    for port in range(start, 65000):
        with (
            socket.socket(family, socket.SOCK_STREAM) as tcp,
            socket.socket(family, socket.SOCK_DGRAM) as udp,
            suppress(OSError),
        ):
            tcp.bind((host, port))
            udp.bind((host, port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@asynccontextmanager
async def coturn(
    folder: Path,
    *options: str,
    host: str = "127.0.0.1",
    certificate: SelfSigned | None = None,
    login: Sequence[str] = ("-a", "-u", ":".join(LOGIN)),
) -> AsyncIterator[tuple[int, int]]:
    """The ports of a running turnserver, plain and TLS."""
    program = needs_program("turnserver")
    plain, secure = free_ports(host, 2)
    files = certificate or self_signed(folder, f"turn{plain}.test")
    command = [
        program, "-n", "-L", host, "-E", host, "-p", str(plain), "--tls-listening-port", str(secure),
        "-r", "example.org", *login, "--no-dtls", "--no-cli",
        "--allow-loopback-peers", "--no-stdout-log", "-l", str(folder / "log"), "--no-rfc5780",
        "--pidfile", str(folder / f"pid{plain}"), "-b", str(folder / f"db{plain}"),
        "--cert", str(files.certificate), "--pkey", str(files.key), *options,
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await _listens(host, plain)
        yield plain, secure
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listens(host: str, port: int) -> None:
    """Wait until connections are taken."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.02)
