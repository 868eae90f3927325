"""The one interface of every protocol machine: bytes and time in, bytes and events out.

A machine has no socket and no clock. Its driver

1. hands it what arrived (`receive`) or tells it the time (`handle_timeout`),
2. sends everything `next_transmit` gives, until ``None``,
3. acts on everything `next_event` gives, until ``None``,
4. calls `handle_timeout` again at `next_timeout`.

Times are seconds of one monotonic clock, chosen by the driver. A machine never raises on what a peer sent.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, TypeVar

import msgspec

from crowline.base.addresses import Address
from crowline.base.transport import Transport

Buffer: TypeAlias = bytes | bytearray | memoryview

E = TypeVar("E", covariant=True)


class Transmit(msgspec.Struct, frozen=True):
    """Bytes to send.

    `local` is the base to leave by (RFC 8445 §5.1.1): a socket's address or a relayed transport address;
    ``None`` where the machine has only one way out. With `segment_size`, `data` is a run of datagrams of
    that size (the last may be shorter) for the one `destination`; without it, one datagram or, on a
    stream transport, a run of bytes. `transport` tells a UDP socket from a TCP connection of the same
    addresses. `dont_fragment` asks for the bit of that name in the IPv4 header. `hop_limit`, from 1 to 255,
    takes the place of the system's own, for a datagram that is not to get far (the Time to Live of IPv4).
    """

    data: Buffer
    destination: Address
    local: Address | None = None
    segment_size: int | None = None
    transport: Transport = Transport.UDP
    dont_fragment: bool = False
    hop_limit: int | None = None


class Machine(Protocol[E]):
    """The five verbs. `local` says by which base the bytes came, for machines that have several."""

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None: ...

    def handle_timeout(self, now: float) -> None: ...

    def next_timeout(self) -> float | None: ...

    def next_transmit(self) -> Transmit | None: ...

    def next_event(self) -> E | None: ...
