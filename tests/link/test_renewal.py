"""How it is learnt that mappings end, and when a socket gets its successor."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.link.renewal import MIN_LIFETIME, RETIRE_AFTER, SHARE, Renewal, RenewalWork

OLD, NEW = Address("192.168.1.10", 5000), Address("192.168.1.10", 5001)
HERE, THERE = Address("203.0.113.1", 40000), Address("203.0.113.1", 40001)
NOTHING = RenewalWork([], [], [])


def ended(after: float = 60.0) -> Renewal:
    """The path by the socket, opened at 0, falls silent; the server sees another mapping."""
    renewal = Renewal()
    renewal.opened(OLD, 0.0)
    renewal.seen(OLD, HERE, 0.1)
    renewal.fell_silent(OLD, after)
    assert renewal.due(after, []) == RenewalWork([OLD], [], [])
    renewal.seen(OLD, THERE, after + 0.1)
    return renewal


def test_a_mapping_that_ended_under_a_path_is_measured_and_its_socket_replaced_at_once() -> None:
    """The old socket is closed as soon as there is a successor: nothing works there any more."""
    renewal = ended()
    assert renewal.lifetime == 60.0
    assert renewal.due(60.1, [OLD]) == RenewalWork([], [OLD], [])
    renewal.renewed(OLD, 60.1)
    assert renewal.is_renewed(OLD)
    assert renewal.due(60.1, []) == RenewalWork([], [], [OLD])
    renewal.closed(OLD)
    assert renewal.next_timeout() is None


def test_a_successor_gets_its_own_before_its_mapping_ends() -> None:
    """The one before stays until nothing that is in use leaves by it."""
    renewal = ended()
    renewal.renewed(OLD, 60.1)
    renewal.closed(OLD)
    renewal.opened(NEW, 60.1)
    at = renewal.next_timeout()
    assert at == 60.1 + SHARE * 60.0
    assert renewal.due(at - 0.1, []) == NOTHING
    assert renewal.due(at, []) == RenewalWork([], [NEW], [])
    renewal.renewed(NEW, at)
    assert renewal.due(at + RETIRE_AFTER, [NEW]) == NOTHING
    assert renewal.due(at + 2 * RETIRE_AFTER, []) == RenewalWork([], [], [NEW])


def test_a_path_that_was_cut_elsewhere_says_nothing_of_mappings() -> None:
    """The server sees the socket where it was: no socket is replaced, now or later."""
    renewal = Renewal()
    renewal.opened(OLD, 0.0)
    renewal.seen(OLD, HERE, 0.1)
    renewal.fell_silent(OLD, 60.0)
    renewal.due(60.0, [])
    renewal.seen(OLD, HERE, 60.1)
    assert renewal.lifetime is None
    assert renewal.next_timeout() is None


def test_a_mapping_that_ended_early_was_an_accident() -> None:
    """A box that restarts now and then does not make this side renew its sockets for ever."""
    renewal = ended(MIN_LIFETIME / 2)
    assert renewal.lifetime is None
    assert renewal.next_timeout() is None


def test_the_shortest_time_counts() -> None:
    """Two translators in a row may differ, and a first look may have been late."""
    renewal = ended(90.0)
    renewal.opened(NEW, 100.0)
    renewal.seen(NEW, HERE, 100.0)
    renewal.fell_silent(NEW, 150.0)
    renewal.seen(NEW, THERE, 150.1)
    assert renewal.lifetime == 50.0


def test_what_is_no_socket_of_ours_is_of_no_interest() -> None:
    """A relayed address is a base too; its mapping is that of the socket below it."""
    renewal = Renewal()
    renewal.fell_silent(OLD, 1.0)
    renewal.seen(OLD, HERE, 1.0)
    renewal.renewed(OLD, 1.0)
    assert renewal.due(100.0, []) == NOTHING
