"""Everything between two processes goes away at once and comes back without memory: the session goes on."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from checked_transfer import RECEIVER
from crowline.lab.demo_stage import STUN_PORT, WEB_PORT, seat
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host, Site
from needs import needs_program

Factory = Callable[..., Internet]

# Seconds until a process that does nothing any more is ended; what has to happen takes a few.
PATIENCE = "90"
FOREVER = 10_000_000

# Writes all the time; says the code, "direct", "lost" as soon as people are told, and "back" when more has
# been taken than can be on its way. Told to go on, it waits for the next of these.
SENDER = """
import asyncio, hashlib, os, sys
import crowline

async def main(server):
    async with crowline.host(server) as room:
        lost = []
        room.on_warning(lost.append)
        print(room.code, flush=True)
        peer = await room.peer()
        stream = await peer.open_stream()
        checksum, size = hashlib.sha256(), 0

        async def write_until(condition):
            nonlocal size
            while not condition():
                part = os.urandom(20_000)
                try:
                    async with asyncio.timeout(0.1):
                        await stream.write(part)
                except TimeoutError:
                    pass
                checksum.update(part)
                size += len(part)
                await asyncio.sleep(0.005)

        async def say(word):
            print(word, flush=True)
            await asyncio.to_thread(sys.stdin.readline)

        await write_until(lambda: peer.path is not None and peer.path.is_direct)
        await say("direct")
        await write_until(lambda: lost)
        await say("lost: " + lost[-1])
        before = sum(peer.carried.values())
        await write_until(lambda: sum(peer.carried.values()) > before + (24 << 20))
        await say("back")
        await stream.close()
        heard = (await stream.read()).decode()
        print("whole" if heard == f"{size} {checksum.hexdigest()}" else f"broken: {heard}", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def nft(net: Internet, site: Site, command: str) -> None:
    """Have nftables do something at the site's host."""
    process = net.spawn_in(site.hosts[0].namespace, [needs_program("nft"), command])
    assert process.wait(timeout=30) == 0


def pull_the_cable(net: Internet, site: Site) -> None:
    """Nothing arrives at the host any more, and nothing leaves it; no error tells that."""
    nft(net, site, "add table netdev cut")
    for hook in ("ingress", "egress"):
        rule = f"type filter hook {hook} device eth0 priority 0 ; policy drop ;"
        nft(net, site, f"add chain netdev cut {hook} {{ {rule} }}")


def serve(net: Internet, host: Host) -> subprocess.Popen[bytes]:
    """A server on that host, which takes connections."""
    web, stun = (f"{host.addresses[0]}:{port}" for port in (WEB_PORT, STUN_PORT))
    argv = [sys.executable, "-m", "crowline", "serve", "--listen", web, "--stun-listen", stun]
    argv += ["--alternate-address", host.addresses[1]]
    quiet = subprocess.DEVNULL
    process = net.spawn(host, argv, stdout=quiet, stderr=quiet)

    def connect() -> None:
        socket.create_connection((host.addresses[0], WEB_PORT), timeout=1.0).close()

    deadline = time.monotonic() + 30.0
    while True:
        try:
            net.inside(host, connect)
            return process
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_session_outlives_cables_translators_and_the_server(internet: Factory, tmp_path: Path) -> None:
    """Both cables are pulled, both translators and the server forget everything: each byte arrives once."""
    net = internet("kernel")
    left, right = net.site("home"), net.site("home")
    host = net.server()
    server = serve(net, host)
    url = f"ws://{host.addresses[0]}:{WEB_PORT}"

    def start(site: Site, program: str, *arguments: str) -> subprocess.Popen[str]:
        argv = ["timeout", PATIENCE, sys.executable, "-c", program, url, *arguments]
        return seat(net, site, tmp_path).spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    sender = start(left, SENDER)
    assert sender.stdin is not None
    start(right, RECEIVER, line_of(sender))
    assert line_of(sender) == "direct"
    for site in (left, right):
        pull_the_cable(net, site)
    server.kill()
    server.wait()
    net.advance(FOREVER)
    print("go on", file=sender.stdin, flush=True)
    assert line_of(sender).startswith("lost: The path broke")
    serve(net, host)
    for site in (left, right):
        nft(net, site, "delete table netdev cut")
    for word in ("back", "whole"):
        print("go on", file=sender.stdin, flush=True)
        assert line_of(sender) == word
