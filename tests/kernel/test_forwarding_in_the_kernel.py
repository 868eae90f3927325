"""Ports forwarded between two networks behind NATs, for programs that stay connected as the path changes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crowline.lab.demo_stage import seat, serve_on
from crowline.lab.demo_transfer import CROWLINE
from crowline.lab.namespaces import Internet
from crowline.lab.places import Site
from needs import needs_program

Factory = Callable[..., Internet]

# Seconds until a process that does nothing any more is ended; what has to happen takes a few.
PATIENCE = "90"

# Says its port, the same for both protocols, and gives back what comes, in capitals.
SERVICE = """
import asyncio

class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, source):
        self.transport.sendto(data.upper(), source)

async def talk(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
    writer.close()

async def main():
    server = await asyncio.start_server(talk, "127.0.0.1", 7000)
    await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, ("127.0.0.1", 7000))
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

# Sends each line of its input by one TCP connection, and each that begins with "udp" as a datagram until it
# is answered; says what came back.
CLIENT = """
import socket, sys

tcp_port, udp_port = map(int, sys.argv[1:])
connection = socket.create_connection(("127.0.0.1", tcp_port)).makefile("rw")
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.connect(("127.0.0.1", udp_port))
datagrams.settimeout(1)
for line in sys.stdin:
    if not line.startswith("udp"):
        print(line, end="", file=connection, flush=True)
        print(connection.readline(), end="", flush=True)
        continue
    answer = b""
    while answer != line.upper().encode():
        try:
            datagrams.send(line.encode())
            answer = datagrams.recv(1000)
        except OSError:
            continue
    print(answer.decode(), end="", flush=True)
"""


def nft(net: Internet, site: Site, command: str) -> None:
    """Have nftables do something at the site's host."""
    process = net.spawn_in(site.hosts[0].namespace, [needs_program("nft"), command])
    assert process.wait(timeout=30) == 0


def cut(net: Internet, deaf: Site, other: Site) -> None:
    """Nothing of the other site arrives at the host any more, and no error tells that."""
    nft(net, deaf, "add table inet cut")
    nft(net, deaf, "add chain inet cut in { type filter hook input priority 0 ; }")
    nft(net, deaf, f"add rule inet cut in ip saddr {other.outside[0]} drop")


def next_object(process: subprocess.Popen[str], type_: str, /, **fields: object) -> dict[str, Any]:
    """The next object of that kind with these fields."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["t"] == type_ and found | fields == found:
            return found
    raise AssertionError(f"it ended without {type_} {fields}")


def test_programs_stay_connected_while_the_path_breaks_and_returns(internet: Factory, tmp_path: Path) -> None:
    """A TCP connection and datagrams, direct, then by the relay, then direct again; each line just once."""
    net = internet("kernel")
    left, right = net.site("home"), net.site("home")
    url = serve_on(net, net.server(), tmp_path)

    def start(site: Site, *argv: str) -> subprocess.Popen[str]:
        return seat(net, site, tmp_path).spawn(
            ["timeout", PATIENCE, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def forward(site: Site, *arguments: str) -> subprocess.Popen[str]:
        return start(site, *CROWLINE, "forward", *arguments, "--json", "--server", url, "--no-port-mapping")

    service = start(right, sys.executable, "-c", SERVICE)
    assert service.stdout is not None and service.stdout.readline() == "ready\n"
    sharing = forward(right, "--allow", "localhost:7000")
    rules = ["-L", "0:localhost:7000", "-L", "0:localhost:7000/udp"]
    using = forward(left, next_object(sharing, "code")["code"], *rules)
    ports = [next_object(using, "rule", state="ready")["where"].rpartition(":")[2] for _ in range(2)]
    client = start(left, sys.executable, "-c", CLIENT, *ports)
    assert client.stdin is not None and client.stdout is not None

    def both_answer(word: str) -> None:
        assert client.stdin is not None and client.stdout is not None
        for text in (f"tcp {word}\n", f"udp {word}\n"):
            client.stdin.write(text)
            client.stdin.flush()
            assert client.stdout.readline() == text.upper()

    both_answer("one")
    cut(net, left, right)
    cut(net, right, left)
    both_answer("two")
    next_object(using, "path", kind="relay", was="direct")
    both_answer("three")
    for site in (left, right):
        nft(net, site, "delete table inet cut")
    next_object(using, "path", kind="direct", was="relay")
    both_answer("four")
    client.stdin.close()
    assert client.wait(30) == 0
    sent = sum(len(f"tcp {word}\n") for word in ("one", "two", "three", "four"))
    assert next_object(using, "connection", state="closed", reason="")["sent"] == sent
