"""Whether the other side is at some address: what the hub says of it, and to whom."""

from __future__ import annotations

from crowline.rendezvous import wire
from crowline.rendezvous.events import HostVouched
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.meeting import HUB
from rendezvous_room import Client, Room


def _ask(client: Client, *hosts: str) -> list[str]:
    for host in hosts:
        client.meeting.vouch(host)
    client.room.flush(client)
    client.room.run(1)
    return [event.host for event in client.of(HostVouched)]


def test_the_hub_vouches_for_the_address_from_which_the_other_side_came() -> None:
    """Each side asks for the other's, and only that is confirmed."""
    host, join = Room().pair()
    assert _ask(host, "203.0.113.1", "203.0.113.2", "198.51.100.1") == ["203.0.113.1"]
    assert _ask(join, "198.51.100.1", "203.0.113.1") == ["198.51.100.1"]


def test_the_hub_vouches_for_the_address_of_a_relay_client() -> None:
    """A side that came by IPv6 may have its relayed address by IPv4."""
    room = Room()
    host, join = room.pair()
    [box] = [visitor.box for visitor in room.hub._visitors.values() if visitor.box is not None][:1]
    assert box.join is not None
    seen = {(box.join.user, "192.0.2.7")}
    room.hub._mailboxes._has_relay_client = lambda user, at: (user, at) in seen
    assert _ask(host, "192.0.2.7") == ["192.0.2.7"]
    assert _ask(join, "192.0.2.7") == []


def test_an_address_is_vouched_for_after_the_other_side_has_moved_there() -> None:
    """What is not known yet may be asked again."""
    host, join = Room().pair()
    assert _ask(host, "192.0.2.9") == []
    join.lose_socket()
    join.address = wire_address = type(join.address)("192.0.2.9", 4444)
    join.come_back()
    join.room.run(1)
    assert _ask(host, wire_address.host) == ["192.0.2.9"]


def test_a_side_cannot_search_for_the_other_by_asking() -> None:
    """After a bounded number of questions there are no answers."""
    room = Room(limits=HubLimits(vouches=3))
    host, _ = room.pair()
    assert _ask(host, "192.0.2.1", "192.0.2.2", "192.0.2.3", "203.0.113.1") == []
    assert room.hub.counters["vouch refused"] == 1


def test_a_side_that_hides_is_found_by_no_question() -> None:
    """Not even somebody who suspects an address hears that it is right; the side itself may ask."""
    room = Room()
    room.hidden = {"203.0.113.1"}
    host, join = room.pair()
    assert _ask(host, "203.0.113.1") == []
    assert _ask(join, "198.51.100.1") == ["198.51.100.1"]
    other = Room()
    other.hidden = {"198.51.100.1"}
    host, join = other.pair()
    assert _ask(join, "198.51.100.1") == []
    assert _ask(host, "203.0.113.1") == ["203.0.113.1"]


def test_nobody_is_asked_about_before_there_is_a_key() -> None:
    """A stranger with a number alone learns nothing."""
    room = Room()
    host = room.host()
    room.run(1)
    assert _ask(host, "203.0.113.1") == []
    assert room.hub.counters == {}


def test_a_host_that_was_not_asked_for_is_not_taken_from_the_hub() -> None:
    """A hub may not name third parties for somebody's packets."""
    host, _ = Room().pair()
    host.meeting.receive(wire.encode(wire.Vouched("192.0.2.200")), HUB, host.room.now)
    assert host.meeting.next_event() is None
    assert host.meeting.counters["unexpected"] == 1


def test_a_hub_that_does_not_know_the_question_is_not_asked() -> None:
    """An older one would close the connection."""
    room = Room()
    room.tamper = lambda client, data: [data.replace(b'"vouches":true', b'"vouches":false')]
    host, _ = room.pair()
    assert _ask(host, "203.0.113.1") == []
    assert host.closed_with is None
