"""What a gateway has open for everybody on its network, read entry by entry."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.portmap.upnp.description import Service
from crowline.portmap.upnp.mapping import Call, Conversation
from crowline.portmap.upnp.port_actions import Protocol, read_number
from crowline.portmap.upnp.soap import Action, Answered

MAX_ENTRIES = 256
"""Entries that are read: a gateway that never says that there are no more would be asked for ever."""

MAX_DESCRIPTION = 64
"""Characters of a description that are kept."""


@dataclass(frozen=True, slots=True)
class ListedPort:
    """An outside port that leads to `inside`; `lease` is what remains in seconds, 0 without an end.

    `description` is what some program said that it is for.
    """

    protocol: Protocol
    port: int
    inside: Address
    lease: int
    description: str


def list_ports(service: Service) -> Conversation[tuple[ListedPort, ...]]:
    """All entries, up to the first that the gateway does not give."""
    found: list[ListedPort] = []
    for index in range(MAX_ENTRIES):
        outcome = yield Call(service, get_entry(index))
        if not isinstance(outcome, Answered):
            break
        entry = read_listed(outcome)
        if entry is not None and entry not in found:
            found.append(entry)
    return tuple(found)


def get_entry(index: int) -> Action:
    return Action("GetGenericPortMappingEntry", (("NewPortMappingIndex", str(index)),))


def read_listed(answer: Answered) -> ListedPort | None:
    """``None`` where host, ports or protocol make no sense."""
    results = answer.results
    protocol = results.get("newprotocol", "").upper()
    port, inside = read_number(answer, "newexternalport"), read_number(answer, "newinternalport")
    if protocol not in Protocol.__members__ or not _is_port(port) or not _is_port(inside):
        return None
    try:
        host = str(ipaddress.IPv4Address(results.get("newinternalclient", "")))
    except ValueError:
        return None
    return ListedPort(
        Protocol[protocol],
        port or 0,
        Address(host, inside or 0),
        read_number(answer, "newleaseduration") or 0,
        results.get("newportmappingdescription", "")[:MAX_DESCRIPTION],
    )


def _is_port(number: int | None) -> bool:
    return number is not None and 1 <= number <= 65535
