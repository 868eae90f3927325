"""Two sides that share a secret meet at the mailbox it names, in any order and as often as they have to."""

from __future__ import annotations

import pytest

from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.rendezvous import wire
from crowline.rendezvous.appointment import Appointment
from crowline.rendezvous.events import Keyed, MeetingFailed, PeerPresent, PlaceReady, Signalled
from crowline.rendezvous.failures import Displaced, Renewed
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Hello
from hub_bench import Bench
from rendezvous_room import Client, Room

SECRET = Secret(bytes(range(32)))
NAME = Appointment.of(SECRET).name


def keys(*clients: Client) -> list[bytes]:
    """The keys that the clients have, the last ones."""
    return [client.of(Keyed)[-1].key.reveal() for client in clients]


def meet(place: wire.Place, name: bytes = NAME) -> wire.Meet:
    return wire.Meet(wire.VERSION, name, place, place.encode())


def test_name_and_password_say_nothing_of_each_other() -> None:
    """Both follow from the secret by keys of their own, and a printed appointment keeps the password."""
    appointment = Appointment.of(SECRET)
    assert appointment == Appointment.of(Secret(SECRET.reveal()))
    assert len({appointment.name, appointment.password, SECRET.reveal()}) == 3
    assert repr(appointment.password) not in repr(appointment)
    assert Appointment.of(Secret(bytes(32))).name != appointment.name
    with pytest.raises(UsageError, match="32 bytes"):
        Appointment.of(Secret(b"short"))


@pytest.mark.parametrize("first", list(Role))
def test_they_meet_in_either_order(first: Role) -> None:
    """Who comes first waits; both have the same fresh key, and signals flow both ways."""
    room = Room(pake=Spake2Pake)
    early = room.meet(first, SECRET)
    room.run(1)
    assert early.of(PlaceReady) and not early.of(PeerPresent)
    early.signal(Hello("early"))
    late = room.meet(first.other, SECRET)
    late.signal(Hello("late"))
    room.run(1)
    assert len(set(keys(early, late))) == 1 and keys(early) != [SECRET.reveal()]
    assert [signalled.signal for signalled in late.of(Signalled)] == [Hello("early")]
    assert [signalled.signal for signalled in early.of(Signalled)] == [Hello("late")]


def test_each_meeting_has_another_key() -> None:
    """What was sealed once cannot be played back another time."""
    room = Room()
    seen = set()
    for _ in range(3):
        pair = [room.meet(role, SECRET) for role in Role]
        room.run(1)
        seen.update(keys(*pair))
        for client in pair:
            client.close()
        room.run(1)
        assert len(room.hub) == 0
    assert len(seen) == 3


def test_who_waits_may_wait_long() -> None:
    """No hour ends it as it ends a code: while its WebSocket lives and it says so, it is there."""
    room = Room(limits=HubLimits(idle=100, code_lifetime=10))
    early = room.meet(Role.HOST, SECRET)
    room.run(7200)
    assert not early.of(MeetingFailed)
    late = room.meet(Role.JOIN, SECRET)
    room.run(1)
    assert early.is_keyed and late.is_keyed


def test_a_side_that_comes_again_takes_its_own_place() -> None:
    """While it waits: the earlier one hears that it is displaced, the other side meets the later one."""
    room = Room()
    dead = room.meet(Role.HOST, SECRET)
    room.run(1)
    again = room.meet(Role.HOST, SECRET)
    room.run(1)
    assert isinstance(dead.error, Displaced)
    other = room.meet(Role.JOIN, SECRET)
    room.run(1)
    assert keys(again) == keys(other) and not dead.is_keyed


def test_the_other_side_hears_that_a_side_came_again() -> None:
    """After they had met: it is told to come again too, and then meets the later one."""
    room = Room()
    dead, other = room.meet(Role.HOST, SECRET), room.meet(Role.JOIN, SECRET)
    room.run(1)
    again = room.meet(Role.HOST, SECRET)
    room.run(1)
    assert isinstance(dead.error, Displaced) and isinstance(other.error, Renewed)
    once_more = room.meet(Role.JOIN, SECRET)
    room.run(1)
    assert keys(again) == keys(once_more) and keys(again) != keys(other)


def test_nobody_meets_who_is_not_connected() -> None:
    """A side whose WebSocket broke is not there, although its place is kept: the next one waits instead."""
    room = Room()
    lost = room.meet(Role.HOST, SECRET)
    room.run(1)
    lost.lose_socket()
    other = room.meet(Role.JOIN, SECRET)
    room.run(1)
    assert other.of(PlaceReady) and not other.of(PeerPresent)
    lost.come_back()
    room.run(1)
    assert "no longer knows" in str(lost.error)
    again = room.meet(Role.HOST, SECRET)
    room.run(1)
    assert keys(again) == keys(other)


def test_a_broken_websocket_is_resumed_as_with_a_code() -> None:
    """What was sent meanwhile arrives once, in order."""
    room = Room()
    host, join = room.meet(Role.HOST, SECRET), room.meet(Role.JOIN, SECRET)
    room.run(1)
    host.lose_socket()
    for name in ("one", "two"):
        join.signal(Hello(name))
    room.run(1)
    host.come_back()
    room.run(1)
    assert [signalled.signal for signalled in host.of(Signalled)] == [Hello("one"), Hello("two")]


def test_other_secrets_are_other_mailboxes() -> None:
    """Two pairs at one hub do not see each other."""
    room = Room()
    other = Secret(bytes(32))
    first = [room.meet(role, SECRET) for role in Role]
    second = [room.meet(role, other) for role in Role]
    room.run(1)
    assert keys(*first)[0] == keys(*first)[1] != keys(*second)[0] == keys(*second)[1]


def test_a_look_tells_who_is_connected_where() -> None:
    """In the order of the names; a side whose WebSocket broke is not there."""
    bench = Bench()
    waiting = bench.connect()
    bench.say(waiting, meet("join"))
    both = bytes(32)
    for place in ("host", "join"):
        bench.say(bench.connect(), meet(place, both))
    looker = bench.connect()
    question = wire.Look(wire.VERSION, (NAME, bytes(31) + b"x", both))
    assert bench.say(looker, question) == [wire.Waiting((("join",), (), ("host", "join")))]
    bench.disconnect(waiting)
    assert bench.say(looker, question) == [wire.Waiting(((), (), ("host", "join")))]


def test_a_hub_that_forgot_everything_is_no_obstacle() -> None:
    """After its restart the same two meet at the same name."""
    for _ in range(2):
        bench = Bench()
        host, join = bench.connect(), bench.connect()
        [placed] = bench.say(host, meet("host"))
        assert isinstance(placed, wire.Placed)
        [_, met] = bench.say(join, meet("join"))
        assert met == wire.Met(b"host") and bench.heard[host][-1] == wire.Met(b"join")
