"""The client's side of a meeting: from a code to a proven key, then sealed signals until one side leaves.

Both sides put their PAKE element into their first message, so each has the other's as soon as the hub knows
that both are there. Each then sends the proof of its key and, right behind it, the signals that were waiting;
a side acts on signals only after the other's proof. That takes one message each way after `PeerPresent`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from enum import Enum, auto

import msgspec

from crowline.base.addresses import Address
from crowline.base.errors import (
    CrowlineError,
    MalformedMessage,
    NobodyCame,
    ProtocolViolation,
    ServerUnreachable,
    UsageError,
)
from crowline.base.machine import Buffer, Transmit
from crowline.rendezvous import signals, wire
from crowline.rendezvous.appointment import Appointment
from crowline.rendezvous.code import Code
from crowline.rendezvous.entrance import Entrance
from crowline.rendezvous.events import (
    BudgetGranted,
    CodeReady,
    HostVouched,
    Keyed,
    MeetingEvent,
    MeetingFailed,
    PeerLeft,
    PeerPresent,
    PeerReturned,
    PlaceReady,
    Signalled,
    Welcomed,
)
from crowline.rendezvous.failures import of_error, of_gone, stranger, wrong_guess
from crowline.rendezvous.handshake import Handshake
from crowline.rendezvous.pake import BadElement, Pake, PakeFactory
from crowline.rendezvous.role import Role
from crowline.rendezvous.seal import Opener, SealBroken, Sealer
from crowline.rendezvous.sent import SentLog
from crowline.rendezvous.vouching import Vouching

__all__ = ["HUB", "Meeting", "MeetingEvent", "Role"]

HUB = Address("0.0.0.0", 0)
"""The destination of every transmit: a meeting has one other end, and its address says nothing."""

ANSWER_LIMIT = 10.0
"""Seconds for the hub's answer to the first message; it only looks something up."""

PROOF_LIMIT = 30.0
"""Seconds for the other side's proof once both are there: it computes for milliseconds, and may resume."""

PING_INTERVAL = 60.0
"""Seconds between signs of life; the hub forgets a meeting after ten minutes without any."""

MAX_MOTD = 200
"""Characters of the server's message of the day that are shown."""

SENT_BYTES = 256 * 1024
"""Bytes of own messages kept for the case that the WebSocket breaks."""


class _State(Enum):
    NEW = auto()
    ASKED = auto()
    WAITING = auto()
    PROVING = auto()
    KEYED = auto()
    OVER = auto()


