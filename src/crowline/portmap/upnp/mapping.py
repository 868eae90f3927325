"""How a port is mapped with a gateway of any temper: one conversation, step by step.

A conversation is a generator: it yields the `Call` to make next and is sent its `Outcome`; what it returns
is a `Grant` or a `Refusal`. It knows neither time nor transport.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from crowline.portmap.upnp.description import Service
from crowline.portmap.upnp.port_actions import (
    MappingEntry,
    PortMapping,
    add_any_port_mapping,
    add_port_mapping,
    delete_port_mapping,
    get_port_mapping,
    read_entry,
    read_reserved_port,
)
from crowline.portmap.upnp.soap import Action, Answered, Fault, Outcome, Unanswered
from crowline.portmap.upnp.upnp_error import UpnpError

MAX_TRIES = 6
"""Requests for one mapping, with whatever was changed between them, before the gateway is given up."""

FIRST_FREE_PORT = 1024
"""Ports below are often forbidden, as routers use them for themselves."""

Entropy: TypeAlias = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """An action to ask of a service."""

    service: Service
    action: Action


@dataclass(frozen=True, slots=True)
class Grant:
    """The gateway has opened `port` for `lease` seconds; a lease of 0 has no end.

    `is_verified` says that the gateway, asked again, named us. `identity` is the number of a pinhole.
    """

    port: int
    lease: int
    is_verified: bool = False
    identity: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is opened; `words` says why, `code` is the gateway's if it gave one."""

    words: str
    code: int | None = None


T = TypeVar("T")
Conversation: TypeAlias = Generator[Call, Outcome, T]

# Codes that routers without leases give for one, beside the one that says so.
_NO_LEASES = {UpnpError.ONLY_PERMANENT_LEASES, UpnpError.INVALID_ARGUMENTS, UpnpError.ACTION_FAILED}
_TAKEN = {UpnpError.CONFLICT, UpnpError.CONFLICT_WITH_OTHER_MECHANISM}


def open_port(service: Service, mapping: PortMapping, entropy: Entropy) -> Conversation[Grant | Refusal]:
    """Map the port, or another outside port where that one is taken."""
    attempt = _Attempt(service, mapping, entropy)
    refusal: Fault | Unanswered = Fault(UpnpError.CONFLICT)
    for _ in range(MAX_TRIES):
        outcome = yield Call(service, attempt.action())
        port = attempt.port_of(outcome)
        entry = None if _is_final(outcome) else (yield from _look_up(service, mapping, port))
        is_ours = entry is not None and (entry.host, entry.inside) == (mapping.host, mapping.inside)
        if is_ours and not _is_taken(outcome):
            return _grant(attempt.mapping, port, entry)
        if isinstance(outcome, Answered):
            if entry is None:
                return _grant(attempt.mapping, port, None)
            # It says yes, and has the port lead to somebody else.
            outcome = Fault(UpnpError.CONFLICT)
        elif is_ours and not attempt.has_cleared:
            # Some routers refuse to renew what is there already, even to its owner.
            attempt.has_cleared = True
            yield Call(service, delete_port_mapping(mapping.protocol, port))
            continue
        refusal = outcome
        if not attempt.adapt(refusal):
            break
    return Refusal(refusal.words, refusal.code if isinstance(refusal, Fault) else None)


def close_port(service: Service, mapping: PortMapping) -> Conversation[bool]:
    """Remove a mapping of ours; whether it is gone."""
    outcome = yield Call(service, delete_port_mapping(mapping.protocol, mapping.outside))
    return isinstance(outcome, Answered) or outcome == Fault(UpnpError.NO_SUCH_ENTRY)


class _Attempt:
    """What is asked next, after each refusal changed to what the gateway may take."""

    def __init__(self, service: Service, mapping: PortMapping, entropy: Entropy) -> None:
        self.mapping = mapping
        self.has_cleared = False
        self._chooses = service.type.chooses_ports
        self._any = False
        self._must_be_same = False
        self._has_repeated = False
        self._entropy = entropy

    def action(self) -> Action:
        return add_any_port_mapping(self.mapping) if self._any else add_port_mapping(self.mapping)

    def port_of(self, outcome: Outcome) -> int:
        """The outside port that the gateway has chosen, or else the one that was asked for."""
        chosen = read_reserved_port(outcome) if self._any and isinstance(outcome, Answered) else None
        return chosen or self.mapping.outside

    def adapt(self, outcome: Fault | Unanswered) -> bool:
        """Whether there is something else to try after that outcome."""
        if isinstance(outcome, Unanswered):
            # A second silence says enough; a single one may be a lost connection.
            repeats, self._has_repeated = not self._has_repeated, True
            return repeats
        code = outcome.code
        if code in _TAKEN:
            return self._take_another_port()
        if code == UpnpError.SAME_PORTS_REQUIRED and not self._must_be_same:
            self._must_be_same, self._any = True, False
            self.mapping = replace(self.mapping, outside=self.mapping.inside)
            return True
        if self._any and code in (UpnpError.INVALID_ACTION, UpnpError.NOT_IMPLEMENTED):
            self._chooses = self._any = False
            return self._take_another_port()
        if code in _NO_LEASES and self.mapping.lease:
            self.mapping = replace(self.mapping, lease=0)
            return True
        return False

    def _take_another_port(self) -> bool:
        if self._must_be_same:
            return False
        if self._chooses and not self._any:
            self._any = True
            return True
        span = 65536 - FIRST_FREE_PORT
        port = FIRST_FREE_PORT + int.from_bytes(self._entropy(4), "big") % span
        self.mapping = replace(self.mapping, outside=port)
        return True


def _look_up(service: Service, mapping: PortMapping, port: int) -> Conversation[MappingEntry | None]:
    """What the gateway has at that outside port; ``None`` where it has nothing or does not say."""
    outcome = yield Call(service, get_port_mapping(mapping.protocol, port))
    return read_entry(outcome) if isinstance(outcome, Answered) else None


def _is_final(outcome: Outcome) -> bool:
    """A refusal after which the gateway has surely done nothing, and has nothing of ours."""
    return isinstance(outcome, Fault) and outcome.code != UpnpError.ACTION_FAILED and not _is_taken(outcome)


def _is_taken(outcome: Outcome) -> bool:
    return isinstance(outcome, Fault) and outcome.code in _TAKEN


def _grant(mapping: PortMapping, port: int, entry: MappingEntry | None) -> Grant:
    """The shorter of the lease that was asked for and of the one that the gateway names."""
    if entry is None:
        return Grant(port, mapping.lease)
    leases = [lease for lease in (mapping.lease, entry.lease) if lease]
    return Grant(port, min(leases, default=0), is_verified=True)
