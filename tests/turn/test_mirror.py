"""A worker's copies of allocations, in virtual time, fed by a real server machine as the owner does it."""

from __future__ import annotations

import os

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method
from crowline.turn import channel_data
from crowline.turn.allocation import (
    CHANNEL_LIFETIME,
    PERMISSION_LIFETIME,
    Allocation,
    Relay,
)
from crowline.turn.allocation_copy import AllocationCopy
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.mirror import ForOwner, Mirror
from crowline.turn.quota import Limits

LOCAL = Address("192.0.2.1", 3478)
CLIENT = Address("198.51.100.7", 4000)
ELSEWHERE = Address("198.51.100.8", 4001)
RELAYED = Address("192.0.2.1", 50000)
SIBLING = Address("192.0.2.1", 50001)
PEER = Address("203.0.113.9", 9000)
CHANNEL = 0x4001


def owned(client: Address = CLIENT, relayed: Address = RELAYED, user: str = "user") -> Allocation:
    """An allocation as the owner has it, for an hour."""
    relay = Relay(relayed, Transport.UDP, 3600.0)
    return Allocation(client, LOCAL, Transport.UDP, "name", user, b"key", b"t" * 12, relays=(relay,))


class Owner:
    """Tells one mirror about allocations; `now` is the time of both."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.now = 0.0
        self.mirror = Mirror(limits or Limits(), os.urandom)
        self._numbers: dict[Allocation, int] = {}

    def tell(self, allocation: Allocation) -> None:
        number = self._numbers.setdefault(allocation, len(self._numbers) + 1)
        self.mirror.update(AllocationCopy.of(number, allocation), self.now)

    def end(self, allocation: Allocation) -> None:
        self.mirror.end(self._numbers[allocation])

    def from_client(self, data: bytes, client: Address = CLIENT) -> None:
        self.mirror.receive(data, client, self.now, LOCAL)

    def from_peer(self, data: bytes, peer: Address = PEER, relayed: Address = RELAYED) -> None:
        self.mirror.receive_from_peer(data, peer, self.now, relayed)

    def sent(self) -> list[tuple[bytes, Address, Address | None]]:
        found = []
        while (transmit := self.mirror.next_transmit()) is not None:
            found.append((bytes(transmit.data), transmit.destination, transmit.local))
        return found


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def allocation(owner: Owner) -> Allocation:
    """One with a channel to `PEER`, told."""
    allocation = owned()
    allocation.bind(CHANNEL, PEER, RELAYED, owner.now, is_own=False)
    owner.tell(allocation)
    return allocation


def send_indication(peer: Address, data: bytes) -> bytes:
    attributes = (a.XorPeerAddress(peer), a.Data(data))
    return Message(Method.SEND, MessageClass.INDICATION, os.urandom(12), attributes).encode()


def request(method: Method) -> bytes:
    return Message(method, MessageClass.REQUEST, os.urandom(12), ()).encode()


# --- copies ---------------------------------------------------------------------------------------------


def test_a_copy_moves_data_both_ways(owner: Owner, allocation: Allocation) -> None:
    """ChannelData goes to the peer from the relayed address, and what comes there goes to the client."""
    owner.from_client(channel_data.wrap(CHANNEL, b"out"))
    owner.from_peer(b"in")
    assert owner.sent() == [
        (b"out", PEER, RELAYED),
        (channel_data.wrap(CHANNEL, b"in"), CLIENT, LOCAL),
    ]


def test_indications_follow_permissions(owner: Owner, allocation: Allocation) -> None:
    """A Send indication reaches a permitted host at any port, and no other one."""
    owner.from_client(send_indication(Address(PEER.host, 1234), b"yes"))
    owner.from_client(send_indication(Address("203.0.113.10", 1234), b"no"))
    assert owner.sent() == [(b"yes", Address(PEER.host, 1234), RELAYED)]
    assert owner.mirror.counters["dropped_send"] == 1


def test_a_permission_ends_in_the_copy(owner: Owner, allocation: Allocation) -> None:
    """Nobody needs to say that time has passed."""
    owner.now = PERMISSION_LIFETIME + 1
    owner.from_client(channel_data.wrap(CHANNEL, b"late"))
    owner.from_peer(b"late")
    assert owner.sent() == []


def test_a_refreshed_permission_lives_on_in_the_copy(owner: Owner, allocation: Allocation) -> None:
    """A copy that comes again replaces the times of the one before."""
    owner.now = PERMISSION_LIFETIME - 1
    allocation.permit(PEER.host, owner.now, is_own=False)
    owner.tell(allocation)
    owner.now = PERMISSION_LIFETIME + 1
    owner.from_client(channel_data.wrap(CHANNEL, b"on"))
    assert owner.sent() == [(b"on", PEER, RELAYED)]


def test_a_channel_ends_in_the_copy(owner: Owner, allocation: Allocation) -> None:
    """Without its channel a permitted peer is heard by indications."""
    owner.now = CHANNEL_LIFETIME - 1
    allocation.permit(PEER.host, owner.now, is_own=False)
    owner.tell(allocation)
    owner.now = CHANNEL_LIFETIME + 1
    owner.from_client(channel_data.wrap(CHANNEL, b"late"))
    owner.from_peer(b"in")
    [(data, destination, _)] = owner.sent()
    assert destination == CLIENT
    assert not channel_data.is_channel_data(data)


def test_an_allocation_ends_in_the_copy(owner: Owner) -> None:
    """Past its time no data moves, even before the owner says that it is over."""
    allocation = owned()
    allocation.relays[0].expires = 100.0
    allocation.bind(CHANNEL, PEER, RELAYED, 0.0, is_own=False)
    owner.tell(allocation)
    owner.now = 101.0
    owner.from_client(channel_data.wrap(CHANNEL, b"late"))
    owner.from_peer(b"late")
    assert owner.sent() == []


def test_the_short_way_stays_open(owner: Owner, allocation: Allocation) -> None:
    """A time that was prolonged, or an allocation that ended, closes it for nobody; one that is over does."""
    owner.tell(owned(Address(CLIENT.host, 4002), Address(RELAYED.host, 50002)))
    allocation.relays[0].expires = 600.0
    owner.tell(allocation)
    brief = owned(ELSEWHERE, SIBLING)
    brief.relays[0].expires = 100.0
    owner.tell(brief)
    owner.now = 290.0
    owner.end(brief)
    allocation.relays[0].expires = 890.0
    allocation.bind(CHANNEL, PEER, RELAYED, owner.now, is_own=False)
    owner.tell(allocation)
    allocation.permit(PEER.host, 580.0, is_own=False)
    owner.tell(allocation)
    short_way = owner.mirror.short_way
    way = short_way.to_peer(CLIENT, LOCAL, CHANNEL, 700.0)
    assert way is not None
    assert (way.until, way.version) == (880.0, way.allocation.version)
    assert short_way.to_client(RELAYED, PEER, 700.0) is not None
    assert short_way.to_peer(CLIENT, LOCAL, CHANNEL, 890.0) is None
    owner.end(allocation)
    assert way.version != way.allocation.version


def test_what_the_owner_ends_is_gone(owner: Owner, allocation: Allocation) -> None:
    """After `end` neither side is heard, and ending again does nothing."""
    owner.end(allocation)
    owner.end(allocation)
    owner.from_client(channel_data.wrap(CHANNEL, b"late"))
    owner.from_peer(b"late")
    assert owner.sent() == []
    assert len(owner.mirror.allocations) == 0


def test_a_copy_knows_no_key(allocation: Allocation) -> None:
    """What authenticates stays with the owner."""
    copied = AllocationCopy.of(1, allocation).allocation()
    assert (copied.key, copied.username, copied.success) == (b"", "", b"")


def test_what_is_nobodys_is_counted(owner: Owner, allocation: Allocation) -> None:
    """Data and errors without an allocation, and of one whose time is over, are dropped and counted."""
    for client, relayed in ((ELSEWHERE, SIBLING), (CLIENT, RELAYED)):
        owner.from_client(channel_data.wrap(CHANNEL, b"data"), client)
        owner.from_client(send_indication(PEER, b"data"), client)
        owner.mirror.receive_icmp(relayed, PEER, 3, 3, 0, owner.now)
        owner.now = allocation.expires
    assert owner.sent() == []
    names = ("dropped_channel", "dropped_send", "dropped_icmp")
    assert [owner.mirror.counters[name] for name in names] == [2, 2, 2]


# --- what is for the owner ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]
)
def test_requests_are_for_the_owner(owner: Owner, method: Method) -> None:
    """A worker decides nothing: each request is handed on with its 5-tuple."""
    data = request(method)
    owner.from_client(data)
    assert owner.mirror.next_event() == ForOwner(data, CLIENT, LOCAL)
    assert owner.sent() == []


@pytest.mark.parametrize("junk", [b"", b"\x00", b"\xff" * 40, b"\x80" * 20, b"\x40\x01\x00\x04data"])
def test_junk_does_not_reach_the_owner(owner: Owner, junk: bytes) -> None:
    """What is no request costs the owner nothing."""
    owner.from_client(junk)
    assert owner.mirror.next_event() is None
    assert owner.sent() == []


def test_the_first_data_of_a_moved_client_is_for_the_owner(owner: Owner) -> None:
    """Until a move is final or off, data from the new 5-tuple is handed on whole."""
    owner.mirror.expect(FiveTuple(ELSEWHERE, LOCAL))
    data = channel_data.wrap(CHANNEL, b"here now")
    owner.from_client(data, ELSEWHERE)
    assert owner.mirror.next_event() == ForOwner(data, ELSEWHERE, LOCAL)
    owner.mirror.expect_no_more(FiveTuple(ELSEWHERE, LOCAL))
    owner.from_client(data, ELSEWHERE)
    assert owner.mirror.next_event() is None


# --- other workers --------------------------------------------------------------------------------------


def test_a_sibling_is_reached_where_it_is_bound(owner: Owner) -> None:
    """Data for another worker's relayed address leaves for the bound address, behind a 1:1 NAT too."""
    bound = Address("10.0.0.1", SIBLING.port)
    allocation = owned()
    allocation.bind(CHANNEL, SIBLING, RELAYED, 0.0, is_own=True)
    owner.tell(allocation)
    owner.mirror.set_bound(SIBLING, bound)
    owner.from_client(channel_data.wrap(CHANNEL, b"across"))
    assert owner.sent() == [(b"across", bound, RELAYED)]


