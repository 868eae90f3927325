"""Mappings that end after a fixed time, however busy they are, and sockets that get successors before that.

That a mapping has such an end is learnt once: a direct path falls silent, and a STUN server sees its socket
under another address than before. From then on each socket gets a successor before its own mapping ends;
links move to it, and the socket is closed when nothing uses it any more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.ice.candidate import Candidate

# Share of the measured time after which a successor is opened: the rest is for checks, links and bad luck.
SHARE = 0.7
# Seconds: what ends earlier was a restart of the translator or another accident, and may never come again.
MIN_LIFETIME = 30.0
# Seconds between a successor and the end of what it replaces; again and again while a path still uses that.
RETIRE_AFTER = 20.0


class RenewalWork(NamedTuple):
    """Bases to be done something with: `ask` a STUN server under which address it sees them, open a successor
    for each of `renew`, close each of `retire`."""

    ask: list[Address]
    renew: list[Address]
    retire: list[Address]


class _Mapping(Struct):
    born: float
    seen_as: Address | None = None
    silent_at: float | None = None
    is_doubted: bool = False
    has_ended: bool = False
    retire_at: float | None = None

    @property
    def is_renewed(self) -> bool:
        return self.retire_at is not None


class Renewal:
    """The sockets of one meeting by their addresses, and how long a mapping lives as far as that is known."""

    def __init__(self) -> None:
        # Seconds from a mapping's first packet to its end; None until one was seen to end.
        self.lifetime: float | None = None
        self._mappings: dict[Address, _Mapping] = {}

    def opened(self, base: Address, now: float) -> None:
        """A socket of this side sends from now on."""
        self._mappings[base] = _Mapping(now)

    def closed(self, base: Address) -> None:
        """It does not any more."""
        self._mappings.pop(base, None)

    def fell_silent(self, base: Address, now: float) -> None:
        """A direct path by that socket carries nothing any more."""
        mapping = self._mappings.get(base)
        if mapping is not None and not mapping.is_renewed and mapping.seen_as is not None:
            mapping.silent_at = now
            mapping.is_doubted = True

    def seen(self, base: Address, address: Address, now: float) -> None:
        """A STUN server sees the socket as `address`."""
        mapping = self._mappings.get(base)
        if mapping is None:
            return
        before, mapping.seen_as = mapping.seen_as, address
        silent_at, mapping.silent_at = mapping.silent_at, None
        if before is None or before == address:
            return
        if silent_at is not None and silent_at - mapping.born >= MIN_LIFETIME:
            self.lifetime = min(self.lifetime or silent_at - mapping.born, silent_at - mapping.born)
            mapping.has_ended = True
        mapping.born = now

    def renewed(self, base: Address, now: float) -> None:
        """There is a successor; what leaves by `base` is to move there. What has ended is closed at once: its
        new mapping would be of no use for longer than that of the successor."""
        if (mapping := self._mappings.get(base)) is not None:
            mapping.retire_at = now if mapping.has_ended else now + RETIRE_AFTER

    def is_renewed(self, base: Address) -> bool:
        """Whether nothing new is to be built on that socket."""
        mapping = self._mappings.get(base)
        return mapping is not None and (mapping.is_renewed or mapping.has_ended)

    def put_off(self, base: Address, now: float) -> None:
        """There can be no successor now; try again when another mapping's time is nearly over."""
        if (mapping := self._mappings.get(base)) is not None:
            mapping.born, mapping.has_ended = now, False

    def due(self, now: float, in_use: Collection[Address]) -> RenewalWork:
        """What is to be done now; the chosen path uses the bases `in_use`."""
        work = RenewalWork([], [], [])
        for base, mapping in self._mappings.items():
            if mapping.is_doubted:
                mapping.is_doubted = False
                work.ask.append(base)
            if mapping.retire_at is not None and mapping.retire_at <= now:
                if base in in_use:
                    mapping.retire_at = now + RETIRE_AFTER
                else:
                    work.retire.append(base)
            elif (at := self._renewal(mapping)) is not None and at <= now:
                work.renew.append(base)
        return work

    def next_timeout(self) -> float | None:
        times: list[float] = []
        for mapping in self._mappings.values():
            if mapping.is_doubted:
                times.append(mapping.silent_at or 0.0)
            at = mapping.retire_at if mapping.is_renewed else self._renewal(mapping)
            if at is not None:
                times.append(at)
        return min(times, default=None)

    def _renewal(self, mapping: _Mapping) -> float | None:
        """When a successor is to be opened."""
        if mapping.is_renewed or self.lifetime is None:
            return None
        return mapping.born if mapping.has_ended else mapping.born + SHARE * self.lifetime


def is_replaced(known: Candidate, by: Candidate) -> bool:
    """Whether both say where one base is seen by one server, and `by` says it now."""
    return (
        known.foundation == by.foundation
        and known.sending_base == by.sending_base
        and known.address != by.address
    )
