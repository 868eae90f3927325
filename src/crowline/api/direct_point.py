"""Meeting where both sides name each other's host and one port, as chownat had it: no third party.

Both bind that port and send to it until their translators let the other in; over what has opened goes a
meeting as with a server, whose hub the hosting side has in its pocket. Then ICE checks the same port pair
with all others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import replace

from crowline.api.hub_channel import HubChannel, MessageSocket
from crowline.api.meeting_point import Callbacks
from crowline.api.pocket_hub import PocketHub
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.errors import NobodyCame, NoPath, UsageError, WrongCode
from crowline.base.secrets import Secret
from crowline.ice.candidate import CandidateType, candidate_priority
from crowline.link.hub import HubLink
from crowline.link.quic import warm_up
from crowline.net.datagram_messages import DatagramMessages
from crowline.net.interfaces import source_towards
from crowline.net.name_lookup import look_up
from crowline.rendezvous.candidates import LOWEST_PORT
from crowline.rendezvous.code import Code
from crowline.rendezvous.datagram_stream import StreamOpened, Way
from crowline.rendezvous.events import CodeReady, MeetingEvent, MeetingFailed, Signalled
from crowline.rendezvous.meeting import Meeting
from crowline.rendezvous.numbers import Numbers
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import CandidateSignal, Description, Signal

DEFAULT_PORT = 47_000
"""Neither anybody's service nor among those that systems give out by themselves."""

_NUMBER = 1
"""The only meeting of a pocket hub; both sides know it."""

_OPEN = (
    "No password: whoever answers at {host} is taken for the other side. Compare the words on both screens."
)


_NEEDS = (
    "Does the other side name this side's public address? Both translators have to keep the port; where one "
    "draws another for each destination, only a server helps, or a public address on the other side."
)

# Seconds of silence after which a person is told what it may be.
_PATIENCE = 30.0


class Direct:
    """`host`: a name or address of the other side as seen from outside. `local_port`: this side's, where it
    differs. Without a password nobody proves to be who was meant; what is sent is encrypted all the same.
    """

    has_server = False

    def __init__(
        self,
        host: str,
        port: int = DEFAULT_PORT,
        *,
        password: str = "",
        local_port: int | None = None,
        local_host: str | None = None,
    ) -> None:
        self.url = f"udp://{host}:{port}"
        self.caution = "" if password else _OPEN.format(host=host)
        self._host = host
        self._port = port
        self._local_port = port if local_port is None else local_port
        self._local_host = local_host
        self._password = unicodedata.normalize("NFKC", password).encode()
        if not all(LOWEST_PORT <= each <= 65535 for each in (self._port, self._local_port)):
            raise UsageError(f"The port lies between {LOWEST_PORT} and 65535.")

    def nobody_came(self) -> NobodyCame:
        return NobodyCame(f"Nothing came from {self._host}.", hint=_NEEDS)

    def no_path(self) -> NoPath:
        return NoPath(
            "The other side was heard, and no path to it lasted.", hint="With a server there is a relay."
        )

    async def open(self, role: Role, code: Code | None, callbacks: Callbacks) -> DirectPoint:
        """Raises `UsageError` for a name that has no address, `LocalProblem` where the port is taken."""
        ways = await self._ways()
        loopback = all(ipaddress.ip_address(way.remote.host).is_loopback for way in ways)
        messages = DatagramMessages(ways, knocks=role is Role.JOIN, loopback=loopback, url=self.url)
        warm_up()
        hosts = {way.remote.host for way in ways}
        return DirectPoint(role, messages, self._password, callbacks, hosts)

    async def _ways(self) -> list[Way]:
        """From the address that this machine would use itself, one for each family that leads there."""
        ways: dict[bool, Way] = {}
        try:
            hosts = await look_up(self._host)
        except (OSError, ValueError):
            hosts = []
        for host in hosts:
            address = Address(host.partition("%")[0], self._port)
            source = self._local_host or source_towards(address)
            if source is not None and (":" in source) == address.is_ipv6:
                ways.setdefault(address.is_ipv6, Way(Address(source, self._local_port), address))
        if not ways:
            raise UsageError(
                f"{self._host} has no address that leads anywhere from here.",
                hint="Name the other side's public address, or a name that has it.",
            )
        return list(ways.values())


