"""The owner's side of the workers: who has which allocation, and what each of them must know.

The owner has the `TurnServer`, which decides, and copies of all sockets. An allocation whose client speaks
UDP lives with the worker that its datagrams reach (its home): that one reads its relay sockets and has a
copy of it. Allocations of stream clients stay here.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.server.relay_socket import SharedRelaySocket
from crowline.server.shared_front import SharedFront
from crowline.server.turn_driver import TurnDriver
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
    ToWorker,
    decode_for_owner,
    encode,
)
from crowline.server.worker_process import IS_SUPPORTED, WorkerProcess
from crowline.stun.budget import Allowance
from crowline.turn.allocation import Allocation
from crowline.turn.allocation_copy import AllocationCopy
from crowline.turn.five_tuple import FiveTuple

START_TIME = 60.0
"""Seconds in which all workers must begin to work; they take one, and some more on a slow disk."""

# The home of allocations that stay in this process.
_HERE = -1


@dataclass(slots=True)
class _Placement:
    """Where an allocation lives."""

    number: int
    user: str
    home: int = _HERE
    five_tuple: FiveTuple | None = None
    relays: dict[Address, SharedRelaySocket] = field(default_factory=dict)
    expecting: tuple[int, FiveTuple] | None = None
    """The worker that a client on the move will speak to, and from where."""


class WorkerPool:
    """`count` processes. Use: construct, `attach` what they work for, `start`."""

    def __init__(
        self,
        count: int,
        *,
        bytes_per_second: float,
        binding: Allowance,
        on_failure: Callable[[LocalProblem], None],
    ) -> None:
        """`binding` is what one source may have answered by all workers together. Raises `LocalProblem` on
        systems that cannot share ports out."""
        if not IS_SUPPORTED:
            raise LocalProblem(
                "This system cannot share a UDP port out among processes.",
                hint="Without --workers one process does everything.",
            )
        self.counters: Counter[str] = Counter()
        self._count = count
        self._bytes_per_second = bytes_per_second
        self._binding = Allowance(binding.rate / count, binding.burst / count)
        self._on_failure = on_failure
        self._driver: TurnDriver
        self._front: SharedFront
        self._processes: list[WorkerProcess] = []
        self._counts: dict[int, Counter[str]] = {}
        self._placements: dict[Allocation, _Placement] = {}
        self._homes: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._bound: dict[Address, Address] = {}
        self._serial = 0
        self._asking: tuple[int, FiveTuple] | None = None

    def attach(self, driver: TurnDriver, front: SharedFront) -> None:
        self._driver, self._front = driver, front
        driver.machine.on_change = self._on_change

    async def start(self) -> None:
        """Start the workers, and wait until they work. Raises `LocalProblem`; `close` is due then too."""
        for number in range(self._count):
            process = WorkerProcess(
                number,
                greet=self._greet,
                on_message=partial(self._on_message, number),
                on_failure=self._on_failure,
            )
            self._processes.append(process)
            process.start()
        try:
            async with asyncio.timeout(START_TIME):
                await asyncio.gather(*(process.ready for process in self._processes))
        except TimeoutError:
            raise LocalProblem(
                f"The server's worker processes did not begin to work within {START_TIME:g} seconds.",
                hint="Without --workers one process does everything.",
            ) from None

    async def close(self) -> None:
        """End the workers."""
        await asyncio.gather(*(process.close() for process in self._processes))
        self._processes.clear()

    @property
    def pids(self) -> list[int]:
        """The processes at this moment."""
        return [process.pid for process in self._processes]

    def all_counters(self) -> Counter[str]:
        """What happened in all workers that there have been."""
        merged = Counter(self.counters)
        for counts in self._counts.values():
            merged.update(counts)
        return merged

    def send(self, transmit: Transmit) -> None:
        """To a UDP client: by the worker that asked, so that it knows of a change before its client does."""
        if not self._processes or transmit.local is None:
            return
        worker = self._asking[0] if self._asking else hash(transmit.destination) % self._count
        message = Datagram(bytes(transmit.data), transmit.destination, transmit.local, transmit.segment_size)
        if not self._processes[worker].send_datagram(encode(message)):
            self.counters["dropped_worker_busy"] += 1

    def from_peer(self, data: memoryview, peer: Address, size: int, relayed: Address) -> None:
        """What came to a relayed address that is read here. The peer may be an allocation of a worker."""
        sibling = self._bound.get(peer)
        self._driver.from_peer(data, sibling or peer, size, relayed, is_inside=sibling is not None)

    # --- workers ----------------------------------------------------------------------------------------

    def _on_message(self, worker: int, data: bytes, sock: socket.socket | None) -> None:
        message = decode_for_owner(data)
        if isinstance(message, Counts):
            self._counts[worker] = Counter(message.counters)
            return
        self._asking = worker, FiveTuple(message.remote, message.local)
        try:
            self._driver.from_datagram(message.data, message.remote, message.local)
        finally:
            self._asking = None

    def _greet(self, process: WorkerProcess) -> None:
        """Tell a new process all that its predecessor knew."""
        worker = process.number
        self.counters.update(self._counts.pop(worker, Counter()))
        sockets, alternates = self._front.sockets_of(worker), self._front.responder.alternates
        setup = Setup(
            self._bytes_per_second,
            self._binding.rate,
            self._binding.burst,
            len(sockets),
            None if alternates is None else (alternates.primary, alternates.other),
        )
        process.send(encode(setup))
        for where, relayed in self._bound.items():
            process.send(encode(Bound(relayed, where)))
        for allocation, placement in self._placements.items():
            if placement.expecting is not None and placement.expecting[0] == worker:
                self._expect(placement.expecting)
            if placement.home == worker:
                self._hand_over(allocation, placement)
                self._tell(worker, Divide(placement.user, len(self._homes[placement.user])))
        # Clients last: they wait in the sockets until everything is known.
        for sock in sockets:
            process.send(encode(FrontSocket()), sock)

    def _tell(self, worker: int, message: ToWorker, sock: socket.socket | None = None) -> None:
        if 0 <= worker < len(self._processes):
            self._processes[worker].send(encode(message), sock)

    def _tell_all(self, message: ToWorker) -> None:
        data = encode(message)
        for process in self._processes:
            process.send(data)

    # --- allocations ------------------------------------------------------------------------------------

    def _on_change(self, allocation: Allocation) -> None:
        """An allocation was made, prolonged, opened to a peer, moved or ended."""
        if allocation.relay_transport.is_stream:
            return
        placement = self._placements.get(allocation)
        if allocation.is_over:
            if placement is not None:
                self._forget(allocation, placement)
            return
        if placement is None:
            self._serial += 1
            placement = self._placements[allocation] = _Placement(self._serial, allocation.user)
        self._follow_relays(allocation, placement)
        if not self._follow_client(allocation, placement) and placement.home != _HERE:
            self._tell(placement.home, Copied(AllocationCopy.of(placement.number, allocation)))

    def _follow_relays(self, allocation: Allocation, placement: _Placement) -> None:
        """Relayed addresses come with the allocation; one of two may go before the other."""
        current = {relay.address for relay in allocation.relays}
        for relayed in placement.relays.keys() - current:
            self._drop_relay(placement, relayed)
        for relayed in current - placement.relays.keys():
            sock = self._driver.ports.socket_of(relayed)
            assert isinstance(sock, SharedRelaySocket), "all relayed addresses are opened alike"
            placement.relays[relayed] = sock
            self._bound[sock.local] = relayed
            self._tell_all(Bound(relayed, sock.local))

    def _follow_client(self, allocation: Allocation, placement: _Placement) -> bool:
        """Let the allocation live where its client's datagrams arrive; whether it has a new home."""
        five_tuple = allocation.five_tuple
        home = self._home_of(five_tuple, placement)
        is_new = placement.five_tuple is None or home != placement.home
        if is_new:
            if placement.five_tuple is not None:
                self._leave(placement)
            placement.home, placement.five_tuple = home, five_tuple
            self._hand_over(allocation, placement)
            self._homes[placement.user][home] += 1
            self._divide(placement.user)
        placement.five_tuple = five_tuple
        moving = allocation.moving_to
        expected = placement.expecting[1] if placement.expecting is not None else None
        if moving != expected:
            self._stop_expecting(placement)
            if moving is not None and not moving.transport.is_stream:
                placement.expecting = self._home_of(moving, placement), moving
                self._expect(placement.expecting)
        return is_new

    def _home_of(self, five_tuple: FiveTuple, placement: _Placement) -> int:
        if five_tuple.transport.is_stream:
            return _HERE
        if self._asking is not None and self._asking[1] == five_tuple:
            return self._asking[0]
        if placement.expecting is not None and placement.expecting[1] == five_tuple:
            return placement.expecting[0]
        return placement.home

    def _hand_over(self, allocation: Allocation, placement: _Placement) -> None:
        """Give an allocation with its sockets to its home."""
        for relayed, sock in placement.relays.items():
            sock.read_here(placement.home == _HERE)
            self._tell(placement.home, RelaySocket(relayed), sock.socket)
        if placement.home != _HERE:
            self._tell(placement.home, Copied(AllocationCopy.of(placement.number, allocation)))

    def _leave(self, placement: _Placement) -> None:
        """Take an allocation from its home."""
        for relayed in placement.relays:
            self._tell(placement.home, RelayGone(relayed))
        self._tell(placement.home, AllocationGone(placement.number))
        homes = self._homes[placement.user]
        homes[placement.home] -= 1
        if not homes[placement.home]:
            del homes[placement.home]

    def _forget(self, allocation: Allocation, placement: _Placement) -> None:
        self._stop_expecting(placement)
        self._leave(placement)
        for relayed in list(placement.relays):
            self._drop_relay(placement, relayed)
        del self._placements[allocation]
        if self._homes[placement.user]:
            self._divide(placement.user)
        else:
            del self._homes[placement.user]

    def _drop_relay(self, placement: _Placement, relayed: Address) -> None:
        """The driver has closed its socket already."""
        sock = placement.relays.pop(relayed)
        self._tell(placement.home, RelayGone(relayed))
        self._bound.pop(sock.local, None)
        self._tell_all(Bound(relayed, None))

    def _divide(self, user: str) -> None:
        homes = self._homes[user]
        for home in homes:
            self._tell(home, Divide(user, len(homes)))
        self._driver.machine.divide(user, len(homes))

    def _expect(self, expected: tuple[int, FiveTuple]) -> None:
        worker, five_tuple = expected
        if five_tuple.local is not None:
            self._tell(worker, Expect(five_tuple.client, five_tuple.local))

    def _stop_expecting(self, placement: _Placement) -> None:
        if placement.expecting is not None:
            worker, five_tuple = placement.expecting
            placement.expecting = None
            if five_tuple.local is not None:
                self._tell(worker, Expect(five_tuple.client, five_tuple.local, ended=True))
