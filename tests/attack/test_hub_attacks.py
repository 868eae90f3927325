"""Attacks on the rendezvous, by the identifiers of the threat list: R hub, K keys."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import itertools
import json
import os
from collections.abc import Callable
from types import FunctionType, ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.base.errors import CrowlineError, IntegrityFailed, WrongCode
from crowline.rendezvous import wire
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import Keyed, MeetingFailed, Signalled, Welcomed
from crowline.rendezvous.hub import Hub
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.mailbox import MAX_HOSTS, Mailbox
from crowline.rendezvous.meeting import HUB, MAX_MOTD, Meeting
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Hello
from hub_bench import Bench
from hub_server import hear, hub_server, say
from rendezvous_room import Client, Room

# R: the hub


def test_r1_no_verb_lists_codes() -> None:
    """What could list, count or look for codes is malformed, and the connection ends."""
    for verb in ("list", "allocated", "stat", "who", "claim"):
        bench = Bench()
        bench.host()
        prober = bench.connect()
        assert bench.say(prober, json.dumps({"t": verb, "v": 1}).encode()) == [wire.Error("malformed")]
        assert bench.closed[prober] == 1008


def test_r1_unknown_used_and_expired_codes_look_alike() -> None:
    """The same bytes for a code that never was, one that is taken, one that is over, and a third side."""
    bench = Bench(HubLimits(claims_per_minute=100))
    _, taken = bench.host()
    bench.claim(taken)
    left, over = bench.host()
    bench.say(left, wire.Leave())
    _, expired = bench.host()
    bench.pass_time(4000)
    answers = [bench.claim(number)[1] for number in (taken, over, expired, 9_999_999)]
    assert answers == [wire.Error("no-such-code")] * 4


def test_r2_a_source_that_tries_codes_is_slowed_down_and_others_are_not() -> None:
    """Ten claims a minute for an address or an IPv6 /64; the rest is told how long to wait."""
    bench = Bench()
    _, number = bench.host()
    for source in ("203.0.113.9", "2001:db8::1"):
        answers = [bench.claim(candidate, source)[1] for candidate in range(100_000, 101_000)]
        assert answers.count(wire.Error("no-such-code")) == 10
        assert isinstance(answers[-1], wire.Error)
        assert answers[-1].code == "slow-down"
        assert 0 < answers[-1].retry <= 60
    same_subscriber = bench.claim(number, "2001:db8::ffff")[1]
    assert isinstance(same_subscriber, wire.Error) and same_subscriber.code == "slow-down"
    assert isinstance(bench.claim(number, "203.0.113.10")[1], wire.Claimed)


def test_r2_a_source_cannot_take_all_numbers() -> None:
    """Allocations have a rate and a cap for each source; others still get short numbers."""
    bench = Bench()
    answers = []
    for _ in range(600):
        connection = bench.connect("203.0.113.66")
        answers += bench.say(connection, wire.Allocate(wire.VERSION, b"host"))
        bench.pass_time(4)
    assert (
        sum(isinstance(answer, wire.Allocated) for answer in answers) == bench.hub.limits.mailboxes_per_source
    )
    assert answers[-1] == wire.Error("full")
    _, number = bench.host()
    assert number < 1000


def test_r3_one_guess_kills_a_code() -> None:
    """Of 200 guesses with wrong words at one code, one reaches the host; all the others are refused alike."""
    room = Room(limits=HubLimits(claims_per_minute=1000))
    host = room.host()
    room.run(1)
    code = room.code_of(host)
    guesses = [
        room.join(Code.from_secret(code.number, code.secret ^ guess), "203.0.113.5")
        for guess in range(1, 200)
    ]
    room.run(5)
    right = room.join(code)
    room.run(5)
    assert isinstance(host.error, WrongCode)
    assert all(isinstance(guess.error, WrongCode) for guess in [*guesses, right])
    assert not any(client.is_keyed for client in room.everyone)


def test_r4_a_third_side_changes_nothing() -> None:
    """It is refused, and the two go on."""
    host, join = (room := Room()).pair()
    third = room.join(room.code_of(host))
    room.run(1)
    assert isinstance(third.error, WrongCode)
    host.signal(Hello("undisturbed"))
    room.run(1)
    assert join.signals == [Hello("undisturbed")]


def test_r4_a_side_cannot_take_the_other_place_too() -> None:
    """A second claim or allocation on a connection in a meeting is out of turn and has no effect."""
    bench = Bench()
    host, number = bench.host()
    assert bench.say(host, wire.Claim(wire.VERSION, number, b"me again")) == []
    assert bench.say(host, wire.Allocate(wire.VERSION, b"me again")) == []
    assert isinstance(bench.claim(number)[1], wire.Claimed)


def test_r4_a_side_that_left_does_not_come_back() -> None:
    """Neither its token nor its code is good any more."""
    bench = Bench()
    host, number = bench.host()
    join, claimed = bench.claim(number)
    assert isinstance(claimed, wire.Claimed)
    bench.say(join, wire.Leave())
    assert bench.say(bench.connect(), wire.Resume(wire.VERSION, claimed.token, 0)) == [wire.Error("lost")]
    assert bench.claim(number)[1] == wire.Error("no-such-code")
    assert bench.heard[host][-1] == wire.Left(final=True)


async def test_r5_of_fifty_claims_at_once_one_wins() -> None:
    """Real connections that claim in the same moment: one gets the place, all others the same refusal."""
    async with hub_server() as server, server.connect() as host:
        await hear(host)
        await say(host, wire.Allocate(wire.VERSION, b"host"))
        allocated = await hear(host)
        assert isinstance(allocated, wire.Allocated)

        async def claim() -> wire.HubMessage:
            async with server.connect() as socket:
                await hear(socket)
                start.set() if next(ready) == 50 else await start.wait()
                await say(socket, wire.Claim(wire.VERSION, allocated.number, b"join"))
                return await hear(socket)

        ready, start = itertools.count(1), asyncio.Event()
        answers = await asyncio.gather(*(claim() for _ in range(50)))
        assert sum(isinstance(answer, wire.Claimed) for answer in answers) == 1
        assert answers.count(wire.Error("no-such-code")) == 49


@pytest.mark.parametrize(
    "number",
    [
        '"１２"',
        '"12"',
        "-1",
        "0",
        "1e3",
        "1.5",
        "9" * 1000,
        '"1\\n2"',
        '""',
        "{}",
        "null",
        "true",
        "10000000",
    ],
)
def test_r6_a_number_is_a_small_integer(number: str) -> None:
    """Anything else is malformed, whatever it looks like."""
    bench = Bench()
    claim = b'{"t":"claim","v":1,"element":"am9pbg==","number":%s}' % number.encode()
    assert bench.say(bench.connect(), claim) == [wire.Error("malformed")]


def test_r7_signals_are_bounded_in_size_and_sum() -> None:
    """A flood closes the meeting for both after 1 MiB, and the hub keeps nothing of it."""
    bench = Bench()
    host, number = bench.host()
    join, _ = bench.claim(number)
    body = bytes(40_000)
    sent = 0
    while join not in bench.closed:
        bench.say(join, wire.Relay("sealed", body))
        sent += len(body)
        assert sent <= bench.hub.limits.text_bytes + len(body)
    assert bench.heard[host][-1] == bench.heard[join][-1] == wire.Gone("flood")
    assert len(bench.hub) == 0


def test_r7_what_waits_for_an_absent_side_is_bounded() -> None:
    """Half a mailbox for each side; a side that missed more is told that it is lost."""
    bench = Bench(HubLimits(text_bytes=1 << 30))
    host, number = bench.host()
    join, claimed = bench.claim(number)
    assert isinstance(claimed, wire.Claimed)
    bench.hub.disconnect(join, bench.now)
    for _ in range(100):
        bench.say(host, wire.Relay("sealed", bytes(40_000)))
    found = bench.hub._store.by_token(claimed.token)
    assert found is not None
    assert found[1].log.size <= bench.hub.limits.mailbox_bytes // 2
    assert bench.say(bench.connect(), wire.Resume(wire.VERSION, claimed.token, 0)) == [wire.Error("lost")]


@pytest.mark.parametrize("size", [wire.MAX_MESSAGE + 1, 10_000_000])
def test_r7_an_oversized_message_ends_the_connection(size: int) -> None:
    """Text is malformed, a frame is dropped."""
    bench = Bench()
    host, number = bench.host()
    join, _ = bench.claim(number)
    bench.frame(host, bytes(size))
    assert bench.frames[join] == []
    assert bench.say(join, b'{"t":"ping","x":"' + b"x" * size + b'"}') == [wire.Error("malformed")]
    assert bench.closed[join] == 1008


def test_r7_abandoned_mailboxes_are_cleared() -> None:
    """Hosts that vanish, hosts that wait, meetings that fall silent: all gone in their time."""
    bench = Bench(HubLimits(mailboxes_per_source=1000, allocations_per_minute=1000, claims_per_minute=1000))
    for kind in range(300):
        connection, number = bench.host()
        if kind % 3 == 0:
            bench.hub.disconnect(connection, bench.now)
        elif kind % 3 == 1:
            bench.claim(number)
    assert len(bench.hub) == 300
    bench.pass_time(bench.hub.limits.grace + 1)
    assert len(bench.hub) == 200
    bench.pass_time(bench.hub.limits.idle)
    assert len(bench.hub) == 100
    bench.pass_time(bench.hub.limits.code_lifetime)
    assert len(bench.hub) == 0
    assert bench.hub.next_timeout() is None


def test_r7_nothing_is_kept_of_meetings_that_are_over() -> None:
    """However a meeting ends, its mailbox and its signals are let go at once, not when its timers go off."""
    bench = Bench(HubLimits(claims_per_minute=100))
    for ending in (wire.Leave(), wire.Burn()):
        host, number = bench.host()
        join, _ = bench.claim(number)
        bench.say(join, wire.Relay("sealed", bytes(40_000)))
        for side in (join, host):
            bench.say(side, ending)
        bench.disconnect(join)
    assert len(bench.hub) == 0
    assert [thing for thing in _reachable(bench.hub) if isinstance(thing, Mailbox)] == []


def test_r7_empty_messages_are_not_free() -> None:
    """Signals without a body use up the meeting's share too, and empty frames are not carried at all."""
    bench = Bench(HubLimits(text_bytes=10_000, budget=200))
    host, number = bench.host()
    join, _ = bench.claim(number)
    bench.frame(host, bytes(100))
    for _ in range(1000):
        bench.frame(host, b"")
    assert len(bench.frames[join]) == 1
    for _ in range(1000):
        bench.say(join, wire.Relay("sealed", b""))
    assert bench.heard[join][-1] == wire.Gone("flood")
    assert len(bench.heard[host]) < 200


