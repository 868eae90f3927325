"""Where two sides hear of each other: what a connection needs of a hub, and of what stands in for one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from crowline.base.errors import NobodyCame, NoPath
from crowline.base.machine import Buffer
from crowline.base.secrets import Secret
from crowline.link.hub import HubLink
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import MeetingEvent
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Signal

if TYPE_CHECKING:
    from crowline.api.traversal.traversal import Traversal


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Whom a meeting point tells: of the meeting, of link zero, and of what becomes of its own way there."""

    on_event: Callable[[MeetingEvent], None]
    on_link_data: Callable[[Buffer], None]
    on_link_down: Callable[[str], None]
    on_link_room: Callable[[], None]
    on_broken: Callable[[], None]
    on_returned: Callable[[], None]
    on_closed: Callable[[], None]
    on_warning: Callable[[str], None]


class MeetingPoint(Protocol):
    """One meeting, as one side takes part in it."""

    @property
    def link(self) -> HubLink | None:
        """Link zero, once it is open."""

    @property
    def received_at(self) -> float:
        """When what is being told came, in seconds of the loop's clock."""

    @property
    def server_host(self) -> str:
        """The name or address of the server, by which its own services are reached; empty without one."""

    @property
    def is_loopback(self) -> bool:
        """Whether the other side may be on this machine."""

    def start(self, traversal: Traversal) -> None:
        """Begin; only from now on is anything told. `traversal` is this side's."""

    def signal(self, signal: Signal) -> None:
        """Tell the other side, sealed, as soon as there is a key."""

    def vouch(self, host: str) -> None:
        """Ask whether the other side was seen at that IP address: `HostVouched` follows if so."""

    def open_link(self, role: Role, key: Secret) -> HubLink | None:
        """Make the way to the meeting link zero; None where it carries no session."""

    def flush_link(self) -> None:
        """Send what the session gave link zero."""

    def follow(self, gone: Collection[str]) -> None:
        """This machine's network changed; it no longer has the addresses `gone`."""

    def verify(self) -> None:
        """Nothing works any more: find out soon whether the way to the meeting point does."""

    async def close(self) -> None:
        """Leave, and release everything."""


class Place(Protocol):
    """How to get to a meeting point."""

    @property
    def url(self) -> str:
        """What a path through the place is called."""

    @property
    def has_server(self) -> bool:
        """Whether a server is there that can carry what finds no direct way."""

    @property
    def caution(self) -> str:
        """What people should know of this place before they use it, in a sentence, or nothing."""

    def nobody_came(self) -> NobodyCame:
        """What to say where nobody came in time."""

    def no_path(self) -> NoPath:
        """What to say where no direct path was found and there is no server."""

    async def open(self, role: Role, code: Code | None, callbacks: Callbacks) -> MeetingPoint:
        """Raises `ServerUnreachable`, `LocalProblem`, `UsageError`."""
