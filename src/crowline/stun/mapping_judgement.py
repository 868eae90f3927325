"""What the mappings of one socket towards several servers say of a translator (RFC 5780 §4.3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence

from crowline.base.addresses import Address
from crowline.stun.nat_findings import Mapping, Reason


def judge_mapping(local: Address, seen: MappingOf[Address, Address]) -> tuple[Mapping, Reason | None]:
    """From the address of each server to that under which it sees `local`: the mapping, and what is in doubt.

    With `Mapping.UNKNOWN` the reason says why; beside another one it says why that is the likeliest only.
    """
    outside = set(seen.values())
    if not outside:
        return Mapping.UNKNOWN, Reason.NO_ANSWER
    if outside == {local}:
        return Mapping.NONE, None
    by_host: defaultdict[str, list[Address]] = defaultdict(list)
    for server, mapped in seen.items():
        by_host[server.host].append(mapped)
    groups = list(by_host.values())
    if len(outside) == 1:
        return _one(groups)
    if all(len(set(group)) == 1 for group in groups):
        # Hosts differ, and ports of one host do not, as far as they were asked.
        if max(len(group) for group in groups) > 1:
            return Mapping.ADDRESS_DEPENDENT, None
        return Mapping.ADDRESS_AND_PORT_DEPENDENT, Reason.ONE_PORT
    if sum(len(set(group)) for group in groups) > len(outside):
        # Another port of the same host changes the mapping, and another host does not.
        return Mapping.UNKNOWN, Reason.CONTRADICTION
    return Mapping.ADDRESS_AND_PORT_DEPENDENT, None


def _one(groups: Sequence[Sequence[Address]]) -> tuple[Mapping, Reason | None]:
    """All servers see the same address."""
    if len(groups) > 1:
        return Mapping.ENDPOINT_INDEPENDENT, None
    # Nearly all translators that do not look at ports do not look at hosts either.
    return (Mapping.ENDPOINT_INDEPENDENT if len(groups[0]) > 1 else Mapping.UNKNOWN), Reason.ONE_ADDRESS