class DirectPoint:
    """A meeting point that is there as soon as the other side is."""

    server_host = ""

    def __init__(
        self,
        role: Role,
        messages: DatagramMessages,
        password: bytes,
        callbacks: Callbacks,
        peer_hosts: Collection[str],
    ) -> None:
        self.is_loopback = messages.is_loopback
        self._role = role
        self._messages = messages
        self._callbacks = callbacks
        self._hub: PocketHub | None = None
        # Set when the meeting has its number; whoever claims that earlier is refused.
        self._is_hosted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._opened: StreamOpened | None = None
        code = Code.from_secret(_NUMBER, 0) if role is Role.JOIN else None
        meeting = Meeting(role, pake_factory=Spake2Pake, entropy=os.urandom, code=code, password=password)
        socket: MessageSocket = messages
        if role is Role.HOST:
            self._hub = PocketHub(_KnownNumber())
            socket = self._hub.attach(messages.url, loopback=messages.is_loopback)
        self._channel = HubChannel(
            socket,
            meeting,
            replace(callbacks, on_event=self._on_event),
            returns=False,
            carries=False,
            peer_hosts=peer_hosts if role is Role.JOIN else (),
        )

    @property
    def link(self) -> HubLink | None:
        return None

    @property
    def received_at(self) -> float:
        return self._channel.received_at

    def start(self, traversal: Traversal) -> None:
        for socket in self._messages.hand_over():
            local = socket.local
            traversal.adopt(socket, self._taker(local))
        self._messages.start()
        self._task = asyncio.create_task(self._run(traversal), name="direct meeting")

    def signal(self, signal: Signal) -> None:
        self._channel.signal(signal)

    def vouch(self, host: str) -> None:
        self._channel.vouch(host)

    def open_link(self, role: Role, key: Secret) -> None:
        """What has opened carries the meeting only: a link of its own has its own flow control."""

    def flush_link(self) -> None: ...

    def follow(self, gone: Collection[str]) -> None:
        """Where this side has another address now, the other side has to be told by what is still there."""
        self._callbacks.on_returned()

    def verify(self) -> None:
        """The way to the meeting point is one of those that do not work."""

    async def close(self) -> None:
        await self._channel.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._messages.close()
        if self._hub is not None:
            self._hub.close()

    async def _run(self, traversal: Traversal) -> None:
        await asyncio.wait({self._messages.opened}, timeout=_PATIENCE)
        if not self._messages.opened.done():
            self._callbacks.on_warning(f"Nothing has come yet. {_NEEDS}")
        self._opened = await self._messages.opened
        self._channel.start(traversal)
        if self._hub is not None:
            await self._is_hosted.wait()
            await self._hub.serve(self._messages, self._opened.remote)
            self._callbacks.on_closed()

    def _taker(self, local: Address) -> Callable[[memoryview, Address], bool]:
        return lambda data, source: self._messages.take(data, source, local)

    def _on_event(self, event: MeetingEvent) -> None:
        """The meeting's own, but for what means something else here."""
        if isinstance(event, CodeReady):
            self._is_hosted.set()
            return
        if isinstance(event, MeetingFailed) and isinstance(event.error, WrongCode):
            event = MeetingFailed(
                WrongCode("The two sides gave different passwords.", hint="Agree on one, and try again.")
            )
        self._callbacks.on_event(event)
        if isinstance(event, Signalled) and isinstance(event.signal, Description):
            # The other side cannot know as what this one sees it.
            assert self._opened is not None
            remote = self._opened.remote
            priority = candidate_priority(CandidateType.SERVER_REFLEXIVE, 65535)
            seen = CandidateSignal("seen", 1, "udp", priority, remote.host, remote.port, "srflx")
            self._callbacks.on_event(Signalled(seen))


class _KnownNumber(Numbers):
    """Always the same one."""

    def __init__(self) -> None:
        super().__init__(os.urandom, 0.0)

    def draw(self, is_taken: Callable[[int], bool], now: float) -> int | None:
        return None if is_taken(_NUMBER) else _NUMBER
