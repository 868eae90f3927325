"""What a real kernel says of datagrams that a firewall or the routing table of this machine stops."""

from __future__ import annotations

import subprocess
import sys

from needs import needs_program

# A namespace with nothing but loopback and a firewall that drops what is for one port.
RULES = """
set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
nft add table inet wall
nft 'add chain inet wall out { type filter hook output priority 0; }'
nft add rule inet wall out udp dport 9999 drop
exec "$0" -c "$1"
"""

SENDS = """
import asyncio
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net.udp import UdpSocket

async def main():
    told = []
    tell = lambda destination, problem: told.append(problem.name)
    socket = UdpSocket.bind(Address("127.0.0.1", 0), lambda *_: None, on_unsent=tell)
    barred, open_, far = Address("127.0.0.1", 9999), Address("127.0.0.1", 9998), Address("192.0.2.1", 9998)
    for transmit in (
        Transmit(b"alone", barred),
        Transmit(bytes(3000), barred, segment_size=1000),
        Transmit(b"let through", open_),
        Transmit(b"no route", far),
    ):
        socket.send(transmit)
        await asyncio.sleep(0)
        told.append("-")
    socket.close()
    print(" ".join(told))

asyncio.run(main())
"""


def test_a_firewall_and_a_missing_route_are_told_apart() -> None:
    """Dropped on the way out is EPERM, for a datagram and for a run; without a route it is another word."""
    needs_program("nft")
    unshare = needs_program("unshare")
    done = subprocess.run(
        [unshare, "--net", "--", "/bin/sh", "-c", RULES, sys.executable, SENDS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["FORBIDDEN", "-", "FORBIDDEN", "-", "-", "NO_ROUTE", "-"]