def test_r7_a_side_that_comes_back_from_everywhere_does_not_grow_its_meeting() -> None:
    """The addresses of a meeting are bounded, and the latest ones count."""
    bench = Bench()
    host, number = bench.host()
    _, claimed = bench.claim(number)
    assert isinstance(claimed, wire.Claimed)
    for suffix in range(1, 1000):
        again = bench.connect(f"2001:db8::{suffix:x}")
        bench.say(again, wire.Resume(wire.VERSION, claimed.token, 0))
    box = bench.hub._store.by_number(number)
    assert box is not None and box.join is not None
    assert len(box.join.hosts) == MAX_HOSTS
    assert "2001:db8::3e7" in box.join.hosts
    assert host not in bench.closed


TAMPERINGS: dict[str, Callable[[bytes], list[bytes]]] = {
    "drop": lambda data: [],
    "replay": lambda data: [data, data],
    "flip": lambda data: [_flipped(data)],
    "cut": lambda data: [_cut(data)],
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
@pytest.mark.parametrize("kind", ["confirm", "sealed", "claimed", "joined"])
def test_r8_a_hub_that_tampers_can_only_deny(tampering: str, kind: str) -> None:
    """Dropped, repeated, altered, cut: no wrong key, no wrong signal, none twice or out of order."""
    said = [Hello(str(number)) for number in range(4)]
    room = Room()
    host = room.host()
    room.run(1)

    def tamper(client: Client, data: bytes) -> list[bytes]:
        is_hit = b'"%s"' % kind.encode() in data and room.dice.random() < 0.7
        return TAMPERINGS[tampering](data) if is_hit else [data]

    room.tamper = tamper
    join = room.join(room.code_of(host))
    for signal in said:
        host.signal(signal)
        join.signal(signal)
    room.run(120)
    for client in (host, join):
        assert client.signals == said[: len(client.signals)]
        assert client.is_keyed or not client.signals
    keys = {event.key.reveal() for client in (host, join) for event in client.of(Keyed)}
    assert len(keys) <= 1


def test_r8_reflected_proofs_and_signals_are_refused() -> None:
    """A hub that sends a side its own words back convinces it of nothing."""
    room = Room(pake=Spake2Pake)
    host = room.host()
    room.run(1)
    mine: list[wire.Relayed] = []

    def reflect(client: Client, data: bytes) -> list[bytes]:
        message = wire.decode_hub(data)
        if not isinstance(message, wire.Relayed):
            return [data]
        if client is not host:
            mine.append(message)
            return [data]
        return [wire.encode(mine.pop())] if mine else []

    room.tamper = reflect
    room.join(room.code_of(host))
    host.signal(Hello("mine"))
    room.run(40)
    assert not host.is_keyed
    assert host.signals == []
    assert isinstance(host.error, CrowlineError)


def test_r8_a_reflected_element_is_refused() -> None:
    """A hub that plays the other side with the host's own element gets no key out of it."""
    meeting = Meeting(Role.HOST, pake_factory=Spake2Pake, entropy=os.urandom)
    meeting.open(0)
    transmit = meeting.next_transmit()
    assert transmit is not None
    mine = wire.decode_client(transmit.data)
    assert isinstance(mine, wire.Allocate)
    for mark in (b"A", b"B"):
        element = mark + mine.element[1:]
        for message in (wire.Welcome(1), wire.Allocated(7, "token", 9), wire.Joined(element)):
            meeting.receive(wire.encode(message), HUB, 0)
        events = list(iter(meeting.next_event, None))
        failures = [event for event in events if isinstance(event, MeetingFailed)]
        assert mark == b"B" or [type(failure.error) for failure in failures] == [WrongCode]
        assert not any(isinstance(event, Keyed) for event in events)


def test_r8_an_altered_signal_is_an_integrity_failure() -> None:
    """The person learns that the server tampered: exit code 9."""
    host, join = (room := Room()).pair()
    room.tamper = lambda client, data: [_flipped(data)] if b"sealed" in data else [data]
    host.signal(Hello("to be altered"))
    room.run(1)
    assert isinstance(join.error, IntegrityFailed)
    assert join.signals == []


def test_r9_the_hub_holds_nothing_that_helps_a_thief() -> None:
    """Everything it ever kept or relayed, searched for the secret, the words, the key and the signals."""
    seen: list[bytes] = []
    room = Room(pake=Spake2Pake)
    original = room.hub.receive

    def spy(connection: int, data: bytes, now: float) -> None:
        seen.append(data)
        original(connection, data, now)

    room.hub.receive = spy  # type: ignore[assignment,method-assign]
    host, _ = room.pair()
    host.signal(Hello("a name that nobody else may read"))
    room.run(1)
    code = room.code_of(host)
    [keyed] = host.of(Keyed)
    raw = b"\n".join(seen)
    kept = raw + b"".join(
        base64.b64decode(part + b"==", validate=False) for part in raw.split(b'"') if len(part) > 16
    )
    secrets = [
        keyed.key.reveal(),
        code.password(),
        hashlib.sha256(code.password()).digest(),
        b"a name that nobody",
    ]
    for needle in [*secrets, *(word.encode() for word in code.words)]:
        assert needle not in kept


def test_r10_the_hub_stamps_the_sender() -> None:
    """A message cannot name its sender or its mailbox: only the other side gets it, as from this one."""
    bench = Bench()
    host, number = bench.host()
    join, _ = bench.claim(number)
    stranger, strange_number = bench.host()
    forged = {
        "t": "relay",
        "kind": "sealed",
        "body": "AAAA",
        "from": "host",
        "to": strange_number,
        "number": 1,
    }
    assert bench.say(join, json.dumps(forged).encode()) == []
    assert bench.heard[host][-1] == wire.Relayed("sealed", b"\0\0\0")
    assert len(bench.heard[stranger]) == 2


def test_r11_a_hub_that_forgot_everything_fails_cleanly() -> None:
    """After a restart a side that comes back is told within a round trip that the meeting is lost."""
    host, _ = (room := Room()).pair()
    host.lose_socket()
    room.hub = Hub(entropy=room.dice.randbytes)
    before = room.now
    host.come_back()
    room.run(30)
    assert host.at(MeetingFailed) - before < 1


def test_r12_hostile_text_of_a_hub_is_tamed() -> None:
    """A welcome of a megabyte is no welcome; a long one is one short line without control characters."""
    meeting = Meeting(Role.HOST, pake_factory=Spake2Pake, entropy=os.urandom)
    meeting.open(0)
    text = "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07\u202e" * 1000
    meeting.receive(wire.encode(wire.Welcome(1, motd=text)), HUB, 0)
    event = meeting.next_event()
    assert isinstance(event, Welcomed)
    assert len(event.welcome.motd) == MAX_MOTD
    assert event.welcome.motd.isprintable()
    other = Meeting(Role.HOST, pake_factory=Spake2Pake, entropy=os.urandom)
    other.open(0)
    other.receive(b'{"t":"welcome","v":1,"motd":"%s"}' % (b"x" * 1_000_000), HUB, 0)
    assert isinstance(other.next_event(), MeetingFailed)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=200), st.text().map(str.encode)), max_size=10))
