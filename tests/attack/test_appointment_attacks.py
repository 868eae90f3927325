"""Attacks on mailboxes that have names, by the identifiers of the threat list: R hub, K keys."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace

import pytest

from crowline.base.errors import NobodyCame, WrongCode
from crowline.base.secrets import Secret
from crowline.rendezvous import wire
from crowline.rendezvous.appointment import Appointment
from crowline.rendezvous.events import MeetingFailed
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.meeting import HUB, Meeting
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from hub_bench import Bench
from rendezvous_room import Room

SECRET = Secret(bytes(range(32)))
NAME = Appointment.of(SECRET).name


def meet(place: wire.Place = "host", name: bytes = NAME) -> wire.Meet:
    return wire.Meet(wire.VERSION, name, place, b"element")


def test_r1_a_look_tells_nothing_of_codes() -> None:
    """Mailboxes with numbers are not found by any name, nor are names by numbers."""
    bench = Bench()
    _, number = bench.host()
    named = bench.connect()
    bench.say(named, meet())
    looker = bench.connect()
    names = tuple(number.to_bytes(32, order) for order in ("big", "little"))
    assert bench.say(looker, wire.Look(wire.VERSION, names)) == [wire.Waiting(((), ()))]
    _, answer = bench.claim(1 + number % 9)
    assert answer == wire.Error("no-such-code")


@pytest.mark.parametrize("name", ["", "AA==", "A" * 88, 7, None, "*" * 44])
def test_r1_a_name_is_32_bytes(name: object) -> None:
    """Anything else is malformed, and ends the connection."""
    for message in (
        {"t": "meet", "v": 1, "name": name, "place": "host", "element": ""},
        {"t": "look", "v": 1, "names": [name]},
    ):
        bench = Bench()
        prober = bench.connect()
        assert bench.say(prober, json.dumps(message).encode()) == [wire.Error("malformed")]


def test_r2_meets_and_looks_are_few_from_one_source() -> None:
    """Beyond the rate there is no answer but how long to wait."""
    limits = HubLimits(meets_per_minute=3, looks_per_minute=2)
    bench = Bench(limits)
    for number in range(3):
        [placed] = bench.say(bench.connect(), meet(name=bytes(31) + bytes([number])))
        assert isinstance(placed, wire.Placed)
    [refused] = bench.say(bench.connect(), meet())
    assert isinstance(refused, wire.Error) and refused.code == "slow-down" and 0 < refused.retry <= 21
    looker = bench.connect()
    answers = [bench.say(looker, wire.Look(wire.VERSION, (NAME,))) for _ in range(3)]
    assert [type(answer) for [answer] in answers] == [wire.Waiting, wire.Waiting, wire.Error]
    bench.pass_time(60)
    [placed] = bench.say(bench.connect(), meet())
    assert isinstance(placed, wire.Placed)


def test_r2_too_many_names_are_malformed() -> None:
    """One question is answered with a bounded answer."""
    bench = Bench()
    names = tuple(bytes(31) + bytes([number]) for number in range(wire.MAX_LOOKED_UP + 1))
    looker = bench.connect()
    assert bench.say(looker, wire.Look(wire.VERSION, names)) == [wire.Error("malformed")]


def test_r2_who_only_looks_does_not_stay() -> None:
    """A connection without a mailbox ends after the time for a first message."""
    bench = Bench()
    looker = bench.connect()
    bench.say(looker, wire.Look(wire.VERSION, (NAME,)))
    bench.pass_time(11)
    assert bench.closed[looker] == 1008


def test_r2_mailboxes_with_names_count_as_mailboxes() -> None:
    """One source cannot fill a hub with them, and coming again takes no second one."""
    bench = Bench(HubLimits(mailboxes_per_source=2, meets_per_minute=100))
    for number in range(2):
        bench.say(bench.connect(), meet(name=bytes(31) + bytes([number])))
    assert bench.say(bench.connect(), meet()) == [wire.Error("full")]
    for _ in range(5):
        [placed] = bench.say(bench.connect(), meet(name=bytes(32)))
        assert isinstance(placed, wire.Placed)
    assert len(bench.hub) == 2


def test_r3_a_silent_waiter_is_forgotten() -> None:
    """Whoever says nothing more, not even that it waits, leaves nothing behind."""
    bench = Bench()
    waiting = bench.connect()
    bench.say(waiting, meet())
    bench.pass_time(bench.hub.limits.idle + 1)
    assert bench.heard[waiting][-1] == wire.Gone("expired") and len(bench.hub) == 0
    lost = bench.connect()
    bench.say(lost, meet())
    bench.disconnect(lost)
    bench.pass_time(bench.hub.limits.grace + 1)
    assert len(bench.hub) == 0


def test_r3_a_restless_side_does_not_grow_the_hub() -> None:
    """A thousand lives of one side: one mailbox, and no state of the earlier ones."""
    bench = Bench(HubLimits(meets_per_minute=10_000))
    for _ in range(1000):
        bench.say(bench.connect(), meet())
    assert len(bench.hub) == 1
    store = bench.hub._store
    assert len(store._tokens) == len(store._users) == 1  # type: ignore[attr-defined]
    assert store.count_source("203.0.113.9") == 1


def test_r3_nothing_of_a_meeting_but_its_budget_outlives_it() -> None:
    """What the sides said to each other, a megabyte at most, is not kept for the name's next meeting."""
    bench = Bench()
    host, join = bench.connect(), bench.connect()
    bench.say(host, meet("host"))
    bench.say(join, meet("join"))
    bench.say(host, wire.Relay("sealed", bytes(1000)))
    box = weakref.ref(bench.hub._store.by_name(NAME).join.log)  # type: ignore[union-attr]
    assert box() is not None
    for side in (host, join):
        bench.say(side, wire.Leave())
    assert len(bench.hub) == 0
    gc.collect()
    assert box() is None


