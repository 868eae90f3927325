"""What is known of a translator, facet by facet, in words for a table."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from typing import Protocol

from crowline.punch.port_pattern import PortPattern
from crowline.stun.nat_findings import Facet, Filtering, Hairpinning, Mapping, Reason


class _Profile(Protocol):
    """What a profile of UDP and one of TCP have in common."""

    @property
    def answers(self) -> bool: ...
    @property
    def mapping(self) -> Mapping: ...
    @property
    def hairpinning(self) -> Hairpinning: ...
    @property
    def ports(self) -> PortPattern: ...
    @property
    def unknown(self) -> MappingOf[Facet, Reason]: ...


def facet_rows(profile: _Profile, filtering: Filtering) -> list[tuple[str, str]]:
    """Each facet and what is known of it, for a table."""
    unknown = profile.unknown
    if not profile.answers:
        return [("mapping", _said(unknown, Facet.MAPPING, Mapping.UNKNOWN.value))]
    rows = [
        ("mapping", _said(unknown, Facet.MAPPING, profile.mapping.value)),
        ("filtering", _said(unknown, Facet.FILTERING, filtering.value)),
    ]
    if profile.mapping is not Mapping.NONE:
        rows.append(("hairpinning", _said(unknown, Facet.HAIRPINNING, profile.hairpinning.value)))
        rows.append(("ports", _said(unknown, Facet.ALLOCATION, str(profile.ports))))
    return rows


def _said(unknown: MappingOf[Facet, Reason], facet: Facet, value: str) -> str:
    """One facet's value, with the reason where it is unknown or not certain."""
    if facet not in unknown:
        return value
    is_known = value != Mapping.UNKNOWN.value
    return f"{'probably ' if is_known else ''}{value} ({unknown[facet].value})"
