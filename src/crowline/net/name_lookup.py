"""The system's name service, asked in a way that nothing has to wait for."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress


async def look_up(name: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[str]:
    """The addresses of `name`, an interface's name after a ``%`` where they have one. Raises `OSError` where
    there are none, `ValueError` for what cannot be a name.

    The system's call cannot be broken off, and a name server that is silent holds it up for half a minute. It
    runs in a thread that the end of the program does not wait for, as it would for one of the loop's own.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def tell(hosts: list[str], problem: Exception | None) -> None:
        if answer.done():
            return
        if problem is not None:
            answer.set_exception(problem)
        else:
            answer.set_result(hosts)

    def ask() -> None:
        hosts: list[str] = []
        problem: Exception | None = None
        try:
            found = socket.getaddrinfo(name, None, family=family, type=socket.SOCK_DGRAM)
            hosts = [str(entry[4][0]) for entry in found]
        except (OSError, ValueError) as error:
            problem = error
        # The loop may be over.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, hosts, problem)

    threading.Thread(target=ask, name=f"look up {name}", daemon=True).start()
    return await answer
