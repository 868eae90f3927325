"""Two terminals that find a path by copy and paste: run `call` in one and `answer` in the other.

    python examples/ice_chat.py call|answer [--tcp] [--stun SERVER[:PORT]] [--turn SERVER[:PORT] --user USER]

Each prints lines (RFC 8839) to paste into the other, all of them as far as `end-of-candidates`. When the
first has heard the other's, there are 39 seconds to carry the rest. Then each line that is typed appears on
the other side, until the end of the input. With --tcp, a path by TCP will do where no datagram comes
through. A TURN password is read from TURN_PASSWORD.

Nothing is encrypted here: ICE finds a path, and proves that whoever is there was told the password.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
import threading
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

    async def open(self, *, tcp: bool) -> None:
        """A socket at each address of this machine, and with `tcp` a TCP port."""
        loop = asyncio.get_running_loop()
        for host in local_addresses(loopback=True):
            with contextlib.suppress(OSError):  # the address has just gone, or is not ready yet
                _, own = await loop.create_datagram_endpoint(lambda: OwnSocket(self), local_addr=(host, 0))
                self.sockets[own.local] = own
                self.connection.add_socket(own.local)
                if tcp:
                    self.connection.open_tcp(Address(host, 0))

    def send(self, transmit: Transmit) -> None:
        assert transmit.local is not None  # a connection says by which of its sockets
        destination = (transmit.destination.host, transmit.destination.port)
        self.sockets[transmit.local].transport.sendto(transmit.data, destination)

    def note(self, event: IceEvent) -> None:
        print(f"({type(event).__name__})", file=sys.stderr, flush=True)


def standard_input() -> asyncio.StreamReader:
    """What is typed. A thread reads it, since no event loop can wait for terminals and files everywhere."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and so has the program
            while data := os.read(sys.stdin.fileno(), 4096):
                loop.call_soon_threadsafe(reader.feed_data, data)
            loop.call_soon_threadsafe(reader.feed_eof)

    threading.Thread(target=read, daemon=True).start()
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
        password = os.environ.get("TURN_PASSWORD", "")
        turn.append(TurnAccount(await resolve(options.turn), options.user, password))
    ends = Ends(controlling=options.role == "call")
    await ends.open(tcp=options.tcp)
    gathering = asyncio.create_task(ends.connection.gather(stun, turn, timeout=PATIENCE))
    try:
        await chat(ends.connection, standard_input())
    finally:
        gathering.cancel()
        await ends.connection.close()


async def chat(connection: IceConnection, lines: asyncio.StreamReader) -> None:
    """What is typed is signalling at first, and for the other side after that."""
    line = ""
    while line.strip() != "end-of-candidates":
        line = (await lines.readline()).decode(errors="replace")
        if not line:
            raise EOFError("The input ended before the other side's lines did.")
        connection.hear(line)
    pair = await connection.connected()
    print(f"connected ({pair.kind}) {pair.local.address} to {pair.remote.address}", flush=True)
    while typed := await lines.readline():
        connection.send(typed.rstrip(b"\r\n"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["call", "answer"])
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--stun")
    parser.add_argument("--turn")
    parser.add_argument("--user", default="")
    options = parser.parse_args()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(options))
    except (CrowlineError, OSError, ValueError, EOFError) as error:  # no path, no such name, no such port, …
        sys.exit(str(error))