def test_any_bytes_are_survived_by_the_hub(messages: list[bytes]) -> None:
    """Garbage at any point ends that connection only."""
    bench = Bench()
    host, number = bench.host()
    for message in messages:
        bench.say(bench.connect(), message)
        bench.hub.receive_binary(bench.connect(), message, bench.now)
    assert isinstance(bench.claim(number, "192.0.2.1")[1], wire.Claimed)
    assert host not in bench.closed


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=200), st.sampled_from([b"[" * 60_000, b'{"t":' * 10_000])), max_size=10
    )
)
def test_any_bytes_are_survived_by_a_meeting(messages: list[bytes]) -> None:
    """A client does not raise on what a hub sends."""
    meeting = Meeting(Role.HOST, pake_factory=Room().pake, entropy=os.urandom)
    meeting.open(0)
    meeting.receive(wire.encode(wire.Welcome(1)), HUB, 0)
    for message in messages:
        meeting.receive(message, HUB, 0)
    assert meeting.counters["malformed"] == len(messages)


# K: keys


def test_k1_an_invalid_element_burns_the_code() -> None:
    """The identity, a wrong length, garbage: refused before a key exists, and the code is used up."""
    for element in (b"B" + (1).to_bytes(32, "little"), b"B", b"", os.urandom(33), b"B" + b"\xff" * 32):
        meeting = Meeting(Role.HOST, pake_factory=Spake2Pake, entropy=os.urandom)
        meeting.open(0)
        meeting.next_transmit()
        for message in (wire.Welcome(1), wire.Allocated(7, "token", 9), wire.Joined(element)):
            meeting.receive(wire.encode(message), HUB, 0)
        transmit = meeting.next_transmit()
        assert transmit is not None
        assert wire.decode_client(transmit.data) == wire.Burn()
        assert meeting.next_transmit() is None


