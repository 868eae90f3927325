"""Headless Chromium with a page of ours that talks to a test over HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from needs import needs_program

Answer: TypeAlias = Callable[[str, Any], Awaitable[Any]]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--no-proxy-server", "--allow-loopback-in-peer-connection",
)  # fmt: skip


@asynccontextmanager
async def chromium(folder: Path, page: str, answer: Answer, *flags: str) -> AsyncIterator[None]:
    """Chromium has opened `page`, which may `fetch` any path with a JSON body: `answer(path, body)`.

    It finds network interfaces as it always does, and loopback besides.
    """
    program = needs_program("chromium", "chromium-browser", "google-chrome")
    server = await asyncio.start_server(
        lambda reader, writer: _serve(reader, writer, page, answer), "127.0.0.1", 0
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server:
        process = await asyncio.create_subprocess_exec(
            program, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", url,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            # Its processes are in a session of their own.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: str, answer: Answer
) -> None:
    """One request, one answer; connections that the browser opens for later are closed by it."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        method, path = (await reader.readuntil(b" ")).decode(), (await reader.readuntil(b" ")).decode()
        headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if method == "POST ":
            _, _, length = headers.partition("content-length:")
            body = await reader.readexactly(int(length.split()[0]))
            kind, data = "application/json", json.dumps(await answer(path.strip(), json.loads(body)))
        else:
            kind, data = "text/html", page
        head = f"Content-Type: {kind}; charset=utf-8\r\nContent-Length: {len(data.encode())}"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\nConnection: close\r\n\r\n{data}".encode())
        await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
