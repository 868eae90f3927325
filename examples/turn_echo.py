"""An echo service that is reached at a TURN server: `python examples/turn_echo.py SERVER[:PORT] USER PEER…`

The password is read from TURN_PASSWORD. PEERs are the IP addresses that may speak to the service, from any
port; each datagram of theirs comes back in capitals. Everything travels by one UDP socket to the server, so
that no NAT of ours has to let anybody in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import Any

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError
from crowline.base.machine import Transmit
from crowline.net import RelayedAddress, TurnAccount, address_of


class OwnSocket(asyncio.DatagramProtocol):
    """An ordinary datagram endpoint, whose datagrams from the server are the relay's."""

    def __init__(self, account: TurnAccount) -> None:
        self.relay = RelayedAddress(account, send=self.send, on_data=self.echo, on_lost=self.lost)
        self.is_lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.relay.receive(data, address_of(*addr[:2]))

    def send(self, transmit: Transmit) -> None:
        self.transport.sendto(transmit.data, (transmit.destination.host, transmit.destination.port))

    def echo(self, data: memoryview, peer: Address) -> None:
        self.relay.send(bytes(data).upper(), peer)

    def lost(self, reason: str) -> None:
        print(f"lost: {reason}", flush=True)
        self.is_lost.set()


async def main(server: str, user: str, password: str, peers: list[Address]) -> None:
    loop = asyncio.get_running_loop()
    host, _, port = server.partition(":")
    found = await loop.getaddrinfo(host, int(port or 3478), family=socket.AF_INET)
    account = TurnAccount(address_of(*found[0][4][:2]), user, password)
    _, own = await loop.create_datagram_endpoint(lambda: OwnSocket(account), local_addr=("0.0.0.0", 0))
    try:
        allocated = await own.relay.allocate()
        for peer in peers:
            await own.relay.permit(peer)
        print(f"relayed {allocated.relayed}; the server sees {allocated.mapped}", flush=True)
        await own.is_lost.wait()
    finally:
        await own.relay.close()  # without that the server keeps the address for ten minutes


if __name__ == "__main__":
    if len(sys.argv) < 3 or "TURN_PASSWORD" not in os.environ:
        sys.exit("Usage: TURN_PASSWORD=… turn_echo.py SERVER[:PORT] USER PEER…")
    try:
        peers = [Address.parse(peer, 0) for peer in sys.argv[3:]]
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(sys.argv[1], sys.argv[2], os.environ["TURN_PASSWORD"], peers))
    except (CrowlineError, OSError, ValueError) as error:  # a refusal, no such name, no such address
        sys.exit(str(error))