def test_k2_nothing_is_delivered_before_the_proof() -> None:
    """Signals of somebody who has not proven the key end the meeting, unread, even if they would open."""
    room = Room()
    host = room.host()
    room.run(1)
    room.tamper = lambda client, data: [] if client is host and b"confirm" in data else [data]
    join = room.join(room.code_of(host))
    join.signal(Hello("too early"))
    room.run(1)
    assert host.signals == [] and not host.is_keyed
    assert not host.of(Signalled)
    assert isinstance(host.error, CrowlineError)
    assert join.error is not None


def test_k3_no_part_of_the_secret_names_the_mailbox() -> None:
    """Numbers and secrets are drawn apart, and a claim tells only the number."""
    numbers = set()
    for seed in range(30):
        bench = Room(seed=seed)
        host = bench.host()
        bench.run(1)
        numbers.add(bench.code_of(host).number)
    assert len(numbers) > 4
    claim = wire.encode(wire.Claim(1, 7, b"element"))
    assert sorted(json.loads(claim)) == ["element", "hidden", "number", "t", "v"]


def _flipped(data: bytes) -> bytes:
    """One bit of the message's bytes field, so that it is still JSON and Base64."""
    table = json.loads(data)
    name = "body" if "body" in table else "element"
    raw = bytearray(base64.b64decode(table[name]))
    raw[len(raw) // 2] ^= 1
    table[name] = base64.b64encode(bytes(raw)).decode()
    return json.dumps(table).encode()


def _cut(data: bytes) -> bytes:
    table = json.loads(data)
    name = "body" if "body" in table else "element"
    table[name] = base64.b64encode(base64.b64decode(table[name])[:-1]).decode()
    return json.dumps(table).encode()


def _reachable(root: object) -> list[object]:
    """What `root` keeps alive, without classes and modules."""
    found: dict[int, object] = {}
    pending = [root]
    while pending:
        thing = pending.pop()
        if id(thing) in found or isinstance(thing, type | ModuleType | FunctionType):
            continue
        found[id(thing)] = thing
        pending += gc.get_referents(thing)
    return list(found.values())