def test_nothing_else_of_this_machine_is_reached(owner: Owner) -> None:
    """A permission for our own host opens relayed addresses only: known ones, and while they live."""
    allocation = owned()
    allocation.permit(SIBLING.host, 0.0, is_own=True)
    owner.tell(allocation)
    owner.from_client(send_indication(Address(SIBLING.host, 22), b"ssh"))
    owner.mirror.set_bound(SIBLING, SIBLING)
    owner.mirror.set_bound(SIBLING, None)
    owner.from_client(send_indication(SIBLING, b"gone"))
    assert owner.sent() == []
    assert owner.mirror.counters["dropped_inside"] == 2


def test_a_sibling_is_heard_as_the_relayed_address(owner: Owner) -> None:
    """What comes from a bound address of ours is another allocation's; other ports of it are nobody's."""
    bound = Address("10.0.0.1", SIBLING.port)
    allocation = owned()
    allocation.bind(CHANNEL, SIBLING, RELAYED, 0.0, is_own=True)
    owner.tell(allocation)
    owner.mirror.set_bound(SIBLING, bound)
    owner.from_peer(b"across", bound)
    owner.from_peer(b"forged", Address(bound.host, 22))
    owner.from_peer(b"forged", SIBLING)
    assert owner.sent() == [(channel_data.wrap(CHANNEL, b"across"), CLIENT, LOCAL)]


