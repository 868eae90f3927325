"""What one user's request has come to, and when it must be looked after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crowline.portmap.upnp.events import Mapped
from crowline.portmap.upnp.mapping import Grant
from crowline.portmap.upnp.pinhole_actions import Pinhole
from crowline.portmap.upnp.port_actions import PortMapping

PERMANENT_CHECK = 1200.0
"""Seconds after which a mapping without an end is made again: a restarted router has lost it."""

SHORTEST_WAIT = 5.0
"""Seconds between two renewals, however short the lease and however often they fail."""

Wanted: TypeAlias = PortMapping | Pinhole


@dataclass(slots=True, eq=False)
class Holding:
    """What was asked for under a key, what the gateway gave, and what the user was told of it.

    It is busy while the gateway is being asked for it, and released when it is to be deleted or is void.
    """

    key: int
    wanted: Wanted
    grant: Grant | None = None
    told: Mapped | None = None
    renew_at: float | None = None
    expires_at: float | None = None
    is_busy: bool = False
    is_released: bool = False

    def take(self, grant: Grant, now: float) -> None:
        """It is open from now on; it is renewed at half of its time."""
        self.grant = grant
        self.expires_at = now + grant.lease if grant.lease else None
        self.renew_at = now + max(grant.lease / 2 if grant.lease else PERMANENT_CHECK, SHORTEST_WAIT)

    def retry(self, now: float) -> None:
        """It was not renewed: again at half of what remains."""
        remaining = PERMANENT_CHECK if self.expires_at is None else self.expires_at - now
        self.renew_at = now + max(remaining / 2, SHORTEST_WAIT)

    def is_due(self, now: float) -> bool:
        """Whether it must be renewed."""
        return not self.is_released and self.renew_at is not None and self.renew_at <= now

    def is_expired(self, now: float) -> bool:
        """Whether its time is over, and no answer can change that any more."""
        return not self.is_passive and self.expires_at is not None and self.expires_at <= now

    def times(self) -> list[float | None]:
        """When it is to be renewed and when it ends, as far as time has a say in it."""
        return [] if self.is_passive else [self.renew_at, self.expires_at]

    @property
    def is_passive(self) -> bool:
        """Whether something else than time comes next: an answer, or the deletion."""
        return self.is_busy or self.is_released
