"""What is sent to a peer before its permission waits for it."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.turn.held import MAX_HELD, HeldDatagrams

ONE, OTHER = Address("192.0.2.1", 1000), Address("198.51.100.2", 2000)


def test_what_waits_goes_with_the_permission_in_order() -> None:
    """Only what is for that host; from then on nothing waits."""
    held = HeldDatagrams()
    first, second, elsewhere = Transmit(b"1", ONE), Transmit(b"2", ONE), Transmit(b"3", OTHER)
    assert not any(held.admit(each) for each in (first, elsewhere, second))
    assert held.answered(ONE.host, True) == [first, second]
    assert held.admit(first)
    assert not held.admit(elsewhere)
    assert held.answered(OTHER.host, True) == [elsewhere, elsewhere]


def test_what_is_for_a_refused_peer_is_dropped() -> None:
    """What waited, and what comes later."""
    held = HeldDatagrams()
    held.admit(Transmit(b"1", ONE))
    assert held.answered(ONE.host, False) == []
    assert not held.admit(Transmit(b"2", ONE))
    assert held.answered(ONE.host, True) == []


def test_no_more_than_a_few_wait() -> None:
    """A server that never answers costs a bound amount."""
    held = HeldDatagrams()
    for _ in range(MAX_HELD + 5):
        assert not held.admit(Transmit(b"x", ONE))
    assert len(held.answered(ONE.host, True)) == MAX_HELD