def test_allocations_of_one_worker_meet_inside(owner: Owner) -> None:
    """No datagram leaves where both ends are here."""
    other_client = Address("198.51.100.9", 4002)
    first, second = owned(), owned(other_client, SIBLING)
    first.bind(CHANNEL, SIBLING, RELAYED, 0.0, is_own=True)
    second.bind(CHANNEL, RELAYED, SIBLING, 0.0, is_own=True)
    owner.tell(first)
    owner.tell(second)
    owner.from_client(channel_data.wrap(CHANNEL, b"inside"))
    assert owner.sent() == [(channel_data.wrap(CHANNEL, b"inside"), other_client, LOCAL)]


# --- bandwidth ------------------------------------------------------------------------------------------


def moved(owner: Owner, seconds: int) -> int:
    """Bytes that a client gets through when it offers far too much."""
    total = 0
    for _ in range(seconds * 10):
        owner.now += 0.1
        for _ in range(20):
            owner.from_client(channel_data.wrap(CHANNEL, bytes(10_000)))
        total += sum(len(data) for data, _, _ in owner.sent())
    return total


@pytest.mark.parametrize("places", [1, 2, 4])
def test_a_rate_is_divided_among_workers(places: int) -> None:
    """Each of several workers gives a user its part of the rate."""
    rate = 200_000.0
    owner = Owner(Limits(bytes_per_second=rate))
    allocation = owned()
    allocation.bind(CHANNEL, PEER, RELAYED, 0.0, is_own=False)
    owner.tell(allocation)
    owner.mirror.divide("user", places)
    moved(owner, 5)
    assert moved(owner, 20) == pytest.approx(20 * rate / places, rel=0.1)


def test_a_new_copy_brings_no_new_rate() -> None:
    """Asking for permissions again and again does not fill the user's bucket."""
    limits = Limits(bytes_per_second=1000.0)
    owner = Owner(limits)
    allocation = owned()
    allocation.bind(CHANNEL, PEER, RELAYED, 0.0, is_own=False)
    total = 0
    for _ in range(100):
        owner.tell(allocation)
        owner.from_client(channel_data.wrap(CHANNEL, bytes(10_000)))
        total += sum(len(data) for data, _, _ in owner.sent())
    assert total <= limits.burst
