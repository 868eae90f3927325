"""Names in place of host addresses in candidates: draft-ietf-mmusic-mdns-ice-candidates."""

from __future__ import annotations

import re

# One label, which is a version 4 UUID (RFC 9562 §5.4), below the domain of multicast DNS. Every other name
# would be looked up for the other side, and tell it who else is on this network.
_NAME = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.local", re.IGNORECASE
)


def is_mdns_name(text: str) -> bool:
    """Whether a candidate may have that name in place of its address."""
    return _NAME.fullmatch(text) is not None


def mdns_name(random: bytes) -> str:
    """A new name from 16 random bytes."""
    fixed = bytearray(random)
    fixed[6] = fixed[6] & 0x0F | 0x40
    fixed[8] = fixed[8] & 0x3F | 0x80
    digits = fixed.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts) + ".local"
