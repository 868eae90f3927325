"""What the self-test finds out about a place in the world."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from crowline.lab.behaviour import Allocation, Filtering, Hairpin, Mapping
from crowline.lab.bench import Answer
from crowline.lab.profile import Ipv6


class TcpReach(Enum):
    """Where TCP connections from inside get through to."""

    ANY = "any"
    HTTPS = "port-443"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Bracket:
    """A lifetime in seconds: still `alive` then, `dead` at the next look; ``None``: nobody looked so late."""

    alive: float
    dead: float | None

    def __str__(self) -> str:
        return f"over {self.alive:g} s" if self.dead is None else f"{self.alive:g} to {self.dead:g} s"


@dataclass(frozen=True, slots=True)
class Measured:
    """A place in the world as packets show it. ``None``: nothing was there to measure it with.

    `translated`: others see another address than the host has. `hairpin`: whether and how two hosts of the
    site reach each other by what a server told them; address-dependent mappings prevent that with most
    filters. A block's size is rounded up to a power of two. `udp_idle` is how long a silent mapping lets its
    server in; `inbound_refreshes` whether packets of that server alone keep it open; `absolute` when a busy
    one changed its outside port, ``None`` where it did not.
    """

    udp: bool
    tcp: TcpReach
    ipv6: Ipv6
    unsolicited_syn: Answer
    translated: bool | None = None
    mapping: Mapping | None = None
    filtering: Filtering | None = None
    allocation: Allocation | None = None
    hairpin: Hairpin | None = None
    tcp_mapping: Mapping | None = None
    udp_idle: Bracket | None = None
    inbound_refreshes: bool | None = None
    absolute: Bracket | None = None

    def to_fields(self) -> dict[str, Any]:
        """Plain values for JSON and for people, in the order of the fields."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def differences(self, other: Measured) -> list[str]:
        """Where the two differ, one phrase a field: "mapping: ours, not theirs"."""
        ours, theirs = self.to_fields(), other.to_fields()
        return [f"{name}: {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]


def _plain(value: object) -> Any:
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool):
        return value
    return str(value)
