"""A server in a thread of the tests' own process, for commands that are processes: none is started for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from serving import serving

PATIENCE = 30.0  # seconds for it to start, and to end


@contextmanager
def served() -> Iterator[str]:
    """Its URL, on loopback."""
    ready: Future[str] = Future()
    loops: list[asyncio.AbstractEventLoop] = []
    stopping = asyncio.Event()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with serving() as server:
            ready.set_result(server.url)
            await stopping.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ready.result(PATIENCE)
    finally:
        if loops:
            loops[0].call_soon_threadsafe(stopping.set)
        thread.join(PATIENCE)
    assert not thread.is_alive()
