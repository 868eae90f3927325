"""What the owner of a server and its workers say to each other: msgpack, one message a packet.

    owner to worker     Setup, FrontSocket + descriptor, RelaySocket + descriptor, RelayGone, Copied,
                        AllocationGone, Expect, Bound, Divide, Datagram
    worker to owner     Datagram, Counts (the first one says that it is ready)

Both ends are the same program on one machine: what does not decode is a fault of ours.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from crowline.base.addresses import Address
from crowline.turn.allocation_copy import AllocationCopy


class Setup(msgspec.Struct, frozen=True, tag=True):
    """The first message. `alternates` are the primary and the other address of RFC 5780."""

    bytes_per_second: float
    binding_rate: float
    binding_burst: float
    fronts: int
    """How many `FrontSocket` follow."""
    alternates: tuple[Address, Address] | None


class FrontSocket(msgspec.Struct, frozen=True, tag=True):
    """Comes with a bound socket for clients."""


class RelaySocket(msgspec.Struct, frozen=True, tag=True):
    """Comes with the bound socket of a relayed address, which is the worker's to read now."""

    relayed: Address


class RelayGone(msgspec.Struct, frozen=True, tag=True):
    """The socket of a relayed address is not the worker's any more."""

    relayed: Address


class Copied(msgspec.Struct, frozen=True, tag=True):
    """An allocation is new, or has changed."""

    copy: AllocationCopy


class AllocationGone(msgspec.Struct, frozen=True, tag=True):
    """An allocation is over, or not this worker's any more."""

    number: int


class Expect(msgspec.Struct, frozen=True, tag=True):
    """A client on the move may send its first data from there; with `ended` it is not waited for any more."""

    client: Address
    local: Address
    ended: bool = False


class Bound(msgspec.Struct, frozen=True, tag=True):
    """A relayed address of this server, in whichever process, and where it is bound; ``None``: it is gone."""

    relayed: Address
    where: Address | None


class Divide(msgspec.Struct, frozen=True, tag=True):
    """In how many processes a user has allocations."""

    user: str
    places: int


class Datagram(msgspec.Struct, frozen=True, tag=True):
    """To the owner: what `remote` sent to `local`. To a worker: what to send to `remote` from `local`."""

    data: bytes
    remote: Address
    local: Address
    segment_size: int | None = None


class Counts(msgspec.Struct, frozen=True, tag=True):
    """What happened in a worker since it started, by name."""

    counters: dict[str, int]


ToWorker: TypeAlias = (
    Setup
    | FrontSocket
    | RelaySocket
    | RelayGone
    | Copied
    | AllocationGone
    | Expect
    | Bound
    | Divide
    | Datagram
)
ToOwner: TypeAlias = Datagram | Counts

encode = msgspec.msgpack.Encoder().encode
decode_for_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_for_owner = msgspec.msgpack.Decoder(ToOwner).decode
