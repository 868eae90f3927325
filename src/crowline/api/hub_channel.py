"""The WebSocket to the hub with the two machines on it: the meeting (text) and link zero (binary)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Protocol

from crowline.api.meeting_point import Callbacks
from crowline.api.peer_hub import believed
from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, NobodyCame, NoPath, UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.link.events import LinkData, LinkDown, LinkEvent
from crowline.link.hub import HubLink
from crowline.link.quic import warm_up
from crowline.net.patience import within
from crowline.net.pump import Pump
from crowline.net.websocket import HubSocket
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import BudgetGranted, HostVouched, MeetingEvent, Welcomed
from crowline.rendezvous.keys import derive
from crowline.rendezvous.meeting import Meeting
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.seal import Opener, Sealer
from crowline.rendezvous.signals import Signal
from crowline.rendezvous.wire import VERSION, Welcome

if TYPE_CHECKING:
    from crowline.api.traversal.traversal import Traversal

# Seconds between two looks at whether the WebSocket has room again.
_DRAIN_INTERVAL = 0.01
# The meeting has one other end; its address says nothing.
HUB = Address("0.0.0.0", 0)
# Seconds for the answer of a hub that is asked whether it is still there.
PROOF_LIMIT = 3.0
# Seconds before each attempt to reach the hub again; together less than the 30 s it keeps a place.
RETURN_DELAYS = (0.2, 1.0, 2.0, 4.0, 8.0, 8.0)


class MessageSocket(Protocol):
    """A way to a hub: whole messages, in order. Text is signalling, binary is link zero."""

    @property
    def url(self) -> str: ...

    @property
    def server_host(self) -> str:
        """The name or address of the hub's machine; empty where that offers nothing else."""

    @property
    def is_loopback(self) -> bool:
        """Whether the hub is on this machine, and so the other side may be too."""

    @property
    def local_host(self) -> str:
        """This machine's address at which the way ends; empty where that does not matter."""

    @property
    def queued(self) -> int:
        """Bytes that have not been handed to the kernel yet."""

    def send(self, message: str | bytes) -> None:
        """Queue a message; order is kept."""

    def messages(self) -> AsyncIterator[str | bytes]:
        """Every message until the way ends, which is no error here."""

    def abort(self) -> None:
        """Cut it: it leads nowhere. `messages` ends."""

    async def close(self) -> None:
        """Send what is queued, as far as a second allows, and close. A cancelled close cuts."""


