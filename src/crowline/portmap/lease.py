"""One port that the owner wants open: where it stands, and when there is something to do for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crowline.base.addresses import Address
from crowline.portmap.schedule import Entropy, Repeats, Schedule, fraction

# Seconds between two renewals at least (RFC 6887 §11.2.1).
MIN_RENEWAL_GAP = 4.0
# Seconds: what is given for less cannot be renewed twice in its time.
MIN_LEASE = 2 * MIN_RENEWAL_GAP
# Seconds: what is given for more is renewed as if it were this, so that a gateway that forgets is noticed.
MAX_LEASE = 86400.0


class Phase(Enum):
    """What a lease is waiting for."""

    UNASKED = "a gateway"
    ASKING = "an answer"
    HELD = "its renewal"
    RESTING = "the time to ask again"
    CLOSING = "the answer to its end"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`protocol` by its number of IP. `suggested_port` 0 leaves the choice to the gateway; `exactly`: rather
    none than another. `third_party` is the host that the port is for, where it is not this one. `nonce` is
    PCP's, for a mapping that was made before and is to be taken up again; without it a new one is drawn.
    """

    protocol: int
    inside_port: int
    suggested_port: int = 0
    exactly: bool = False
    third_party: str | None = None
    nonce: bytes = b""


class Lease:
    """`outside` is what the owner was told; `outside_port` what the gateway gave last."""

    def __init__(self, number: int, wanted: Wanted, nonce: bytes) -> None:
        self.number = number
        self.wanted = wanted
        self.nonce = nonce
        self.phase = Phase.UNASKED
        self.was_sent = False
        self.is_awaited = True
        self.is_asked = False
        self.lifetime = 0.0
        self.outside_port = 0
        self.outside: Address | None = None
        self.repeats: Repeats | None = None
        self._expires = 0.0
        self._due: float | None = None

    @property
    def suggested_port(self) -> int:
        """What to ask for: the only one that will do, or the one that was given last."""
        return self.wanted.suggested_port if self.wanted.exactly else self.outside_port

    @property
    def due(self) -> float | None:
        """When there is something to do for it."""
        return self.repeats.due if self.repeats is not None else self._due

    def is_expired(self, now: float) -> bool:
        """Held beyond its time: the gateway has closed it."""
        return self.phase is Phase.HELD and now >= self._expires

    def wait_for_gateway(self) -> None:
        """Nothing is done until a gateway is found."""
        self._enter(Phase.UNASKED)

    def ask(self, schedule: Schedule, entropy: Entropy, at: float) -> None:
        """Ask for it from `at` on."""
        self._enter(Phase.ASKING)
        self.repeats = Repeats(schedule, entropy, at)

    def hold(self, port: int, lifetime: float, entropy: Entropy, now: float) -> None:
        """The gateway gives `port` for `lifetime` seconds."""
        self._enter(Phase.HELD)
        self.is_awaited = False
        self.outside_port = port
        self.lifetime = lifetime
        self._expires = now + lifetime
        self.plan_renewal(entropy, now)

    def plan_renewal(self, entropy: Entropy, now: float) -> None:
        """At half of what is left and up to an eighth later (RFC 6887 §11.2.1), and again."""
        left = self._expires - now
        wait = left / 2 + left / 8 * fraction(entropy)
        self._due = min(now + max(wait, MIN_RENEWAL_GAP), self._expires)

    def rest(self, until: float) -> None:
        """Leave the gateway alone with it for a while."""
        self._enter(Phase.RESTING)
        self.outside = None
        self._due = until

    def close(self, schedule: Schedule, entropy: Entropy, now: float) -> None:
        """The owner wants it no more."""
        self._enter(Phase.CLOSING)
        self.repeats = Repeats(schedule, entropy, now)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.repeats = None
        self.is_asked = False
        self._due = None
