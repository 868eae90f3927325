"""What hub and clients tell each other, what is sealed between the two sides, and codes and candidates."""

from __future__ import annotations

import random

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.punch.punch_signals import PunchCall, PunchOver, PunchPool, PunchProfile, PunchReady
from crowline.rendezvous import signals, wire
from crowline.rendezvous.candidates import from_signal, may_be_checked, to_signal
from crowline.rendezvous.code import EXAMPLE, Code, CodeTypo
from crowline.rendezvous.hub import Hub
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.meeting import HUB, Meeting
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.seal import Opener, SealBroken, Sealer
from fuzz.harness import Harness

_ADDRESS = wire.ServerAddress("", 3478)
_GRANT = wire.TurnGrant((_ADDRESS,), "1:user", "password", 3600)
FROM_CLIENT = tuple(
    wire.encode(message)
    for message in (
        wire.Allocate(1, b"A" + bytes(32)), wire.Claim(1, 7, b"B" + bytes(32)), wire.Resume(1, "token", 3),
        wire.Relay("confirm", bytes(32)), wire.Relay("sealed", b"body"), wire.Burn(), wire.Leave(),
        wire.Ping(), wire.Vouch("192.0.2.1"),
    )
)  # fmt: skip
FROM_HUB = tuple(
    wire.encode(message)
    for message in (
        wire.Welcome(1, (_ADDRESS,), 4 << 20, motd="Hello", credit=1 << 18), wire.Allocated(7, "token", 3600),
        wire.Claimed(b"A" + bytes(32), "token", _GRANT), wire.Joined(b"B" + bytes(32), None),
        wire.Relayed("sealed", b"body"), wire.Resumed(3), wire.Left(final=True), wire.Back(),
        wire.Budget(1000, final=True), wire.Gone("burned"), wire.Error("slow-down", 60), wire.Pong(),
        wire.Vouched("192.0.2.1"),
    )
)  # fmt: skip
SIGNALS = tuple(
    signals.encode(signal)
    for signal in (
        signals.Description("ufrag", "password", "0" * 64),
        signals.CandidateSignal("f", 1, "udp", 1, "192.0.2.1", 5000, "srflx", "10.0.0.1", 5000),
        signals.EndOfCandidates(),
        PunchProfile("per_port", "per_host", "random", True, "unknown", "192.0.2.1"),
        PunchCall(3, "spray", "callee"),
        PunchReady(3, "192.0.2.1", (5000, 5001), PunchPool(2000, 3000, 2048, 2)),
        PunchOver(3, "no-pattern"),
        signals.Hello("name"),
        signals.Bye(0, "Done."),
    )
)
_JSON = (
    b'{"t":"',
    b'"v":1',
    b"null",
    b"1e999",
    b"-0",
    b"[" * 50,
    b"{" * 50,
    b'"\\ud800"',
    b"\xed\xa0\x80",
    b"9" * 400,
)
_SEPARATOR = b"\n"


def run_client_message(data: bytes) -> None:
    """What is accepted says the same when it is written and read again."""
    message = wire.decode_client(data)
    assert wire.decode_client(wire.encode(message)) == message


def run_hub_message(data: bytes) -> None:
    """The same from the hub; a grant never shows its password."""
    message = wire.decode_hub(data)
    assert wire.decode_hub(wire.encode(message)) == message


def run_signal(data: bytes) -> None:
    """The same for signals; a candidate is taken whole or not at all."""
    signal = signals.decode(data)
    assert signals.decode(signals.encode(signal)) == signal
    if not isinstance(signal, signals.CandidateSignal):
        return
    candidate = from_signal(signal)
    if candidate is None:
        return
    assert from_signal(to_signal(candidate, private=True)) == candidate
    if may_be_checked(candidate.address, own=["192.168.1.2"], loopback=False):
        assert candidate.address.port >= 1024


