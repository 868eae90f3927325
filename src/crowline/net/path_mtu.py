"""Measures what packets reach a server whole."""

from __future__ import annotations

import asyncio
import os

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net.interfaces import source_towards
from crowline.net.pump import Pump
from crowline.net.udp import CAN_SET_DONT_FRAGMENT, UdpSocket
from crowline.stun.path_mtu import PathMeasured, PathMtu

NOTHING = PathMeasured(None, None)


async def measure_path(server: Address) -> PathMeasured:
    """Within two seconds; nothing where this system cannot forbid fragments, or the server is mute."""
    own = source_towards(server)
    if own is None or not CAN_SET_DONT_FRAGMENT:
        return NOTHING
    measured: asyncio.Future[PathMeasured] = asyncio.get_running_loop().create_future()

    def receive(data: memoryview, source: Address, size: int) -> None:
        for start in range(0, len(data), size):
            machine.receive(data[start : start + size], source, pump.now)
        pump.flush()

    def send(transmit: Transmit) -> None:
        try:
            sock.send(transmit)
        except OSError:
            # Too large for this machine's own way out, or no way out at all: it does not arrive.
            return

    try:
        sock = UdpSocket.bind(Address.parse(own, 0), receive)
    except LocalProblem:
        return NOTHING
    machine = PathMtu(server, asyncio.get_running_loop().time(), entropy=os.urandom)
    pump = Pump[Transmit, PathMeasured](machine, send, measured.set_result)
    pump.flush()
    try:
        return await measured
    finally:
        pump.close()
        sock.close()
