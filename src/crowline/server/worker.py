"""A worker process: UDP sockets of the server, Binding, and the data of allocations.

Everything that decides is in the owner, the process that started this one (`server/worker_pool.py`). A worker
ends when its owner does. It imports neither the hub nor HTTP.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net.udp import CAN_SET_DONT_FRAGMENT, UdpSocket
from crowline.server.collector import relax
from crowline.server.fast_path import quicken_front, quicken_relay
from crowline.server.udp_front import UdpFront
from crowline.server.worker_link import WorkerLink
from crowline.server.worker_messages import (
    AllocationGone,
    Bound,
    Copied,
    Counts,
    Datagram,
    Divide,
    Expect,
    FrontSocket,
    RelayGone,
    RelaySocket,
    Setup,
    decode_for_worker,
    encode,
)
from crowline.stun.budget import Allowance
from crowline.stun.responder import Alternates
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.mirror import Mirror
from crowline.turn.quota import Limits

COUNTS_INTERVAL = 1.0
"""Seconds between two reports to the owner, while there is something to report."""


class Worker:
    """Lives until the owner's end of the link is closed."""

    def __init__(self, link: socket.socket) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link = WorkerLink(link, self._on_message, self._end)
        self._counters: Counter[str] = Counter()
        self._mirror: Mirror
        self._front: UdpFront
        self._fronts_to_come = 0
        self._relays: dict[Address, UdpSocket] = {}
        self._report: asyncio.TimerHandle | None = None
        self._reported: dict[str, int] = {}
        self._is_ready = False

    def close(self) -> None:
        if self._report is not None:
            self._report.cancel()
        self._link.close()
        for relay in self._relays.values():
            relay.close()
        if hasattr(self, "_front"):
            self._front.close()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    # --- the owner --------------------------------------------------------------------------------------

    def _on_message(self, data: bytes, sock: socket.socket | None) -> None:
        try:
            self._obey(data, sock)
        except Exception:
            # A worker that knows less than its owner thinks must not go on; the next one is told everything.
            self._end()
            raise

    def _obey(self, data: bytes, sock: socket.socket | None) -> None:
        match decode_for_worker(data):
            case Datagram(payload, remote, local, segment_size):
                self._front.send(Transmit(payload, remote, local, segment_size))
            case Copied(copy):
                self._mirror.update(copy, time.monotonic())
            case AllocationGone(number):
                self._mirror.end(number)
            case RelaySocket(relayed) if sock is not None:
                self._open_relay(relayed, sock)
            case RelayGone(relayed):
                self._close_relay(relayed)
            case Expect(client, local, ended):
                five_tuple = FiveTuple(client, local)
                if ended:
                    self._mirror.expect_no_more(five_tuple)
                else:
                    self._mirror.expect(five_tuple)
            case Bound(relayed, where):
                self._mirror.set_bound(relayed, where)
            case Divide(user, places):
                self._mirror.divide(user, places)
            case Setup() as setup:
                self._set_up(setup)
            case FrontSocket() if sock is not None:
                local = self._front.adopt(sock)
                bound = self._front.socket_for(local)
                quicken_front(bound, self._front, self._mirror.short_way, self._relays.get)
                self._fronts_to_come -= 1
                if not self._fronts_to_come:
                    self._send_counts()

    def _set_up(self, setup: Setup) -> None:
        self._mirror = Mirror(
            Limits(bytes_per_second=setup.bytes_per_second),
            os.urandom,
            can_set_dont_fragment=CAN_SET_DONT_FRAGMENT,
        )
        self._front = UdpFront(
            (),
            receive=self._receive,
            flush=self._flush,
            drop=self._drop,
            outgoing_host=lambda is_ipv6: None,
            binding=Allowance(setup.binding_rate, setup.binding_burst),
        )
        if setup.alternates is not None:
            self._front.responder.alternates = Alternates(*setup.alternates)
        self._fronts_to_come = setup.fronts

    def _open_relay(self, relayed: Address, sock: socket.socket) -> None:
        self._close_relay(relayed)
        bound = UdpSocket(sock, partial(self._from_peer, relayed), on_icmp=partial(self._icmp, relayed))
        quicken_relay(relayed, bound, self._front, self._mirror.short_way)
        self._relays[relayed] = bound

    def _close_relay(self, relayed: Address) -> None:
        relay = self._relays.pop(relayed, None)
        if relay is not None:
            relay.close()

    # --- clients and peers ------------------------------------------------------------------------------

    def _receive(self, data: memoryview, source: Address, local: Address, segment_size: int) -> None:
        self._mirror.receive(data, source, time.monotonic(), local, segment_size)

    def _from_peer(self, relayed: Address, data: memoryview, peer: Address, size: int) -> None:
        try:
            segment_size = size if size < len(data) else None
            self._mirror.receive_from_peer(data, peer, time.monotonic(), relayed, segment_size)
            self._flush()
        except Exception:
            self._survive()

    def _icmp(self, relayed: Address, peer: Address, icmp_type: int, icmp_code: int, error_data: int) -> None:
        try:
            self._mirror.receive_icmp(relayed, peer, icmp_type, icmp_code, error_data, time.monotonic())
            self._flush()
        except Exception:
            self._survive()

    def _flush(self) -> None:
        while (event := self._mirror.next_event()) is not None:
            message = encode(Datagram(event.data, event.source, event.local))
            if not self._link.send_datagram(message):
                self._counters["dropped_owner_busy"] += 1
        while (transmit := self._mirror.next_transmit()) is not None:
            relay = self._relays.get(transmit.local) if transmit.local is not None else None
            if relay is not None:
                relay.send(transmit)
            else:
                self._front.send(transmit)

    def _drop(self) -> int:
        dropped = 0
        while self._mirror.next_transmit() is not None or self._mirror.next_event() is not None:
            dropped += 1
        return dropped

    def _survive(self) -> None:
        """A fault of ours costs what was just done, not the worker."""
        self._counters["handler_error"] += 1
        self._counters["dropped_by_error"] += self._drop()

    def _send_counts(self) -> None:
        self._report = asyncio.get_running_loop().call_later(COUNTS_INTERVAL, self._send_counts)
        counts = Counter(self._counters)
        counts.update(self._front.counters)
        counts.update({f"stun_{name}": count for name, count in self._front.responder.counters.items()})
        counts.update({f"turn_{name}": count for name, count in self._mirror.counters.items()})
        if counts != self._reported or not self._is_ready:
            self._is_ready = True
            self._reported = dict(counts)
            self._link.send(encode(Counts(self._reported)))


async def run(descriptor: int) -> None:
    """Be a worker of the owner at the other end of that socket."""
    worker = Worker(socket.socket(fileno=descriptor))
    relax()
    try:
        await worker.ended
    finally:
        worker.close()


def main() -> None:
    """`python -m crowline.server.worker DESCRIPTOR NUMBER`."""
    # The owner gets the same signals, drains if it should, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    descriptor, number = int(sys.argv[1]), int(sys.argv[2])
    with suppress(OSError):
        Path("/proc/self/comm").write_text(f"crowline-wk-{number}")
    asyncio.run(run(descriptor))


if __name__ == "__main__":
    main()