def run_hub(data: bytes) -> None:
    """Lines of a number and a message: a hub survives them, and talks only to who is connected."""
    hub = Hub(entropy=random.Random(1).randbytes, limits=HubLimits(budget=1000, link_rate=0, text_bytes=2000))
    connected = set[int]()
    for step, line in enumerate(data.split(_SEPARATOR)[:50]):
        now, number, message = float(step), line[0] % 5 if line else 0, line[1:]
        if number not in connected:
            connected.add(number)
            hub.connect(number, Address(f"192.0.2.{number}", 5000), now)
            _take(hub, connected)
        kind = line[0] // 5 % 8 if line else 0
        if kind == 0:
            connected.discard(number)
            hub.disconnect(number, now, is_clean=len(message) % 2 == 0)
        elif kind == 1:
            hub.receive_binary(number, message, now)
        elif kind == 2:
            hub.handle_timeout(now + len(message))
        else:
            hub.receive(number, message, now)
        _take(hub, connected)
    for number in connected:
        hub.disconnect(number, 100.0, is_clean=True)
    hub.handle_timeout(10_000.0)
    assert len(hub) == 0


def run_meeting(data: bytes) -> None:
    """Lines from a hub: both roles survive whatever it says, and say no more after they have failed."""
    for role in Role:
        code = Code.parse(EXAMPLE) if role is Role.JOIN else None
        meeting = Meeting(role, pake_factory=Spake2Pake, entropy=random.Random(2).randbytes, code=code)
        meeting.open(0.0)
        for step, line in enumerate(data.split(_SEPARATOR)[:50]):
            meeting.receive(line, HUB, float(step))
            meeting.handle_timeout(float(step))
        while meeting.next_event() is not None or meeting.next_transmit() is not None:
            pass


def run_seal(data: bytes) -> None:
    """Nothing opens that was not sealed, and nothing opens after that."""
    opener, sealed = Opener(Secret(bytes(32))), Sealer(Secret(bytes(32))).seal(b"plain")
    if data != sealed:
        assert not _opens(opener, data)
        assert not _opens(opener, sealed)


def run_code(data: bytes) -> None:
    """What is read as a code is one, and reads the same when it is written plainly."""
    code = Code.parse(data.decode("utf-8", "replace"))
    assert Code.parse(str(code)) == code
    assert Code.from_secret(code.number, code.secret) == code


def _take(hub: Hub, connected: set[int]) -> None:
    while (delivery := hub.next_transmit()) is not None:
        assert delivery.connection in connected
        if delivery.close is not None:
            connected.discard(delivery.connection)


def _opens(opener: Opener, data: bytes) -> bool:
    try:
        opener.open(data)
    except SealBroken:
        return False
    return True


_HUB_SEEDS = (
    _SEPARATOR.join(
        [b"\x0f" + FROM_CLIENT[0], b"\x10" + FROM_CLIENT[1], b"\x0f" + FROM_CLIENT[4], b"\x05binary", b"\1"]
    ),
    _SEPARATOR.join([b"\x0f" + message for message in FROM_CLIENT]),
)
_MEETING_SEEDS = (_SEPARATOR.join(FROM_HUB), _SEPARATOR.join([FROM_HUB[0], FROM_HUB[2], FROM_HUB[4]]))
_RENDEZVOUS = "crowline/rendezvous/"

HARNESSES = (
    Harness("hub-client-message", run_client_message, _RENDEZVOUS, FROM_CLIENT, (wire.MalformedWire,), _JSON),
    Harness("hub-hub-message", run_hub_message, _RENDEZVOUS, FROM_HUB, (wire.MalformedWire,), _JSON),
    Harness("hub-machine", run_hub, _RENDEZVOUS, _HUB_SEEDS, (), (*FROM_CLIENT, _SEPARATOR)),
    Harness("hub-meeting", run_meeting, _RENDEZVOUS, _MEETING_SEEDS, (), (*FROM_HUB, _SEPARATOR)),
    Harness("signal", run_signal, _RENDEZVOUS, SIGNALS, (signals.MalformedSignal,), _JSON),
    Harness("seal", run_seal, _RENDEZVOUS, (b"", bytes(21), bytes(64))),
    Harness(
        name="code",
        run=run_code,
        module=_RENDEZVOUS,
        seeds=(
            EXAMPLE.encode(),
            b"crowline receive '7 Maple Orbit Candle'",
            b"7mapleorbitcandle",
            b"7-maple-orbit",
        ),
        allowed=(CodeTypo,),  # what the caller shows, with near misses
        tokens=(b"maple", b"orbit", b"candle", "\uff17".encode(), b"9" * 5000, "\u0131".encode(), b"-"),
    ),
)
