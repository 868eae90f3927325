"""How many sockets this process may have open, and what that means for limits."""

from __future__ import annotations

import sys

from crowline.turn.quota import Limits

if sys.platform != "win32":
    import resource

ENOUGH = 65_536
"""Descriptors: what a server of this kind fills on one machine."""


def raise_limit() -> None:
    """As many descriptors as the system lets this process have, at most `ENOUGH`."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def default_limits() -> Limits:
    """Each allocation is a descriptor; half of them stay for clients of the hub and everything else."""
    if sys.platform == "win32":
        return Limits()
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return Limits()
    return Limits(allocations=min(Limits().allocations, descriptors // 2))
