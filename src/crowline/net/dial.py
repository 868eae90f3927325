"""A TCP connection to a host by name, made soon also where the network only comes back in the meantime."""

from __future__ import annotations

import asyncio
import socket
from itertools import count

from crowline.net.name_lookup import look_up

# Seconds until the next address of the host is tried beside those before it (RFC 8305 §5).
NEXT_ADDRESS = 0.25
# Seconds until all are tried once more beside the attempts that there are: the kernel sends the first packet
# of an attempt again after 1, 3 and 7 s, and a network that is back would have to wait for that.
ONCE_MORE = 1.5
# Addresses of one host that are tried: one or two of each family.
MAX_ADDRESSES = 4


async def dial(host: str, port: int) -> socket.socket:
    """The first connection that comes about, however long that takes; the others are given up.

    Raises `OSError` as soon as each address has refused, or where there is none; `ValueError` for what cannot
    be a name.
    """
    hosts = await look_up(host)
    return await _race(list(dict.fromkeys(hosts))[:MAX_ADDRESSES], port)


async def _race(hosts: list[str], port: int) -> socket.socket:
    refusal = OSError("The host has no address.")
    attempts: dict[asyncio.Task[socket.socket], str] = {}
    try:
        for turn in count():
            if not hosts:
                raise refusal
            host = hosts[turn % len(hosts)]
            attempts[asyncio.create_task(_attempt(host, port))] = host
            pause = NEXT_ADDRESS if (turn + 1) % len(hosts) else ONCE_MORE
            done, _ = await asyncio.wait(set(attempts), timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                host = attempts.pop(attempt)
                try:
                    return attempt.result()
                except OSError as error:
                    refusal = error
                    hosts = [each for each in hosts if each != host]
        raise AssertionError("the turns never end")
    finally:
        await _give_up(attempts)


async def _attempt(host: str, port: int) -> socket.socket:
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _give_up(attempts: dict[asyncio.Task[socket.socket], str]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for late in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(late, socket.socket):
            late.close()