def test_r4_coming_again_gives_first_credits_and_no_new_budget() -> None:
    """The free bytes of link zero are the two sides', however often they meet at the same place."""
    bench = Bench(HubLimits(meets_per_minute=10_000, budget=2**20, exempt_loopback=False))
    carried = 0
    for _ in range(8):
        host, join = bench.connect(), bench.connect()
        bench.say(host, meet("host"))
        bench.say(join, meet("join"))
        for _ in range(64):
            bench.frame(host, bytes(16384))
        carried += sum(map(len, bench.frames[join]))
        bench.pass_time(1)
    first_credits = 8 * bench.hub._carriage.credit
    assert carried <= 2**20 + first_credits
    bench.pass_time(3700)
    host, join = bench.connect(), bench.connect()
    bench.say(host, meet("host"))
    bench.say(join, meet("join"))
    for _ in range(64):
        bench.frame(host, bytes(16384))
    assert sum(map(len, bench.frames[join])) > bench.hub._carriage.credit


def test_k1_who_knows_the_name_alone_gets_nothing() -> None:
    """The hub, or whoever it told: no key, no signal, and the honest side says that a stranger came."""
    room = Room(pake=Spake2Pake)
    honest = room.meet(Role.HOST, SECRET)
    room.run(1)
    client = room._enter(Role.JOIN, None, "192.0.2.66", replace(Appointment.of(SECRET), password=bytes(32)))
    room.run(1)
    assert not honest.is_keyed and not client.is_keyed
    assert isinstance(honest.error, WrongCode) and "not the other side" in honest.error.message


@pytest.mark.parametrize("place", ["host", "join"])
def test_k1_who_knows_the_name_alone_cannot_end_the_wait(place: wire.Place) -> None:
    """Whoever burns the meeting says nothing of any code: the honest side may come again."""
    meeting = Meeting(Role(place), pake_factory=Spake2Pake, entropy=bytes, appointment=Appointment.of(SECRET))
    meeting.open(0.0)
    for message in (wire.Welcome(wire.VERSION), wire.Placed("token", 30), wire.Gone("burned")):
        meeting.receive(wire.encode(message), HUB, 0.0)
    events = iter(meeting.next_event, None)
    [failed] = [event.error for event in events if isinstance(event, MeetingFailed)]
    assert isinstance(failed, NobodyCame)


@pytest.mark.parametrize(
    "message",
    [
        wire.Allocated(7, "token", 60),
        wire.Claimed(b"element", "token"),
        wire.Joined(b"element"),
        wire.Met(b"element"),
        wire.Waiting(()),
    ],
)
def test_k2_a_hub_cannot_answer_another_question(message: wire.HubMessage) -> None:
    """Before its place is said, a side takes nothing else for it; it counts and waits."""
    meeting = Meeting(Role.HOST, pake_factory=Spake2Pake, entropy=bytes, appointment=Appointment.of(SECRET))
    meeting.open(0.0)
    meeting.receive(wire.encode(wire.Welcome(wire.VERSION)), HUB, 0.0)
    meeting.receive(wire.encode(message), HUB, 0.0)
    assert meeting.counters["unexpected"] == 1
    meeting.receive(wire.encode(wire.Placed("token", 30)), HUB, 0.0)
    meeting.receive(wire.encode(wire.Placed("another", 30)), HUB, 0.0)
    assert meeting.counters["unexpected"] == 2
    while (event := meeting.next_event()) is not None:
        assert not isinstance(event, MeetingFailed)
