"""A host whose address is replaced in the middle of a transfer goes on from the new one."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checked_transfer import RECEIVER
from crowline.lab.demo_stage import seat, serve_on
from crowline.lab.kernel import ip
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host, Site

Factory = Callable[..., Internet]

# Seconds until a process that does nothing any more is ended; what has to happen takes one or two.
PATIENCE = "60"

# Says the code, and "direct" at the first direct path; told to watch, it says "moved" at the next one, which
# has another address or port at one of its ends.
SENDER = """
import asyncio, hashlib, os, sys
import crowline

async def main(server):
    async with crowline.host(server) as room:
        print(room.code, flush=True)
        peer = await room.peer()
        stream = await peer.open_stream()
        checksum, size = hashlib.sha256(), 0

        async def write_until_direct(before):
            nonlocal size
            while True:
                path = peer.path
                if path is not None and path.is_direct and (path.local, path.remote) != before:
                    return path.local, path.remote
                part = os.urandom(20_000)
                checksum.update(part)
                size += len(part)
                await stream.write(part)
                await asyncio.sleep(0.005)

        await write_until_direct(None)
        print("direct", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        before = await write_until_direct(None)
        print("watching", flush=True)
        await write_until_direct(before)
        print("moved", flush=True)
        await stream.close()
        heard = (await stream.read()).decode()
        print("whole" if heard == f"{size} {checksum.hexdigest()}" else f"broken: {heard}", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def replace_address(host: Host) -> None:
    """Another address of the same network, as after a new lease: the old one goes, then the new one comes."""
    [before] = [each for each in host.addresses if ":" not in each]
    network = ipaddress.ip_network(f"{before}/24", strict=False)
    after, gateway = network[200], network[1]
    ip(
        host.namespace,
        f"addr del {before}/24 dev eth0",
        f"addr add {after}/24 dev eth0",
        f"route replace 0.0.0.0/0 via {gateway} dev eth0",
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_a_transfer_survives_a_new_address(internet: Factory, tmp_path: Path, who: str) -> None:
    """Behind its NAT a host gets another address: hub, relay and direct link of before are dead, the bytes
    go on, each once, and the path becomes direct again."""
    net = internet("kernel")
    left, right = net.site("home"), net.site("home")
    url = serve_on(net, net.server(), tmp_path)

    def start(site: Site, program: str, *arguments: str) -> subprocess.Popen[str]:
        argv = ["timeout", PATIENCE, sys.executable, "-c", program, url, *arguments]
        return seat(net, site, tmp_path).spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    sender = start(left, SENDER)
    start(right, RECEIVER, line_of(sender))
    assert line_of(sender) == "direct"
    assert sender.stdin is not None
    print("watch", file=sender.stdin, flush=True)
    assert line_of(sender) == "watching"
    replace_address((left if who == "sender" else right).hosts[0])
    assert line_of(sender) == "moved"
    assert line_of(sender) == "whole"
