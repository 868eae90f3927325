"""The sockets of a meeting at its end."""

from __future__ import annotations

import asyncio

from crowline.api.gatherer import Gatherer
from crowline.base.addresses import Address
from crowline.ice.candidate import Candidate
from turn_socket import plain_socket


class Recorder:
    """The owner of a gatherer; keeps the packets that it is told of."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.told = asyncio.Event()

    def on_candidate(self, candidate: Candidate) -> None: ...

    def on_base_lost(self, base: Address) -> None: ...

    def on_gathered(self) -> None: ...

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        self.packets.append(bytes(data))
        self.told.set()

    def on_drained(self) -> None: ...


async def test_nothing_is_told_while_allocations_are_given_back() -> None:
    """Servers may still answer; whoever else sends finds a meeting that is over, and begins no link."""
    owner = Recorder()
    gatherer = Gatherer(owner, ["127.0.0.1"])
    [local] = gatherer._sockets
    with plain_socket() as peer:
        peer.send(b"\xc0before", local)
        async with asyncio.timeout(30):
            await owner.told.wait()
        await gatherer.give_back()
        gatherer.on_relayed(memoryview(b"\xc0late"), 5, peer.local, local)
        gatherer._received(memoryview(b"\xc0late"), 5, peer.local, local)
    gatherer.close()
    assert owner.packets == [b"\xc0before"]
