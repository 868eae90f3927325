"""The hub of a virtual peer: the meeting and link zero, by one stream.

`api/hub_channel.py` without an event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.lab.stand_in_pake import StandInPake
from crowline.lab.virtual import Internet
from crowline.lab.virtual_hub_stream import VirtualHubStream
from crowline.lab.virtual_link_zero import VirtualLinkZero
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_site import VirtualSite
from crowline.lab.virtual_tcp import TcpHost
from crowline.link.events import LinkData, LinkDown, LinkEvent
from crowline.link.hub import HubLink
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import (
    BudgetGranted,
    CodeReady,
    HostVouched,
    Keyed,
    MeetingEvent,
    MeetingFailed,
    PeerPresent,
    Signalled,
    Welcomed,
)
from crowline.rendezvous.keys import derive
from crowline.rendezvous.meeting import HUB, Meeting
from crowline.rendezvous.role import Role
from crowline.rendezvous.seal import Opener, Sealer
from crowline.rendezvous.signals import Signal
from crowline.rendezvous.wire import ServerAddress


class HubOwner(Protocol):
    """What the channel tells its owner."""

    def on_welcome(self, stun: Address) -> None:
        """The hub is reached; a STUN server is there."""

    def on_present(self, turn: Address, username: str, password: str) -> None:
        """Both sides are there; a relay may be asked for."""

    def on_key(self, key: Secret) -> None:
        """Both sides have one key; `link_zero` is there with it."""

    def on_signal(self, signal: Signal) -> None: ...

    def on_host_vouched(self, host: str) -> None: ...

    def on_link_zero_data(self, data: Buffer) -> None: ...

    def on_link_zero_down(self, reason: str) -> None: ...

    def on_link_zero_news(self) -> None:
        """Bytes came by it, or it may carry more: the session may have something to send."""

    def on_failure(self, reason: str) -> None: ...


class VirtualHubChannel:
    """Begins at once. The host gets a code and gives it to `on_code`; the joining side has one."""

    def __init__(
        self,
        internet: Internet,
        site: VirtualSite,
        hub: Address,
        owner: HubOwner,
        *,
        code: Code | None,
        on_code: Callable[[Code], None],
    ) -> None:
        self.link_zero: VirtualLinkZero | None = None
        self._internet = internet
        self._owner = owner
        self._on_code = on_code
        self._credit = 0
        self._role = Role.HOST if code is None else Role.JOIN
        entropy = internet.random.randbytes
        self._meeting = Meeting(self._role, pake_factory=StandInPake, entropy=entropy, code=code)
        self._stream = VirtualHubStream(
            internet,
            site,
            hub,
            on_text=self._on_text,
            on_binary=self._on_binary,
            on_closed=self._on_closed,
        )
        self._pump: VirtualPump[Transmit, MeetingEvent] = VirtualPump(
            internet,
            self._meeting,
            lambda transmit: self._stream.send_text(bytes(transmit.data)),
            self._on_event,
        )
        self._meeting.open(internet.now)

    @property
    def tcp(self) -> TcpHost:
        """The host's TCP, by which the hub is reached too."""
        return self._stream.tcp

    def signal(self, signal: Signal) -> None:
        """Tell the other side something."""
        self._meeting.signal(signal)
        self._pump.flush()

    def vouch(self, host: str) -> None:
        """Ask whether the hub saw the other side there; `on_host_vouched` follows if so."""
        self._meeting.vouch(host)
        self._pump.flush()

    def _on_text(self, data: bytes) -> None:
        self._meeting.receive(data, HUB, self._internet.now)
        self._pump.flush()

    def _on_binary(self, data: bytes) -> None:
        if self.link_zero is not None:
            self.link_zero.receive(data)
            self._owner.on_link_zero_news()

    def _on_closed(self, reason: str) -> None:
        if self.link_zero is None:
            self._owner.on_failure(f"the server's connection: {reason}")
        self._owner.on_link_zero_down(reason)

    def _on_event(self, event: MeetingEvent) -> None:
        owner = self._owner
        if isinstance(event, Welcomed):
            self._credit = event.welcome.credit
            owner.on_welcome(self._service(event.welcome.stun))
        elif isinstance(event, CodeReady):
            self._on_code(event.code)
        elif isinstance(event, PeerPresent):
            assert event.turn is not None
            grant = event.turn
            owner.on_present(self._service(grant.servers), grant.username, grant.password)
        elif isinstance(event, Keyed):
            self._on_key(event.key)
        elif isinstance(event, Signalled):
            owner.on_signal(event.signal)
        elif isinstance(event, BudgetGranted) and self.link_zero is not None:
            self.link_zero.grant(event.limit, final=event.final)
            owner.on_link_zero_news()
        elif isinstance(event, HostVouched):
            owner.on_host_vouched(event.host)
        elif isinstance(event, MeetingFailed):
            owner.on_failure(event.error.message)

    def _on_key(self, key: Secret) -> None:
        sealer, opener = (derive(key, f"link-zero/{each.value}") for each in (self._role, self._role.other))
        link = HubLink(Sealer(sealer), Opener(opener), self._credit)
        self.link_zero = VirtualLinkZero(self._internet, link, self._stream.send_binary, self._on_link_event)
        self._owner.on_key(key)

    def _on_link_event(self, event: LinkEvent) -> None:
        if isinstance(event, LinkData):
            self._owner.on_link_zero_data(event.data)
        elif isinstance(event, LinkDown):
            self._owner.on_link_zero_down(event.reason)

    def _service(self, servers: tuple[ServerAddress, ...]) -> Address:
        """Where STUN and TURN are: an empty host means where the hub is."""
        return Address(servers[0].host or self._stream.hub.host, servers[0].port)
