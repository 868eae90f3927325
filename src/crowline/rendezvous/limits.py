"""What one meeting, one source and one hub may use. Each number has its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HubLimits:
    """Safe from the start; a self-hoster may raise them."""

    first_message: float = 10.0
    """Seconds until a connection has said what it wants: a client says so at once."""

    code_lifetime: float = 3600.0
    """Seconds that an unclaimed code is good: time enough to read it out on the telephone."""

    idle: float = 600.0
    """Seconds without any message after which a meeting is closed; clients ping every 60."""

    grace: float = 30.0
    """Seconds that a side whose WebSocket broke may take to come back."""

    number_rest: float = 3600.0
    """Seconds until a used number is given out again, so that an old code burns nobody's new one."""

    mailbox_bytes: int = MIB
    """Bytes of signals kept for a meeting's sides, in case that they have to come back."""

    text_bytes: int = MIB
    """Bytes of signals that a meeting may send at once; a candidate has 300."""

    text_rate: float = 1024.0
    """Bytes of signals a second beyond that, for long meetings whose networks change."""

    budget: int = 4 * MIB
    """Bytes of link zero a meeting, both sides together: chat and small files, not a relay for everything."""

    link_rate: int = 0
    """Bytes of link zero a second for a meeting beyond its budget; 0: none, as traffic costs the owner."""

    link_rate_total: int = 0
    """The same for all meetings together; 0: as many times that as there are meetings."""

    mailboxes: int = 10_000
    """Meetings at once; with full mailboxes they would take 10 GB, with usual ones 50 MB."""

    mailboxes_per_source: int = 32
    """Meetings at once that one address may host: an office behind one NAT."""

    claims_per_minute: int = 10
    """Attempts to join from one address; a person types one or two a minute."""

    allocations_per_minute: int = 20
    """New codes from one address."""

    meets_per_minute: int = 60
    """Sides from one address that come by a name: an office whose server was away."""

    looks_per_minute: int = 30
    """Questions from one address who waits where, each for `wire.MAX_LOOKED_UP` names."""

    vouches: int = 64
    """Questions of a side whether the other is at some address: one a candidate."""

    exempt_loopback: bool = True
    """No rates for this machine itself: tests and the reverse proxy in front of a hub come from there."""
