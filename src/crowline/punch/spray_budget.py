"""How much a machine sends to guessed ports in all, and to whom: the gate of every `SprayPlan`.

Addresses come from the other side, and may name a third party. A spray goes only to a host that is known to
be the other side's, and only one runs at a time: 256 flows more at once make some home routers drop all.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

MAX_PACKETS = 1300  # of all plans together against one host, until it has rested
RATE = 250  # packets a second; a home router's table and an intrusion detector take it
REST = 20.0  # seconds without a spray after which a host may get as many packets again
MAX_HOSTS = 64  # hosts known at a time


class Refusal(Enum):
    """Why a spray may not begin."""

    UNPROVEN = "nobody has proven to be the other side at that address"
    BUSY = "another spray is under way"
    RESTING = "that address has had its packets and rests"


class _Spent(Struct):
    """What one host has got; `at`: when it got the last packet."""

    at: float
    packets: int = 0


class SprayQuota:
    """What all sprays of a machine may send, whichever meetings they are of: one object for a process.

    `sent` is how many packets it has let go in all.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._spent: dict[str, _Spent] = {}
        self._owner: object | None = None
        self._host = ""

    def begin(self, owner: object, host: str, packets: int, now: float) -> Refusal | None:
        """Give `owner` the right to send so many to `host`, until it calls `end`; or say why not."""
        if self._owner is not None:
            return Refusal.BUSY
        self._spent = {known: spent for known, spent in self._spent.items() if now < spent.at + REST}
        spent = self._spent.setdefault(host, _Spent(now))
        if spent.packets + packets > MAX_PACKETS:
            return Refusal.RESTING
        self._owner, self._host = owner, host
        return None

    def left(self, host: str, now: float) -> int:
        """Packets that `host` may get now."""
        spent = self._spent.get(host)
        return MAX_PACKETS if spent is None or now >= spent.at + REST else MAX_PACKETS - spent.packets

    def spend(self, owner: object, host: str, now: float) -> bool:
        """Count one packet to `host`; False when it must not be sent."""
        if owner is not self._owner or host != self._host:
            return False
        spent = self._spent[host]
        if spent.packets == MAX_PACKETS:
            return False
        spent.packets += 1
        spent.at = now
        self.sent += 1
        return True

    def end(self, owner: object) -> None:
        """The spray of `owner` is over. Of one that has not begun nothing is heard."""
        if owner is self._owner:
            self._owner = None


class SprayBudget:
    """What the sprays of one meeting may send, and to whom: only what is proven in this meeting counts.

    Without a `quota` it has one for itself, as where there is one meeting only.
    """

    def __init__(self, quota: SprayQuota | None = None) -> None:
        self._quota = quota or SprayQuota()
        self._proven: set[str] = set()

    @property
    def sent(self) -> int:
        """Packets of all meetings that share the quota."""
        return self._quota.sent

    def prove_host(self, host: str) -> None:
        """The other side answered from `host`, authenticated, or the hub saw it there.

        A request from there is less: whoever knows the password can forge its source.
        """
        if len(self._proven) < MAX_HOSTS:
            self._proven.add(host)

    def is_proven(self, host: str) -> bool:
        """Whether the other side is there, as far as that is known."""
        return host in self._proven

    def begin(self, owner: object, host: str, packets: int, now: float) -> Refusal | None:
        """Give `owner` the right to send so many to `host`, until it calls `end`; or say why not."""
        if not self.is_proven(host):
            return Refusal.UNPROVEN
        return self._quota.begin(owner, host, packets, now)

    def left(self, host: str, now: float) -> int:
        """Packets that `host` may get now, if it is proven."""
        return self._quota.left(host, now)

    def spend(self, owner: object, host: str, now: float) -> bool:
        """Count one packet to `host`; False when it must not be sent."""
        return self._quota.spend(owner, host, now)

    def end(self, owner: object) -> None:
        """The spray of `owner` is over. Of one that has not begun nothing is heard."""
        self._quota.end(owner)
