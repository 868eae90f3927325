"""How a transport address is spoken to."""

from __future__ import annotations

from enum import Enum


class Transport(Enum):
    """The protocol below STUN and TURN: the third part of a 5-tuple (RFC 8656 §2)."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    """TLS over TCP."""

    # Members are single objects: the hash of each is its own, and costs no call into Python for a packet.
    __hash__ = object.__hash__

    @property
    def is_stream(self) -> bool:
        """Whether messages follow each other without borders, reliably and in order."""
        return self is not Transport.UDP
