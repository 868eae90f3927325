"""Guessing ports in number: which socket sends where and when, until the first authenticated answer.

Where one side's NAT gives every destination another port, that side opens many sockets against the one port
of the other, which tries many ports of it from one socket. Of R ports, S sockets and M tried ports miss each
other with a chance of about exp(-S·M/R): 256 sockets and 1,040 ports of 64,511 meet in 98.4 of 100 cases,
with 1,296 packets of both sides together. The order does not matter: the first packet opens its own NAT for
the second, so that both sides begin at once, and a side that has sent everything goes on listening.

A plan sends nothing itself: `next_transmit` says which probe is due; the driver sends an authenticated check.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from math import ceil
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.punch.port_pool import PortPool
from crowline.punch.port_prediction import MAX_BURST
from crowline.punch.spray_budget import MAX_PACKETS, RATE, Refusal, SprayBudget

MAX_SOCKETS = 256  # some home routers drop all flows at 512 new ones
MAX_GUESSES = 1040  # with MAX_SOCKETS on the other side, both together stay below MAX_PACKETS
MIN_SOCKETS = 8
# Of a block, which is all that a subscriber has for everything, a spray takes an eighth at most.
BLOCK_SHARE = 8
# Sockets times guessed ports for each port of the pool: a miss has a chance of exp(-8), 1 in 2,981. A small
# pool needs no more; guesses beyond would only burden the router.
ENOUGH = 8.0

INTERVAL = 1 / RATE  # seconds between two packets
# Seconds that a late timer may catch up: above what operating systems are late by, below a burst.
MAX_LAG = 0.02
# Seconds in all: those that the longer of two sprays takes, and the round trip of its last packet.
PATIENCE = 5.0
ROUND = 0.5  # seconds for a window or a burst, after which the next has a fresh view of the ports


class Probe(Struct, frozen=True):
    """Send an authenticated check from the socket of that number, 0 upwards; a new number is a new socket.

    `hop_limit` takes the place of the system's own.
    """

    socket: int
    destination: Address
    hop_limit: int | None = None


class Missed(Enum):
    """Why a spray that began has met nobody."""

    SILENCE = "no guess was answered"
    CAPPED = "no more packets are allowed"
    STOPPED = "it was not wanted any longer"


class SprayMet(Struct, frozen=True):
    """An authenticated packet came from `source` to that socket: the pair to go on with. Close the others."""

    socket: int
    source: Address
    sent: int
    """Packets that it took."""


class SprayFailed(Struct, frozen=True):
    """Nobody was met, or the spray was refused. Close the sockets."""

    reason: Missed | Refusal
    sent: int


SprayEvent: TypeAlias = SprayMet | SprayFailed


def sockets_for(pool: PortPool) -> int:
    """How many sockets the side behind that NAT opens, so that no block runs out of ports."""
    return max(MIN_SOCKETS, min(MAX_SOCKETS, pool.size // BLOCK_SHARE))


def guesses_for(pool: PortPool) -> int:
    """How many ports of that NAT the other side tries."""
    return min(MAX_GUESSES, ceil(ENOUGH * pool.size / sockets_for(pool)))


def from_many_sockets(
    target: Address, sockets: int, hop_limit: int | None = None, *, first: int = 0
) -> tuple[Probe, ...]:
    """Each socket, of the numbers from `first` on, sends once to the one port that is known.

    `hop_limit`: so low that the packet opens this side's NAT and dies before the other one, which may keep
    stray packets as flows of its own, and then answers them from another port.
    """
    if not 0 < sockets <= MAX_SOCKETS:
        raise UsageError(f"a spray opens from 1 to {MAX_SOCKETS} sockets")
    return tuple(Probe(first + number, target, hop_limit) for number in range(sockets))


def at_ports(host: str, ports: Sequence[int], *, socket: int = 0) -> tuple[Probe, ...]:
    """One socket sends to each of these ports: a predicted window."""
    return tuple(Probe(socket, Address(host, port)) for port in ports)


def at_pool(
    host: str, pool: PortPool, entropy: Callable[[int], bytes], *, socket: int = 0
) -> tuple[Probe, ...]:
    """One socket sends to as many ports of the pool as that takes, the likeliest first."""
    return at_ports(host, pool.ports(guesses_for(pool), entropy), socket=socket)


class SprayPlan:
    """One side's spray against one host; it begins when `start` is called, if the budget lets it.

    `is_burst` sends all at once: for shared targets, where each millisecond between two sockets is one in
    which somebody else may get the port. Bursts are short (`port_prediction.MAX_BURST`). `later` are packets
    that leave so many seconds after the start, in the order of their times.
    """

    def __init__(
        self,
        budget: SprayBudget,
        probes: Sequence[Probe],
        *,
        is_burst: bool = False,
        patience: float = PATIENCE,
        later: Sequence[tuple[float, Probe]] = (),
    ) -> None:
        if not 0 < len(probes) + len(later) <= MAX_PACKETS or not probes:
            raise UsageError(f"a spray has from 1 to {MAX_PACKETS} packets")
        hosts = {probe.destination.host for probe in (*probes, *(probe for _, probe in later))}
        if len(hosts) != 1:
            raise UsageError("a spray goes to one host")
        if is_burst and len(probes) > MAX_BURST:
            raise UsageError(f"a burst has {MAX_BURST} packets at most")
        self.sent = 0
        self.is_over = False
        self._budget = budget
        self._probes = deque(probes)
        self._later = deque(later)
        self._host = probes[0].destination.host
        self._patience = patience
        self._interval = 0.0 if is_burst else INTERVAL
        self._due: float | None = None  # when the next packet is
        self._started = self._deadline = 0.0
        self._commands: deque[Probe] = deque()
        self._events: deque[SprayEvent] = deque()

    def start(self, now: float) -> None:
        """Both sides know each other's addresses. A second start is none."""
        if self._due is not None or self.is_over:
            return
        packets = len(self._probes) + len(self._later)
        refusal = self._budget.begin(self, self._host, packets, now)
        if refusal is not None:
            self._fail(refusal)
            return
        self._due, self._started, self._deadline = now, now, now + self._patience
        self.handle_timeout(now)

    def authenticated(self, socket: int, source: Address) -> None:
        """A packet that only the other side can have made came from `source` to that socket."""
        if self._due is None or self.is_over:
            return
        self._events.append(SprayMet(socket, source, self.sent))
        self._end()

    def stop(self) -> None:
        """Another way has won."""
        if not self.is_over:
            self._fail(Missed.STOPPED)

    # --- the verbs --------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        if self._due is None or self.is_over:
            return
        if now >= self._deadline:
            self._fail(Missed.SILENCE)
            return
        self._due = max(self._due, now - MAX_LAG)
        while self._probes and now >= self._due and self._send(self._probes.popleft(), now):
            self._due += self._interval
        while self._later and now >= self._started + self._later[0][0]:
            if not self._send(self._later.popleft()[1], now):
                return

    def next_timeout(self) -> float | None:
        if self._due is None or self.is_over:
            return None
        times = [self._deadline]
        if self._probes:
            times.append(self._due)
        if self._later:
            times.append(self._started + self._later[0][0])
        return min(times)

    def next_transmit(self) -> Probe | None:
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> SprayEvent | None:
        return self._events.popleft() if self._events else None

    # ----------------------------------------------------------------------------------------------------

    def _send(self, probe: Probe, now: float) -> bool:
        """False when the plan is over with that: the budget gives no more, or has given none."""
        if self.is_over:
            return False
        if not self._budget.spend(self, self._host, now):
            self._fail(Missed.CAPPED)
            return False
        self._commands.append(probe)
        self.sent += 1
        return True

    def _fail(self, reason: Missed | Refusal) -> None:
        self._events.append(SprayFailed(reason, self.sent))
        self._end()

    def _end(self) -> None:
        self.is_over = True
        self._commands.clear()
        self._budget.end(self)