class HubChannel:
    """Carries one meeting, by another WebSocket when the first one breaks.

    Link zero ends with the WebSocket that it began on: frames may be missing. `on_broken` is called at each
    break, `on_returned` when the hub was reached again, `on_closed` once, when it could not be. `reach` makes
    a new way to the hub where that is no WebSocket; without `returns` there is none. Without `carries` link
    zero is left out. `peer_hosts`: the hub is in the other side's own process, at one of these IP addresses,
    and is not believed what it says of anything else (`peer_hub.believed`).
    """

    def __init__(
        self,
        socket: MessageSocket,
        meeting: Meeting,
        callbacks: Callbacks,
        *,
        reach: Callable[[], Awaitable[MessageSocket]] | None = None,
        returns: bool = True,
        carries: bool = True,
        peer_hosts: Collection[str] = (),
    ) -> None:
        self.socket = socket
        self._reach = reach
        self._returns = returns
        self._carries = carries
        self._peer_hosts = peer_hosts
        self.link: HubLink | None = None
        # When the message that is being worked on came, seconds of the loop's clock.
        self.received_at = 0.0
        self._meeting = meeting
        self._pump = Pump[Transmit, MeetingEvent](meeting, self._send_text, self._on_meeting_event)
        self._callbacks = callbacks
        self._welcome = Welcome(VERSION)
        self._link_pump: Pump[bytes, LinkEvent] | None = None
        self._loop = asyncio.get_running_loop()
        self._drain_timer: asyncio.TimerHandle | None = None
        self._reader: asyncio.Task[None] | None = None
        self._is_broken = False
        self._hurry = asyncio.Event()
        self._proof_timer: asyncio.TimerHandle | None = None

    @property
    def server_host(self) -> str:
        return self.socket.server_host

    @property
    def is_loopback(self) -> bool:
        return self.socket.is_loopback

    def start(self, traversal: Traversal | None = None) -> None:
        """Begin the meeting and read what the hub sends."""
        self._meeting.open(self._pump.now)
        self._pump.flush()
        self._reader = asyncio.create_task(self._run(), name="hub reader")

    def signal(self, signal: Signal) -> None:
        """Send to the other side, sealed, as soon as there is a key."""
        self._meeting.signal(signal)
        self._pump.flush()

    def vouch(self, host: str) -> None:
        """Ask whether the hub has seen the other side at that IP address: `HostVouched` follows if so.

        Where the other side is the hub, this side knows by itself where it is.
        """
        if host in self._peer_hosts:
            self._loop.call_soon(self._callbacks.on_event, HostVouched(host))
        elif not self._peer_hosts:
            self._meeting.vouch(host)
            self._pump.flush()

    def open_link(self, role: Role, key: Secret) -> HubLink | None:
        """Make the WebSocket link zero, sealed with the meeting's key."""
        if not self._carries:
            return None
        keys = {each: derive(key, f"link-zero/{each.value}") for each in Role}
        credit = self._welcome.credit
        self.link = HubLink(Sealer(keys[role]), Opener(keys[role.other]), credit)
        self.link.grant(credit, final=not self._welcome.grants_more)
        self._link_pump = Pump[bytes, LinkEvent](self.link, self._send_frame, self._on_link_event)
        return self.link

    def flush_link(self) -> None:
        """Send what the session gave link zero; look again later when it has no room."""
        if self.link is None or self._link_pump is None:
            return
        self._link_pump.flush()
        self.link.queued = self.socket.queued
        if self.link.queued and self._drain_timer is None:
            self._drain_timer = self._loop.call_later(_DRAIN_INTERVAL, self._drained)

    def follow(self, gone: Collection[str]) -> None:
        """This machine's network changed; it no longer has the addresses `gone`.

        `on_returned` is called as soon as the other side can be told, which may be at once.
        """
        if self._is_broken:
            self._hurry.set()
        elif self.socket.local_host in gone:
            self._hurry.set()
            self.socket.abort()
        else:
            self._callbacks.on_returned()

    def verify(self) -> None:
        """Nothing works any more: find out soon whether this way does, and seek another where it does not."""
        if self._is_broken:
            self._hurry.set()
        elif self._proof_timer is None:
            self._meeting.ping()
            self._pump.flush()
            self._proof_timer = self._loop.call_later(PROOF_LIMIT, self._judge, self._pump.now)

    async def close(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        self._ask_no_more()
        self._pump.close()
        if self._link_pump is not None:
            self._link_pump.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self.socket.close()

    def _ask_no_more(self) -> None:
        """The answer of a way that has ended says nothing of the next one."""
        if self._proof_timer is not None:
            self._proof_timer.cancel()
            self._proof_timer = None

    def _judge(self, asked_at: float) -> None:
        self._proof_timer = None
        if self.received_at < asked_at:
            self._hurry.set()
            self.socket.abort()

    def _drained(self) -> None:
        self._drain_timer = None
        self.flush_link()
        self._callbacks.on_link_room()

    def _send_text(self, transmit: Transmit) -> None:
        self.socket.send(bytes(transmit.data).decode())

    def _send_frame(self, frame: bytes) -> None:
        self.socket.send(frame)

    def _on_meeting_event(self, event: MeetingEvent) -> None:
        """Hand on all but what concerns link zero alone."""
        if self._peer_hosts:
            event = believed(event)
        if isinstance(event, BudgetGranted):
            self._on_grant(event)
            return
        if isinstance(event, Welcomed):
            self._welcome = event.welcome
        self._callbacks.on_event(event)

    def _on_grant(self, event: BudgetGranted) -> None:
        if self.link is not None:
            self.link.grant(event.limit, final=event.final)
            self.flush_link()
            self._callbacks.on_link_room()

    def _on_link_event(self, event: LinkEvent) -> None:
        if isinstance(event, LinkData):
            self._callbacks.on_link_data(event.data)
        elif isinstance(event, LinkDown):
            self._callbacks.on_link_down(event.reason)

    async def _run(self) -> None:
        """Read, and come back after each break, until that fails."""
        returned = True
        while returned:
            await self._read()
            self._is_broken = True
            self._ask_no_more()
            if self.link is not None and self._link_pump is not None:
                self.link.close("the connection to the server ended")
                self._link_pump.flush()
            self._callbacks.on_broken()
            returned = self._returns and await self._come_back()
        self._callbacks.on_closed()

    async def _come_back(self) -> bool:
        """Whether the meeting goes on by a new WebSocket."""
        for delay in RETURN_DELAYS:
            await within(delay, self._hurry.wait())
            self._hurry.clear()
            try:
                socket = await (self._reach() if self._reach else HubSocket.connect(self.socket.url))
            except CrowlineError:
                continue
            # Ours from now on: `close` may cancel the farewell to the broken one.
            broken, self.socket = self.socket, socket
            await broken.close()
            try:
                self._meeting.reopen(self._pump.now)
            except UsageError:
                return False
            self._is_broken = False
            self._pump.flush()
            self._callbacks.on_returned()
            return True
        return False

    async def _read(self) -> None:
        async for message in self.socket.messages():
            self.received_at = self._pump.now
            if isinstance(message, str):
                self._meeting.receive(message.encode(), HUB, self.received_at)
                self._pump.flush()
            elif self.link is not None and self._link_pump is not None:
                self.link.receive(message, None, self.received_at)
                self._link_pump.flush()


class AtServer:
    """The hub of a server, named by its URL. `hides`: it is to confirm no address of this side."""

    has_server = True
    caution = ""

    def __init__(self, url: str, *, hides: bool = False) -> None:
        self.url = url
        self._hides = hides

    def nobody_came(self) -> NobodyCame:
        return NobodyCame(hint="Is the code still the one on the other screen?")

    def no_path(self) -> NoPath:
        return NoPath()

    async def open(self, role: Role, code: Code | None, callbacks: Callbacks) -> HubChannel:
        """Reach the hub. Raises `ServerUnreachable`, and `UsageError` for a URL that is none."""
        socket = await reach_hub(self.url)
        meeting = Meeting(role, pake_factory=Spake2Pake, entropy=os.urandom, code=code, hidden=self._hides)
        return HubChannel(socket, meeting, callbacks)


async def reach_hub(url: str) -> HubSocket:
    """Connect, and meanwhile do what would cost the meeting milliseconds later."""
    connecting = asyncio.create_task(HubSocket.connect(url))
    try:
        await asyncio.sleep(0)
        warm_up()
        return await connecting
    except BaseException:
        # It may have connected in the very moment in which nobody wants it any more.
        connecting.cancel()
        [late] = await asyncio.gather(connecting, return_exceptions=True)
        if isinstance(late, HubSocket):
            await late.close()
        raise
