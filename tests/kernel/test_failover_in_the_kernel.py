"""A direct path that dies in the middle of a transfer, and comes back: the relay carries on meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checked_transfer import RECEIVER
from crowline.lab.demo_stage import seat, serve_on
from crowline.lab.namespaces import Internet
from crowline.lab.places import Site
from needs import needs_program

Factory = Callable[..., Internet]

# Seconds until a process that does nothing any more is ended; what has to happen takes a few.
PATIENCE = "90"

# Writes all the time; says the code, and then each kind of path that it waits for. Told to go on, it waits
# for the next kind.
SENDER = """
import asyncio, hashlib, os, sys
import crowline

async def main(server):
    async with crowline.host(server) as room:
        print(room.code, flush=True)
        peer = await room.peer()
        stream = await peer.open_stream()
        checksum, size = hashlib.sha256(), 0
        for kind in ("direct", "relay", "direct"):
            while peer.path is None or peer.path.kind != kind:
                part = os.urandom(20_000)
                checksum.update(part)
                size += len(part)
                await stream.write(part)
                await asyncio.sleep(0.005)
            print(kind, flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        await stream.close()
        heard = (await stream.read()).decode()
        print("whole" if heard == f"{size} {checksum.hexdigest()}" else f"broken: {heard}", flush=True)

asyncio.run(main(*sys.argv[1:]))
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


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("deaf", ["both", "sender", "receiver"])
def test_a_transfer_goes_on_by_the_relay_and_returns(internet: Factory, tmp_path: Path, deaf: str) -> None:
    """In both directions or in one only: the relay takes over, then the direct path again; each byte once."""
    net = internet("kernel")
    left, right = net.site("home"), net.site("home")
    url = serve_on(net, net.server(), tmp_path)

    def start(site: Site, program: str, *arguments: str) -> subprocess.Popen[str]:
        argv = ["timeout", PATIENCE, sys.executable, "-c", program, url, *arguments]
        return seat(net, site, tmp_path).spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    sender = start(left, SENDER)
    assert sender.stdin is not None
    start(right, RECEIVER, line_of(sender))
    assert line_of(sender) == "direct"
    ends = [(left, right), (right, left)]
    cuts = {"both": ends, "sender": ends[:1], "receiver": ends[1:]}[deaf]
    for own, other in cuts:
        cut(net, own, other)
    print("go on", file=sender.stdin, flush=True)
    assert line_of(sender) == "relay"
    for own, _ in cuts:
        nft(net, own, "delete table inet cut")
    print("go on", file=sender.stdin, flush=True)
    assert line_of(sender) == "direct"
    print("go on", file=sender.stdin, flush=True)
    assert line_of(sender) == "whole"