class Meeting:
    """A machine whose `receive` takes one text message of the hub and whose transmits are text messages.

    A host has no `code` and gets one (`CodeReady`); a joining side brings it; with an `appointment` neither
    has one, and who comes first waits. `counters`: what was dropped.
    `hidden`: the hub is to confirm nobody at which address this side is.
    """

    def __init__(
        self,
        role: Role,
        *,
        pake_factory: PakeFactory,
        entropy: Callable[[int], bytes],
        code: Code | None = None,
        password: bytes | None = None,
        hidden: bool = False,
        appointment: Appointment | None = None,
    ) -> None:
        """`password`: what both sides know, where that is not the code's words."""
        self.counters: Counter[str] = Counter()
        self._role = role
        self._is_hidden = hidden
        self._entrance = Entrance(role, entropy, code, password, appointment)
        known = self._entrance.password
        self._make_pake: Callable[[], Pake] = lambda: pake_factory(role, known, entropy)
        self._pake: Pake | None = None
        self._handshake: Handshake | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._state = _State.NEW
        self._welcomed = False
        self._token = ""
        self._received = 0
        self._connected = True
        self._vouching = Vouching()
        self._waiting: list[signals.Signal] = []
        self._sent: SentLog[wire.Relay] = SentLog(SENT_BYTES)
        self._deadline: float | None = None
        self._next_ping: float | None = None
        self._transmits: deque[bytes] = deque()
        self._events: deque[MeetingEvent] = deque()

    @property
    def code(self) -> Code | None:
        """The code, once there is one."""
        return self._entrance.code

    def open(self, now: float) -> None:
        """Begin. The PAKE's first half is computed here; the WebSocket need not be open yet."""
        if self._state is not _State.NEW:
            raise UsageError("That meeting has begun already.")
        self._pake = self._make_pake()
        self._state = _State.ASKED
        self._deadline = now + ANSWER_LIMIT
        self._next_ping = now + PING_INTERVAL
        self._send(self._entrance.request(self._pake.element, is_hidden=self._is_hidden))

    def reopen(self, now: float) -> None:
        """Go on with a new WebSocket after the old one broke; nothing that was sent or missed is lost."""
        if self._state in (_State.NEW, _State.OVER):
            raise UsageError("There is no meeting to go on with.")
        self._transmits.clear()
        if not self._token:
            self._fail(ServerUnreachable("The connection to the server broke before it answered."))
            return
        self._connected = False
        self._deadline = now + ANSWER_LIMIT
        self._send(wire.Resume(wire.VERSION, self._token, self._received))

    def signal(self, signal: signals.Signal) -> None:
        """Tell the other side, sealed. Signals wait until there is a key; after the end they are dropped."""
        if self._state is _State.OVER:
            return
        if self._sealer is None:
            self._waiting.append(signal)
            return
        self._relay("sealed", self._sealer.seal(signals.encode(signal)))

    def vouch(self, host: str) -> None:
        """Ask the hub whether it has seen the other side at that IP address: `HostVouched` follows if so.

        Without a key, or where the hub does not know the question, nothing is asked.
        """
        if self._state is _State.KEYED and self._connected and self._vouching.ask(host):
            self._send(wire.Vouch(host))

    def ping(self) -> None:
        """Have the hub answer: whatever it says shows that the way there still leads there."""
        if self._connected and self._state not in (_State.NEW, _State.OVER):
            self._send(wire.Ping())

    def close(self, now: float) -> None:
        """Leave for good; the hub tells the other side."""
        if self._state in (_State.NEW, _State.OVER):
            self._end()
            return
        self._send(wire.Leave())
        self._end()

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        """One text message of the hub."""
        if self._state in (_State.NEW, _State.OVER):
            return
        try:
            message = wire.decode_hub(data)
        except MalformedMessage:
            self._on_malformed()
            return
        if isinstance(message, wire.Welcome):
            self._on_welcome(message)
        elif isinstance(message, wire.Error):
            self._fail(of_error(message))
        elif not self._welcomed:
            self._on_malformed()
        elif self._connected:
            self._on_message(message, now)
        elif isinstance(message, wire.Resumed):
            self._on_resumed(message, now)
        else:
            self.counters["unexpected"] += 1

    def handle_timeout(self, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self._on_deadline()
        if self._next_ping is not None and now >= self._next_ping:
            self._next_ping = now + PING_INTERVAL
            if self._connected and self._state is not _State.ASKED:
                self._send(wire.Ping())

    def next_timeout(self) -> float | None:
        times = [time for time in (self._deadline, self._next_ping) if time is not None]
        return min(times) if times else None

    def next_transmit(self) -> Transmit | None:
        return Transmit(self._transmits.popleft(), HUB) if self._transmits else None

    def next_event(self) -> MeetingEvent | None:
        return self._events.popleft() if self._events else None

    def _on_malformed(self) -> None:
        if self._welcomed:
            self.counters["malformed"] += 1
            return
        self._fail(
            ServerUnreachable(
                "What answers there is not a Crowline server, or one that speaks another version.",
                hint="Check the server's address, and update the older of the two.",
            )
        )

    def _on_welcome(self, message: wire.Welcome) -> None:
        if message.v != wire.VERSION:
            newer = "this program" if message.v > wire.VERSION else "the server"
            self._fail(
                ServerUnreachable(
                    f"The server speaks another version: {message.v}, and this program {wire.VERSION}.",
                    hint=f"Update {newer}.",
                )
            )
            return
        if not self._welcomed:
            self._welcomed = True
            self._vouching.is_known = message.vouches
            self._events.append(Welcomed(_tamed(message)))

    def _on_message(self, message: wire.HubMessage, now: float) -> None:
        if isinstance(message, wire.Relayed):
            self._received += 1
            self._on_relayed(message)
        elif isinstance(message, wire.Allocated | wire.Placed) and self._is_placed_by(message):
            self._on_placed(message)
        elif isinstance(message, wire.Joined | wire.Met) and self._is_met_by(message):
            self._received += 1
            self._on_both_there(message.element, message.turn, now)
        elif isinstance(message, wire.Claimed) and self._is_claimed_by(message):
            self._token = message.token
            self._on_both_there(message.element, message.turn, now)
        elif isinstance(message, wire.Left) and self._handshake is not None:
            self._on_left(message)
        elif isinstance(message, wire.Back) and self._handshake is not None:
            self._events.append(PeerReturned())
        elif isinstance(message, wire.Budget):
            self._events.append(BudgetGranted(message.limit, message.final))
        elif isinstance(message, wire.Vouched) and self._vouching.hear(message.host):
            self._events.append(HostVouched(message.host))
        elif isinstance(message, wire.Gone):
            self._fail(of_gone(message, met=self._handshake is not None, named=self._entrance.is_named))
        elif not isinstance(message, wire.Pong):
            self.counters["unexpected"] += 1

    def _is_placed_by(self, message: wire.HubMessage) -> bool:
        return self._state is _State.ASKED and self._entrance.is_place(message)

    def _is_met_by(self, message: wire.HubMessage) -> bool:
        return self._state is _State.WAITING and self._entrance.is_meeting(message)

    def _is_claimed_by(self, message: wire.HubMessage) -> bool:
        return self._state is _State.ASKED and self._entrance.is_claimed(message)

    def _on_placed(self, message: wire.Allocated | wire.Placed) -> None:
        self._token = message.token
        self._state = _State.WAITING
        self._deadline = None
        if isinstance(message, wire.Allocated):
            self._events.append(CodeReady(self._entrance.name_code(message.number)))
        else:
            self._events.append(PlaceReady())

    def _on_both_there(self, theirs: bytes, turn: wire.TurnGrant | None, now: float) -> None:
        assert self._pake is not None
        self._events.append(PeerPresent(turn))
        try:
            self._handshake = Handshake(self._role, self._entrance.label, self._pake, theirs)
        except BadElement:
            self._burn(self._wrong_guess())
            return
        self._pake = None
        self._state = _State.PROVING
        self._deadline = now + PROOF_LIMIT
        self._sealer = self._handshake.sealer()
        self._opener = self._handshake.opener()
        self._relay("confirm", self._handshake.confirmation())
        waiting, self._waiting = self._waiting, []
        for signal in waiting:
            self.signal(signal)

    def _on_relayed(self, message: wire.Relayed) -> None:
        if self._handshake is None:
            self.counters["unexpected"] += 1
        elif message.kind == "confirm":
            self._on_proof(message.body)
        elif self._state is _State.KEYED:
            self._on_sealed(message.body)
        else:
            self._burn(
                ProtocolViolation("The other side sent something before it proved that it knows the code.")
            )

    def _on_proof(self, proof: bytes) -> None:
        assert self._handshake is not None
        if self._state is not _State.PROVING:
            self.counters["unexpected"] += 1
        elif self._handshake.confirms(proof):
            self._state = _State.KEYED
            self._deadline = None
            self._events.append(Keyed(self._handshake.key, self._handshake.verifier()))
        else:
            self._burn(self._wrong_guess())

    def _wrong_guess(self) -> CrowlineError:
        return stranger() if self._entrance.is_named else wrong_guess(self._role)

    def _on_sealed(self, body: bytes) -> None:
        assert self._opener is not None
        try:
            signal = signals.decode(self._opener.open(body))
        except SealBroken:
            self._fail(SealBroken("The server altered or lost a message of the other side."))
        except signals.MalformedSignal:
            # A newer version of the other side may have more to say than this one understands.
            self.counters["malformed signal"] += 1
        else:
            self._events.append(Signalled(signal))

    def _on_left(self, message: wire.Left) -> None:
        self._events.append(PeerLeft(message.final, message.silent))
        if not message.final or self._state is _State.KEYED:
            return
        if self._role is Role.HOST and not self._entrance.is_named:
            self._fail(wrong_guess(self._role))
        else:
            self._fail(NobodyCame("The other side left before the meeting had begun."))

    def _on_resumed(self, message: wire.Resumed, now: float) -> None:
        missed = self._sent.since(message.received)
        if missed is None:
            self._fail(ServerUnreachable("The server lost messages of this meeting."))
            return
        self._connected = True
        self._deadline = now + PROOF_LIMIT if self._state is _State.PROVING else None
        for relay in missed:
            self._send(relay)

    def _on_deadline(self) -> None:
        self._deadline = None
        if self._state is _State.PROVING and self._connected:
            self._burn(NobodyCame("The other side came, and then did not answer."))
        else:
            self._fail(ServerUnreachable("The server does not answer."))

    def _relay(self, kind: wire.MessageKind, body: bytes) -> None:
        relay = wire.Relay(kind, body)
        self._sent.append(relay, len(body))
        if self._connected:
            self._send(relay)

    def _send(self, message: wire.ClientMessage) -> None:
        self._transmits.append(wire.encode(message))

    def _burn(self, error: CrowlineError) -> None:
        self._send(wire.Burn())
        self._fail(error)

    def _fail(self, error: CrowlineError) -> None:
        self._events.append(MeetingFailed(error))
        self._end()

    def _end(self) -> None:
        self._state = _State.OVER
        self._deadline = self._next_ping = None
        self._waiting.clear()


def _tamed(message: wire.Welcome) -> wire.Welcome:
    """The welcome with a message of the day that cannot move a cursor or fill a screen."""
    line = "".join(character for character in message.motd[: 4 * MAX_MOTD] if character.isprintable())
    return msgspec.structs.replace(message, motd=line[:MAX_MOTD])
