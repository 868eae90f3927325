"""Which UDP ports of a STUN server answer, asked from one socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, ServerUnreachable
from crowline.net.binding import Binding
from crowline.net.interfaces import source_towards
from crowline.net.udp import UdpSocket
from crowline.stun.nat_discovery import QUICK


async def answering_ports(host: str, ports: Sequence[int]) -> tuple[int, ...]:
    """Those of `ports` that answer within a second and a half, each asked three times."""
    own = source_towards(Address(host, 0))
    if own is None:
        return ()

    def receive(data: memoryview, source: Address, size: int) -> None:
        for start in range(0, len(data), size):
            binding.receive(data[start : start + size], source, sock.local)

    try:
        sock = UdpSocket.bind(Address.parse(own, 0), receive)
    except LocalProblem:
        return ()
    binding = Binding(sock.send, schedule=QUICK)

    async def answers(port: int) -> bool:
        try:
            await binding.ask(Address(host, port), sock.local)
        except ServerUnreachable:
            return False
        return True

    try:
        told = await asyncio.gather(*map(answers, ports))
        return tuple(port for port, has_answered in zip(ports, told, strict=True) if has_answered)
    finally:
        binding.close()
        sock.close()
