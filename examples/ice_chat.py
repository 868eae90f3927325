"""Two terminals that find a path by copy and paste: run `call` in one and `answer` in the other.

    python examples/ice_chat.py call|answer [--stun SERVER[:PORT]] [--turn SERVER[:PORT] --user USER]

Each prints lines (RFC 8839) to paste into the other, all of them as far as `end-of-candidates`. When the
first has heard the other's, there are 39 seconds to carry the rest. Then each line that is typed appears on
the other side, until the end of the input. A TURN password is read from TURN_PASSWORD.

Nothing is encrypted here: ICE finds a path, and proves that whoever is there was told the password.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from typing import Any

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError
from crowline.base.machine import Transmit
from crowline.ice import IceEvent
from crowline.net import IceConnection, TurnAccount, address_of, local_addresses

PATIENCE = 5.0  # seconds for the servers to answer


class OwnSocket(asyncio.DatagramProtocol):
    """One of this program's sockets. The connection reads them all and sends by each."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.local = address_of(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.ends.connection.receive(data, address_of(*addr[:2]), self.local)


class Ends:
    """The sockets of this side, by their addresses, and the connection over them."""

    def __init__(self, controlling: bool) -> None:
        self.sockets: dict[Address, OwnSocket] = {}
        self.connection = IceConnection(
            controlling,
            send=self.send,
            tell=lambda line: print(line, flush=True),
            on_data=lambda data: print(f"> {bytes(data).decode(errors='replace')}", flush=True),
            on_event=self.note,
        )

    async def open(self) -> None:
        """A socket at each address of this machine."""
        loop = asyncio.get_running_loop()
        for host in local_addresses(loopback=True):
            _, own = await loop.create_datagram_endpoint(lambda: OwnSocket(self), local_addr=(host, 0))
            self.sockets[own.local] = own
            self.connection.add_socket(own.local)

    def send(self, transmit: Transmit) -> None:
        assert transmit.local is not None  # a connection says by which of its sockets
        destination = (transmit.destination.host, transmit.destination.port)
        self.sockets[transmit.local].transport.sendto(transmit.data, destination)

    def note(self, event: IceEvent) -> None:
        print(f"({type(event).__name__})", file=sys.stderr, flush=True)


async def standard_input() -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def resolve(server: str) -> Address:
    host, _, port = server.partition(":")
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, int(port or 3478), family=socket.AF_INET)
    return address_of(*found[0][4][:2])


async def main(options: argparse.Namespace) -> None:
    stun = [await resolve(options.stun)] if options.stun else []
    turn = []
    if options.turn:
        password = os.environ["TURN_PASSWORD"]
        turn.append(TurnAccount(await resolve(options.turn), options.user, password))
    ends = Ends(controlling=options.role == "call")
    await ends.open()
    gathering = asyncio.create_task(ends.connection.gather(stun, turn, timeout=PATIENCE))
    try:
        await chat(ends.connection, await standard_input())
    finally:
        gathering.cancel()
        await ends.connection.close()


async def chat(connection: IceConnection, lines: asyncio.StreamReader) -> None:
    """What is typed is signalling at first, and for the other side after that."""
    line = ""
    while line.strip() != "end-of-candidates":
        line = (await lines.readuntil()).decode()
        connection.hear(line)
    pair = await connection.connected()
    print(f"connected ({pair.kind}) {pair.local.address} to {pair.remote.address}", flush=True)
    while line := (await lines.readline()).decode():
        connection.send(line.rstrip("\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["call", "answer"])
    parser.add_argument("--stun")
    parser.add_argument("--turn")
    parser.add_argument("--user", default="")
    try:
        asyncio.run(main(parser.parse_args()))
    except (CrowlineError, asyncio.IncompleteReadError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
