"""Meeting by two tokens that people hand each other: no server, and no third party at all.

The side that reads first (the joining one) cannot know when its own token is read. It checks at once, which
the other side answers where it can be reached: both translators stay open between them then. Where it cannot,
this side keeps its own translators open for what may come, quietly. The meeting begins as soon as a check
arrives, for only its token tells how to make one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence

from crowline.api.meeting_point import Callbacks
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.errors import NobodyCame, NoPath, UsageError
from crowline.base.secrets import Secret
from crowline.link.hub import HubLink
from crowline.link.quic import warm_up
from crowline.net.patience import within
from crowline.rendezvous.candidates import address_of
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import Keyed, MeetingFailed, PeerPresent, Signalled, TokenReady, Welcomed
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import CandidateSignal, Description, Signal
from crowline.rendezvous.token_meeting import TokenMeeting
from crowline.rendezvous.wire import VERSION, ServerAddress, Welcome

# Seconds for STUN servers and routers to say under which address this side is seen; and for what this
# machine knows by itself.
GATHER_LIMIT = 3.0
LOCAL_LIMIT = 0.3
# Seconds between two openers: translators keep a silent flow for 30 s (RFC 4787 REQ-5 asks for more).
OPENER_INTERVAL = 5.0
# Hops of openers: beyond a home's translator and a carrier's, and short of the other side's, which might keep
# a stray packet and give its own side's flow another port because of it.
OPENER_HOPS = (4, 7)
# Seconds in which a person has pasted the answer: openers are sent as long.
ANSWER_LIMIT = 900.0

_HINT = (
    "One side needs a public address, a router that opens ports, or a translator that keeps ports: "
    "--stun HOST:PORT finds out what leads here. With a server there is a relay."
)

_UNREACHABLE = (
    "Nothing is known that leads here from outside: the other side must be in this network, or be reachable "
    "itself."
)


class ByTokens:
    """`answers`: the token of the hosting side, at the joining one. `stun`: servers that say under which
    address they see this side, or none. `maps`: the router is asked for ports, and waited for. `loopback`:
    both sides are on this machine.
    """

    url = "tokens"
    has_server = False
    caution = ""

    def __init__(
        self,
        answers: str = "",
        *,
        stun: Sequence[ServerAddress] = (),
        maps: bool = True,
        loopback: bool = False,
    ) -> None:
        self._answers = answers
        self._stun = tuple(stun)
        self._loopback = loopback
        self._patience = GATHER_LIMIT if stun or (maps and not loopback) else 0.0

    def no_path(self) -> NoPath:
        return NoPath("No direct path was found, and without a server nothing else can carry.", hint=_HINT)

    def nobody_came(self) -> NobodyCame:
        return NobodyCame(hint="Each side has to paste the token that the other one shows.")

    async def open(self, role: Role, code: Code | None, callbacks: Callbacks) -> TokenPoint:
        """Raises `WrongCode` for a token that is none, or not for this side."""
        meeting = TokenMeeting(role, os.urandom)
        if role is Role.JOIN:
            meeting.read(self._answers)
        warm_up()
        return TokenPoint(role, meeting, callbacks, self._stun, self._patience, loopback=self._loopback)


class TokenPoint:
    """A meeting point whose messages are two tokens. Nothing is told to the other side after that."""

    link: HubLink | None = None
    server_host = ""

    def __init__(
        self,
        role: Role,
        meeting: TokenMeeting,
        callbacks: Callbacks,
        stun: Sequence[ServerAddress],
        patience: float,
        *,
        loopback: bool,
    ) -> None:
        self.is_loopback = loopback
        self.received_at = 0.0
        self._role = role
        self._meeting = meeting
        self._callbacks = callbacks
        self._stun = tuple(stun)
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._ufrag = b""
        self._has_met = False
        # Set when somebody has said how this side is seen from outside.
        self._seen = asyncio.Event()
        self._traversal: Traversal | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, traversal: Traversal) -> None:
        self._traversal = traversal
        self._task = asyncio.create_task(self._run(), name="tokens")

    def signal(self, signal: Signal) -> None:
        """Goes into the token, while that is not written."""
        if isinstance(signal, Description) and not self._ufrag:
            self._ufrag = signal.ufrag.encode()
        self._meeting.signal(signal)
        if self._meeting.is_reflexive:
            self._seen.set()

    def answer(self, text: str) -> None:
        """Take the other side's token. Raises `WrongCode` for one that does not answer this side's."""
        if self._role is not Role.HOST or self._has_met:
            raise UsageError("A token is answered once, by the side that wrote the first one.")
        self._meeting.read(text)
        self._meet()

    def vouch(self, host: str) -> None:
        """Nobody has seen the other side."""

    def open_link(self, role: Role, key: Secret) -> None:
        """There is no server that could carry anything."""

    def flush_link(self) -> None: ...

    def follow(self, gone: Collection[str]) -> None:
        """The other side cannot be told: it learns new addresses from this side's checks."""

    def verify(self) -> None:
        """Tokens have no way that could end."""

    async def close(self) -> None:
        if self._traversal is not None:
            self._traversal.on_heard = lambda *_: None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        assert self._traversal is not None
        self._callbacks.on_event(Welcomed(Welcome(VERSION, stun=self._stun)))
        self._traversal.offer()
        await self._gather()
        token = self._meeting.write()
        if self._role is Role.JOIN:
            self._traversal.on_heard = self._on_check
        if not self._meeting.is_public and not self.is_loopback:
            self._callbacks.on_warning(_UNREACHABLE)
        self._callbacks.on_event(TokenReady(str(token)))
        if self._role is Role.JOIN:
            await self._keep_open()

    async def _gather(self) -> None:
        """Wait for what is found, a moment longer than for the first answer from outside."""
        await within(self._patience, self._seen.wait())
        await asyncio.sleep(LOCAL_LIMIT)

    async def _keep_open(self) -> None:
        """Until a check comes: let in what may come from where the other side says it is."""
        assert self._traversal is not None
        end = self._loop.time() + ANSWER_LIMIT
        signals = []
        for each in self._meeting.heard():
            if isinstance(each, Description):
                self._traversal.set_remote(each)
            elif isinstance(each, CandidateSignal):
                self._traversal.hear(each)
                signals.append(each)
        addresses = [each for each in (address_of(s.host, s.port) for s in signals) if each is not None]
        number = 0
        while self._loop.time() < end and not self._has_met:
            for address in addresses:
                self._traversal.knock(address, OPENER_HOPS[number % len(OPENER_HOPS)])
            number += 1
            await asyncio.sleep(OPENER_INTERVAL if number > len(OPENER_HOPS) else LOCAL_LIMIT)
        if not self._has_met:
            self._callbacks.on_event(
                MeetingFailed(NobodyCame(hint="The other side has to paste your token within 15 minutes."))
            )

    def _on_check(self, data: memoryview, source: Address, local: Address) -> None:
        """Somebody has this side's token: only that tells what a check names and is signed with."""
        assert self._traversal is not None
        if self._has_met or self._ufrag + b":" not in bytes(data):
            return
        if self._traversal.agent.authenticates(data):
            self._meet()

    def _meet(self) -> None:
        assert self._meeting.key is not None
        self._has_met = True
        self.received_at = self._loop.time()
        tell = self._callbacks.on_event
        tell(PeerPresent(None))
        tell(Keyed(self._meeting.key, self._meeting.words))
        for signal in self._meeting.heard():
            tell(Signalled(signal))
