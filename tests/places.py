"""Places in the world of the laboratory that are not among the presets."""

from __future__ import annotations

from dataclasses import replace

from crowline.lab.presets import PRESETS
from crowline.lab.profile import Ipv6, Profile


def with_ipv6(name: str, ipv6: Ipv6) -> Profile:
    """That preset with IPv6 of that kind beside it."""
    return replace(PRESETS[name], ipv6=ipv6)
