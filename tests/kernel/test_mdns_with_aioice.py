"""Names by multicast, between two machines on one cable, with a program that we did not write."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from crowline.lab.kernel import await_running, ip
from crowline.lab.namespaces import Internet

Factory = Callable[..., Internet]

# Seconds until a process that does nothing any more is ended.
PATIENCE = "60"

# Both say a name for their address, are told another one, and say what it stands for.
OURS = """
import asyncio, sys
from crowline.net import mdns

async def main(host):
    mdns.RESOLVE_LIMIT = 30.0
    names = mdns.MdnsNames([host])
    print(names.name_of(host), flush=True)
    name = await asyncio.to_thread(sys.stdin.readline)
    print(await names.resolve(name.strip()), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    names.close()

asyncio.run(main(sys.argv[1]))
"""

THEIRS = """
import asyncio, sys
from aioice import mdns

async def main(host):
    protocol = await mdns.create_mdns_protocol()
    name = mdns.create_mdns_hostname()
    await protocol.publish(name, host)
    print(name, flush=True)
    name = await asyncio.to_thread(sys.stdin.readline)
    print(await protocol.resolve(name.strip(), timeout=30), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await protocol.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.peer
@pytest.mark.parametrize(
    ("other", "ends"),
    [
        (THEIRS, ("192.0.2.1", "192.0.2.2")),
        (OURS, ("192.0.2.1", "192.0.2.2")),
        (OURS, ("2001:db8::1", "2001:db8::2")),
    ],
    ids=["aioice", "another of ours", "by IPv6"],
)
def test_each_finds_the_other_by_its_name(internet: Factory, other: str, ends: tuple[str, str]) -> None:
    """Nothing but the two names has been told."""
    net = internet("kernel")
    left, right = net.namespace("left"), net.namespace("right")
    hosts = dict(zip((left, right), ends, strict=True))
    ip(left, f"link add eth0 type veth peer name eth0 netns {right}")
    for name, host in hosts.items():
        ip(name, "link set eth0 up")
        if ":" in host:
            ip(name, f"addr add {host}/64 dev eth0 nodad")
        else:
            ip(name, f"addr add {host}/24 dev eth0", "route add 224.0.0.0/4 dev eth0")
    for name in hosts:
        await_running(name, ["eth0"])
    sides = [
        net.spawn_in(
            name,
            ["timeout", PATIENCE, sys.executable, "-c", program, hosts[name]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, program in ((left, OURS), (right, other))
    ]
    names = [side.stdout.readline().strip() for side in sides]
    for side, name in zip(sides, reversed(names), strict=True):
        print(name, file=side.stdin, flush=True)
    assert [side.stdout.readline().strip() for side in sides] == [ends[1], ends[0]]
    for side in sides:
        print(file=side.stdin, flush=True)
