"""The retransmission schedule of a client transaction, in virtual time."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.stun.transaction import RELIABLE, UDP, Schedule, Transaction

SERVER = Address("192.0.2.1", 3478)
LOCAL = Address("198.51.100.1", 5000)


def sends(schedule: Schedule, start: float = 100.0) -> tuple[list[float], float]:
    """Run a transaction nobody answers: the times of its sends and of its failure, from the start."""
    transaction = Transaction(b"t" * 12, b"request", SERVER, start, schedule=schedule)
    now, sent = start, []
    while not transaction.is_expired(now):
        if transaction.due(now) is not None:
            sent.append(now - start)
        assert transaction.due(now) is None
        now = transaction.next_timeout()
    return sent, now - start


def test_default_schedule() -> None:
    """Over UDP seven sends, doubling from 500 ms, and failure at 39.5 s."""
    assert sends(UDP) == ([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5], 39.5)


def test_reliable_schedule() -> None:
    """Over a reliable transport one send, and the same patience."""
    assert sends(RELIABLE) == ([0], 39.5)


def test_parametrised_schedule() -> None:
    """rto, rc and rm are the caller's."""
    assert sends(Schedule(rto=0.125, rc=3, rm=4)) == ([0, 0.125, 0.375], 0.875)


def test_missed_sends_are_not_caught_up() -> None:
    """A driver that slept through two sends sends once, and the schedule goes on where it would have been."""
    transaction = Transaction(b"t" * 12, b"request", SERVER, 0.0)
    assert transaction.due(0.0) is not None
    assert transaction.due(2.0) is not None
    assert transaction.due(2.0) is None
    assert transaction.next_timeout() == 3.5
    assert transaction.sends == 3


def test_stopped_retransmission_still_waits() -> None:
    """After `stop_retransmitting` nothing is sent, and an answer is awaited until the same end."""
    transaction = Transaction(b"t" * 12, b"request", SERVER, 0.0)
    transaction.due(0.0)
    transaction.stop_retransmitting()
    assert transaction.due(5.0) is None
    assert transaction.next_timeout() == 39.5
    assert not transaction.is_expired(39.4)
    assert transaction.is_expired(39.5)


@pytest.mark.parametrize(
    ("transaction_id", "source", "local", "answer"),
    [
        (b"t" * 12, SERVER, LOCAL, True),
        (b"u" * 12, SERVER, LOCAL, False),
        (b"t" * 12, Address("192.0.2.1", 3479), LOCAL, False),
        (b"t" * 12, Address("192.0.2.2", 3478), LOCAL, False),
        (b"t" * 12, SERVER, Address("198.51.100.1", 5001), False),
        (b"t" * 12, SERVER, None, False),
    ],
)
def test_only_the_symmetric_answer_matches(
    transaction_id: bytes, source: Address, local: Address | None, answer: bool
) -> None:
    """An answer needs the id, and the request's path backwards."""
    transaction = Transaction(b"t" * 12, b"request", SERVER, 0.0, local=LOCAL)
    assert transaction.matches(transaction_id, source, local) == answer


def test_round_trip_only_when_sent_once() -> None:
    """A round trip is measured only when it is clear which send was answered."""
    transaction = Transaction(b"t" * 12, b"request", SERVER, 1.0)
    transaction.due(1.0)
    assert transaction.round_trip(1.25) == 0.25
    transaction.due(1.5)
    assert transaction.round_trip(1.75) is None


def test_request_is_sent_where_it_belongs() -> None:
    """Each send carries the destination and the base to leave by."""
    transaction = Transaction(b"t" * 12, b"request", SERVER, 0.0, local=LOCAL)
    transmit = transaction.due(0.0)
    assert transmit is not None
    assert (transmit.data, transmit.destination, transmit.local) == (b"request", SERVER, LOCAL)
