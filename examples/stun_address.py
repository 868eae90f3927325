"""Under which address do STUN servers see this socket? `python examples/stun_address.py SERVER[:PORT]…`

The socket is this program's own, and goes on to be used: whatever else arrives there is printed, until
Ctrl-C. With two servers at different hosts one sees what kind of NAT is in between: where both see the same
address, a friend who is told it can reach this socket, once a datagram has gone to the friend.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError
from crowline.base.machine import Transmit
from crowline.net import Binding, address_of


class OwnSocket(asyncio.DatagramProtocol):
    """An ordinary datagram endpoint: answers to questions go to `binding`, all else is this program's."""

    def __init__(self) -> None:
        self.binding = Binding(self.send)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        source = address_of(*addr[:2])
        if not self.binding.receive(data, source):
            print(f"{source} says {data!r}", flush=True)

    def send(self, transmit: Transmit) -> None:
        self.transport.sendto(transmit.data, (transmit.destination.host, transmit.destination.port))


async def resolve(server: str) -> Address:
    """By IPv4, the family of the socket."""
    host, _, port = server.partition(":")
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, int(port or 3478), family=socket.AF_INET)
    return address_of(*found[0][4][:2])


async def main(servers: list[str]) -> None:
    loop = asyncio.get_running_loop()
    transport, own = await loop.create_datagram_endpoint(OwnSocket, local_addr=("0.0.0.0", 0))
    print(f"local port {transport.get_extra_info('sockname')[1]}", flush=True)
    for server in servers:
        try:
            seen = await own.binding.ask(await resolve(server))
        except (CrowlineError, OSError, ValueError) as error:  # no answer, no such name, no such port
            print(f"{server}: {error}", flush=True)
        else:
            print(f"{server} sees {seen.address}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Say which server to ask: stun_address.py SERVER[:PORT]…")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1:]))
