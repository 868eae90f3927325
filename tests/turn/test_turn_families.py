"""Relayed addresses of two families in one allocation (RFC 8656 §7.2, §8), and IPv6 alone."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method
from crowline.turn.quota import Limits
from turn_pair import (
    CLIENT,
    OTHER_CLIENT,
    PEER,
    PEER_6,
    RELAY_HOST,
    RELAY_HOST_6,
    SERVER,
    Caller,
    World,
    dual_ports,
    error_code,
)

BOTH = a.AdditionalAddressFamily(2)


def dual(world: World | None = None) -> Caller:
    caller = Caller(world or World(ports=dual_ports()))
    assert error_code(caller.allocate(BOTH)) == 0
    return caller


def bind(caller: Caller, number: int, peer: Address) -> int:
    return caller.code(Method.CHANNEL_BIND, a.ChannelNumber(number), a.XorPeerAddress(peer))


def test_a_dual_allocation_has_one_address_of_each_family() -> None:
    """Both relayed addresses stand in the answer, and nothing says that one is missing."""
    answer = Caller(World(ports=dual_ports())).allocate(BOTH)
    hosts = [attribute.address.host for attribute in answer.get_all(a.XorRelayedAddress)]
    assert hosts == [RELAY_HOST, RELAY_HOST_6]
    assert answer.get(a.AddressErrorCode) is None


def test_each_family_is_relayed_by_its_own_address() -> None:
    """Channels and Send indications leave from the relayed address of their peer's family."""
    caller = dual()
    world = caller.world
    assert bind(caller, 0x4000, PEER) == 0
    assert bind(caller, 0x4001, PEER_6) == 0
    for number, peer in ((0x4000, PEER), (0x4001, PEER_6)):
        send = (a.XorPeerAddress(peer), a.Data(b"s"))
        caller.give(number.to_bytes(2, "big") + b"\0\1x")
        caller.give(Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, send).encode())
        for data in (b"x", b"s"):
            transmit = world.server.next_transmit()
            assert transmit is not None
            assert transmit.local is not None
            assert (bytes(transmit.data), transmit.destination) == (data, peer)
            assert transmit.local.is_ipv6 == peer.is_ipv6
            assert transmit.local in world.ports.opened


def test_peers_of_both_families_reach_the_client() -> None:
    """What arrives at either relayed address comes to the one client."""
    caller = dual()
    world = caller.world
    relayed = {address.is_ipv6: address for address in world.ports.opened}
    for number, peer in ((0x4000, PEER), (0x4001, PEER_6)):
        assert bind(caller, number, peer) == 0
        world.server.receive_from_peer(b"x", peer, 0.0, relayed[peer.is_ipv6])
        transmit = world.server.next_transmit()
        assert transmit is not None
        assert transmit.destination == CLIENT
        assert bytes(transmit.data) == number.to_bytes(2, "big") + b"\0\1x"


@pytest.mark.parametrize("missing", [1, 2])
def test_one_address_is_given_when_the_other_cannot_be_had(missing: int) -> None:
    """When the ports of one family are used up, the other is given, and the reason is 508."""
    ports = dual_ports()
    ports.free = [address for address in ports.free if address.is_ipv6 != (missing == 2)]
    answer = Caller(World(ports=ports)).allocate(BOTH)
    assert len(answer.get_all(a.XorRelayedAddress)) == 1
    assert answer.get(a.AddressErrorCode) == a.AddressErrorCode(missing, 508)


def test_neither_address_is_508() -> None:
    """Without any port the whole request is refused."""
    ports = dual_ports()
    ports.free = []
    assert error_code(Caller(World(ports=ports)).allocate(BOTH)) == 508


def test_a_user_with_room_for_one_gets_one() -> None:
    """A dual allocation counts twice; the second address is what a small quota lacks."""
    world = World(ports=dual_ports(), limits=Limits(allocations_per_user=3))
    dual(world)
    answer = Caller(world, OTHER_CLIENT).allocate(BOTH)
    assert answer.get(a.AddressErrorCode) == a.AddressErrorCode(2, 508)
    assert error_code(Caller(world, Address("44.3.3.4", 1024)).allocate()) == 486


@pytest.mark.parametrize(("family", "gone", "kept"), [(1, PEER, PEER_6), (2, PEER_6, PEER)])
def test_refresh_ends_one_family(family: int, gone: Address, kept: Address) -> None:
    """Lifetime 0 with a family ends that relayed address, its permissions and channels, and no other."""
    caller = dual()
    world = caller.world
    assert bind(caller, 0x4000, gone) == 0
    assert bind(caller, 0x4001, kept) == 0
    assert caller.code(Method.REFRESH, a.Lifetime(0), a.RequestedAddressFamily(family)) == 0
    assert [address.is_ipv6 for address in world.ports.opened] == [kept.is_ipv6]
    allocation = world.server.allocations.of_client(CLIENT, SERVER)
    assert allocation is not None
    assert set(allocation.permissions) == {kept.host}
    caller.give(b"\x40\0\0\1x")
    assert world.server.next_transmit() is None
    caller.give(b"\x40\1\0\1x")
    assert world.server.next_transmit() is not None
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(gone)) == 443
    assert caller.code(Method.REFRESH, a.RequestedAddressFamily(family)) == 443
    assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert world.ports.opened == []
    assert world.server.is_idle


def test_each_family_has_its_own_end() -> None:
    """A refresh of one family leaves the other to end when it would have."""
    caller = dual()
    world = caller.world
    world.now = 300.0
    assert caller.code(Method.REFRESH, a.RequestedAddressFamily(2)) == 0
    assert world.server.next_timeout() == 600.0
    world.server.handle_timeout(600.0)
    assert [address.is_ipv6 for address in world.ports.opened] == [True]
    world.server.handle_timeout(900.0)
    assert world.ports.opened == []
    assert world.server.next_timeout() is None


def test_refresh_without_a_family_prolongs_both() -> None:
    """A Refresh that names no family applies to all relayed addresses."""
    caller = dual()
    world = caller.world
    world.now = 300.0
    assert caller.code(Method.REFRESH) == 0
    world.server.handle_timeout(899.0)
    assert len(world.ports.opened) == 2
    world.server.handle_timeout(900.0)
    assert world.ports.opened == []


def test_ipv6_alone_refuses_ipv4_peers() -> None:
    """An IPv6 allocation relays to IPv6 peers; IPv4 ones are 443."""
    caller = Caller(World(ports=dual_ports()), Address("2a01:4f8:2::2", 5000))
    assert error_code(caller.allocate(a.RequestedAddressFamily(2))) == 0
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 443
    assert bind(caller, 0x4000, PEER_6) == 0


def test_expired_families_are_gone_before_the_timer_says_so() -> None:
    """A datagram that comes when its relayed address is over, but no timer has run, meets nothing."""
    caller = dual()
    world = caller.world
    assert bind(caller, 0x4000, PEER) == 0
    world.now = 500.0
    assert caller.code(Method.REFRESH, a.RequestedAddressFamily(2)) == 0
    assert bind(caller, 0x4000, PEER) == 0
    world.server.receive(b"\x40\0\0\1x", CLIENT, 600.0, SERVER)
    assert world.server.next_transmit() is None
