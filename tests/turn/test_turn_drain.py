"""A TURN server machine that is about to stop."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.integrity import verify_integrity
from crowline.stun.message import Method, parse
from turn_pair import CLIENT, OTHER_CLIENT, PEER, Caller, World, error_code

ALTERNATE = Address("44.1.2.3", 3478)


@pytest.mark.parametrize(
    ("alternate", "transport", "code"),
    [
        (ALTERNATE, Transport.UDP, 300),
        (ALTERNATE, Transport.TCP, 300),
        (ALTERNATE, Transport.TLS, 508),
        (None, Transport.UDP, 508),
        (Address("2a01:4f8::3", 3478), Transport.UDP, 508),
    ],
)
def test_new_clients_are_sent_elsewhere(alternate: Address | None, transport: Transport, code: int) -> None:
    """300 with an alternate that they can reach as they came, 508 without one; the answer is signed."""
    world = World()
    world.server.drain(alternate, 0.0)
    caller = Caller(world, transport=transport)
    raw = caller.send_raw(caller.signed(Method.ALLOCATE, a.RequestedTransport(17)))
    assert raw is not None
    answer = parse(raw)
    assert error_code(answer.message) == code
    assert verify_integrity(answer, caller.key)
    named = answer.message.get(a.AlternateServer)
    assert (named == a.AlternateServer(ALTERNATE)) == (code == 300)
    assert world.server.is_idle


def test_old_clients_go_on() -> None:
    """What exists is refreshed, gets permissions and repeats its success until it ends."""
    world = World()
    caller = Caller(world)
    request = caller.signed(Method.ALLOCATE, a.RequestedTransport(17))
    first = caller.send_raw(request)
    world.server.drain(ALTERNATE, 0.0)
    assert caller.send_raw(request) == first
    assert caller.code(Method.REFRESH) == 0
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 0
    assert not world.server.is_idle
    assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert world.server.is_idle
    assert error_code(Caller(world, OTHER_CLIENT).allocate()) == 300


def test_reservations_end_at_once() -> None:
    """Nobody could claim them any more."""
    world = World()
    caller = Caller(world)
    token = caller.allocate(a.EvenPort(True)).get(a.ReservationToken)
    assert token is not None
    world.server.drain(None, 0.0)
    assert len(world.ports.opened) == 1
    assert error_code(Caller(world, OTHER_CLIENT).allocate(token)) == 508
    assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert world.server.is_idle
    assert world.server.next_timeout() is None


def test_closing_gives_everything_back() -> None:
    """`close` ends allocations, reservations and tickets, and no timer is left."""
    world = World()
    Caller(world).allocate(a.EvenPort(True), a.MobilityTicket(b""))
    Caller(world, OTHER_CLIENT).allocate()
    world.server.close()
    assert world.ports.opened == []
    assert world.server.next_timeout() is None
    assert world.server.is_idle
    assert Caller(world, CLIENT).code(Method.REFRESH) == 437
