"""The actions of WANIPConnection and WANPPPConnection: requests, and what their results say."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum

from crowline.base.errors import UsageError
from crowline.portmap.upnp.soap import Action, Answered, check_value

MAX_LEASE = 604_800
"""Seconds, one week (WANIPConnection:2 §2.3.18)."""


class Protocol(Enum):
    """The transport that a port belongs to, as gateways write it."""

    TCP = "TCP"
    UDP = "UDP"


@dataclass(frozen=True, slots=True)
class PortMapping:
    """An outside port that leads to `host` and `inside`; everybody may use it.

    `lease` is in seconds; 0 asks for a mapping without an end, which version 2 takes as the longest.
    """

    protocol: Protocol
    outside: int
    inside: int
    host: str
    lease: int
    description: str = "crowline"

    def __post_init__(self) -> None:
        if not (1 <= self.outside <= 65535 and 1 <= self.inside <= 65535):
            raise UsageError("A port is a number from 1 to 65535.")
        if not 0 <= self.lease <= MAX_LEASE:
            raise UsageError(f"A lease is 0 to {MAX_LEASE} seconds.")
        check_value(self.description)
        try:
            ipaddress.IPv4Address(self.host)
        except ValueError:
            raise UsageError("A port is mapped to an IPv4 address.") from None


@dataclass(frozen=True, slots=True)
class MappingEntry:
    """What the gateway says of a mapping it has; `lease` is what remains, 0 without an end."""

    host: str
    inside: int
    lease: int


def get_external_address() -> Action:
    return Action("GetExternalIPAddress")


def add_port_mapping(mapping: PortMapping) -> Action:
    return Action("AddPortMapping", _arguments(mapping))


def add_any_port_mapping(mapping: PortMapping) -> Action:
    """Version 2 only: where the port is taken, the gateway chooses another."""
    return Action("AddAnyPortMapping", _arguments(mapping))


def delete_port_mapping(protocol: Protocol, outside: int) -> Action:
    return Action("DeletePortMapping", _key(protocol, outside))


def get_port_mapping(protocol: Protocol, outside: int) -> Action:
    return Action("GetSpecificPortMappingEntry", _key(protocol, outside))


def read_external_address(answer: Answered) -> str | None:
    """The address in canonical form; ``None`` for an empty or unreadable one."""
    try:
        return str(ipaddress.IPv4Address(answer.results.get("newexternalipaddress", "")))
    except ValueError:
        return None


def read_reserved_port(answer: Answered) -> int | None:
    """The port that AddAnyPortMapping gave."""
    port = read_number(answer, "newreservedport")
    return port if port is not None and 1 <= port <= 65535 else None


def read_entry(answer: Answered) -> MappingEntry | None:
    """``None`` where the answer names no host and port."""
    host = answer.results.get("newinternalclient", "")
    inside = read_number(answer, "newinternalport")
    if not host or inside is None:
        return None
    return MappingEntry(host, inside, read_number(answer, "newleaseduration") or 0)


def read_number(answer: Answered, name: str) -> int | None:
    """A result of at most 32 bits; ``None`` for anything else."""
    text = answer.results.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    number = int(text)
    return number if number < 2**32 else None


def _key(protocol: Protocol, outside: int) -> tuple[tuple[str, str], ...]:
    return (
        ("NewRemoteHost", ""),
        ("NewExternalPort", str(outside)),
        ("NewProtocol", protocol.value),
    )


def _arguments(mapping: PortMapping) -> tuple[tuple[str, str], ...]:
    return (
        *_key(mapping.protocol, mapping.outside),
        ("NewInternalPort", str(mapping.inside)),
        ("NewInternalClient", mapping.host),
        ("NewEnabled", "1"),
        ("NewPortMappingDescription", mapping.description),
        ("NewLeaseDuration", str(mapping.lease)),
    )
