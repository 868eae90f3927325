"""DONT-FRAGMENT and ICMP errors at the TURN server machine (RFC 8656 §7.2, §11.2, §11.5)."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.quota import Limits
from turn_pair import PEER, PEER_6, Caller, FakePorts, World, dual_ports, error_code

SEND = (a.XorPeerAddress(PEER), a.Data(b"x"))


def capable(*, can: bool = True, limits: Limits | None = None) -> World:
    ports = FakePorts()
    ports.can_set_dont_fragment = can
    return World(ports=ports, limits=limits)


def permitted(world: World, peer: Address = PEER) -> Caller:
    caller = Caller(world)
    families = (a.AdditionalAddressFamily(2),) if a.FAMILY_IPV6 in world.ports.families else ()
    assert error_code(caller.allocate(*families)) == 0
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(peer)) == 0
    return caller


def send(caller: Caller, *attributes: a.AnyAttribute) -> bool | None:
    """Whether the datagram of a Send indication stays whole; ``None`` when nothing leaves."""
    caller.give(Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, attributes).encode())
    transmit = caller.world.server.next_transmit()
    return None if transmit is None else transmit.dont_fragment


@pytest.mark.parametrize(("can", "code"), [(True, 0), (False, 420)])
def test_dont_fragment_is_understood_where_it_can_be_done(can: bool, code: int) -> None:
    """Check 4: an unknown attribute for a server that cannot set the bit, nothing special for another."""
    assert error_code(Caller(capable(can=can)).allocate(a.DontFragment())) == code


def test_send_sets_the_bit_that_it_asks_for() -> None:
    """The datagram of a Send indication with DONT-FRAGMENT leaves with the bit, one without it does not."""
    caller = permitted(capable())
    assert send(caller, *SEND, a.DontFragment()) is True
    assert send(caller, *SEND) is False


def test_send_that_cannot_stay_whole_is_dropped() -> None:
    """A server that cannot set the bit drops the datagram instead of cutting it (RFC 8656 §11.2)."""
    caller = permitted(capable(can=False))
    assert send(caller, *SEND, a.DontFragment()) is None
    assert send(caller, *SEND) is False


def test_channel_data_never_has_the_bit() -> None:
    """What comes by a channel may be cut on its way (RFC 8656 §14)."""
    caller = permitted(capable())
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(PEER)) == 0
    caller.give(b"\x40\0\0\1x")
    transmit = caller.world.server.next_transmit()
    assert transmit is not None
    assert not transmit.dont_fragment


def report(
    caller: Caller, peer: Address, icmp_type: int, icmp_code: int = 1, data: int = 0
) -> Message | None:
    """The indication that an ICMP error brings."""
    world = caller.world
    relayed = next(address for address in world.ports.opened if address.is_ipv6 == peer.is_ipv6)
    world.server.receive_icmp(relayed, peer, icmp_type, icmp_code, data, world.now)
    transmit = world.server.next_transmit()
    return None if transmit is None else parse(transmit.data).message


@pytest.mark.parametrize("icmp_type", [*range(14), 127, 128, 255])
@pytest.mark.parametrize(("peer", "known"), [(PEER, {3, 11}), (PEER_6, {1, 2, 3})])
def test_known_icmp_types_are_told(peer: Address, known: set[int], icmp_type: int) -> None:
    """Of IPv4 types 3 and 11, of IPv6 types 1 to 3; nothing else is passed on."""
    told = report(permitted(World(ports=dual_ports()), peer), peer, icmp_type)
    assert (told is not None) == (icmp_type in known)


@pytest.mark.parametrize(
    ("peer", "icmp_type", "icmp_code", "told"),
    [(PEER, 3, 4, 1400), (PEER, 3, 3, 0), (PEER, 11, 0, 0), (PEER_6, 2, 0, 1400), (PEER_6, 1, 4, 0)],
)
def test_an_icmp_error_says_type_code_and_mtu(
    peer: Address, icmp_type: int, icmp_code: int, told: int
) -> None:
    """A Data indication with peer and error; the MTU only for "too big"."""
    message = report(permitted(World(ports=dual_ports()), peer), peer, icmp_type, icmp_code, 1400)
    assert message is not None
    assert (message.method, message.message_class) == (Method.DATA, MessageClass.INDICATION)
    assert message.attributes == (a.XorPeerAddress(peer), a.Icmp(icmp_type, icmp_code, told))


def test_icmp_errors_need_a_permission() -> None:
    """About a peer without a live permission nothing is told; its port does not matter."""
    caller = permitted(World())
    assert report(caller, Address("44.9.9.8", PEER.port), 3) is None
    assert report(caller, Address(PEER.host, 0), 3) is not None
    caller.world.now = 300.0
    assert report(caller, PEER, 3) is None


def test_icmp_errors_for_nobody_are_dropped() -> None:
    """An error for an address that nobody holds meets silence."""
    world = World()
    world.server.receive_icmp(Address("44.1.1.1", 50_000), PEER, 3, 1, 0, 0.0)
    assert world.server.next_transmit() is None


def test_icmp_errors_count_in_the_rate() -> None:
    """A storm of errors costs its user bandwidth, and ends where that ends."""
    caller = permitted(World(limits=Limits(bytes_per_second=1.0)))
    told = sum(report(caller, PEER, 3) is not None for _ in range(5_000))
    assert 0 < told < 2 * 131_072 / 64
