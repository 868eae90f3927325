"""A side that has IPv6 alone meets one that has IPv4 alone: its network's NAT64 is found, and used."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crowline.lab import nat64
from crowline.lab.demo_stage import WEB_PORT, seat, serve_on
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host
from dns64 import dns64_answer

Factory = Callable[..., Internet]

# Seconds until a process that does nothing any more is ended.
PATIENCE = "60"
NAME_PORT = 53

MEET = """
import asyncio, sys
import crowline

async def talk(peer):
    while peer.path is None or not peer.path.is_direct:
        await asyncio.sleep(0.01)
    print("direct", peer.path.remote, flush=True)
    await asyncio.to_thread(sys.stdin.readline)

async def main(server, *code):
    if code:
        async with crowline.join(code[0], server) as peer:
            await talk(peer)
    else:
        async with crowline.host(server) as room:
            print(room.code, flush=True)
            await talk(await room.peer())

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def name_server(net: Internet, server: Host, address: str) -> Iterator[None]:
    """A resolver with DNS64 at that address."""
    names = net.socket(server, socket.SOCK_DGRAM, address, NAME_PORT)

    def answer() -> None:
        with suppress(OSError):
            while (got := names.recvfrom(1500))[0]:
                names.sendto(dns64_answer(got[0]), got[1])

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        # Closing alone does not wake the thread.
        with suppress(OSError):
            names.shutdown(socket.SHUT_RDWR)
        thread.join(30.0)
        names.close()


def test_a_side_without_ipv4_goes_direct(internet: Factory, tmp_path: Path) -> None:
    """Its checks go to the other side's IPv4 address, written as its network's translator understands it."""
    net = internet("user")
    server, mobile, home = net.server(), net.site("nat64"), net.site("home")
    url = serve_on(net, server, tmp_path)
    ipv4, ipv6 = (
        next(each for each in server.addresses if (":" in each) is wanted) for wanted in (False, True)
    )
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {ipv6}\n")
    mount = ["sh", "-c", 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"', "sh", str(resolver)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    program = ["timeout", PATIENCE, sys.executable, "-c", MEET]
    with name_server(net, server, ipv6):
        away = f"ws://[{nat64.synthesized(ipv4)}]:{WEB_PORT}"
        here = seat(net, mobile, tmp_path).spawn([*mount, *program, away], **pipes)
        code = here.stdout.readline().strip()
        there = seat(net, home, tmp_path).spawn([*program, url, code], **pipes)
        assert here.stdout.readline().startswith(f"direct [{nat64.synthesized(home.outside[0])}]:")
        assert there.stdout.readline().startswith("direct ")
        for side in (here, there):
            print(file=side.stdin, flush=True)
