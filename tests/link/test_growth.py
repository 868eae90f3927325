"""When larger packets are thought of, and which sizes are tried."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.link.growth import FAST, WORTH, Growth
from crowline.link.quic import MAX_DATAGRAM_SIZE

PAIR = (Address("192.0.2.1", 1000), Address("198.51.100.2", 2000))


def sizes(growth: Growth, limit: int) -> list[int]:
    """What is tried one after the other while nothing of it comes through."""
    tried = []
    while size := growth.next_size(PAIR, limit):
        tried.append(size)
        growth.failed(PAIR, size, is_too_large=True)
    return tried


@pytest.mark.parametrize(
    ("limit", "tried"),
    [
        (65507, [MAX_DATAGRAM_SIZE, 1472, 1452, 1372]),
        (8972, [8972, 1472, 1452, 1372]),
        (1472, [1472, 1452, 1372]),
        (1464, [1464, 1452, 1372]),
        (1372, [1372]),
        (1250, [1250]),
        (1200, []),
        (548, []),
    ],
)
def test_what_this_machine_lets_out_is_tried_first_and_then_what_is_usual(
    limit: int, tried: list[int]
) -> None:
    """The least size needs no try, and nothing is tried that this machine would cut itself."""
    assert sizes(Growth(), limit) == tried


def test_a_handshake_that_failed_for_no_known_reason_is_tried_again_but_not_for_ever() -> None:
    """A packet may have got lost by chance, or because it was too large."""
    growth = Growth()
    for _ in range(4):
        assert growth.next_size(PAIR, 1472) == 1472
        growth.failed(PAIR, 1472, is_too_large=False)
    assert growth.next_size(PAIR, 1472) == 1452


def test_after_a_fall_much_more_must_have_been_carried() -> None:
    """A path that changes its mind is not asked again and again."""
    growth = Growth()
    growth.fell(PAIR, 1472)
    growth.fell(PAIR, 1472)
    assert growth.worth(PAIR) > 1000 * WORTH
    assert growth.next_size(PAIR, 1472) == 1472


def test_before_there_is_bulk_a_few_handshakes_are_worth_it_and_no_more() -> None:
    """Enough for each size once; a path that takes none of them is left in peace."""
    growth = Growth()
    tried = []
    while size := growth.early_size(PAIR, 9000):
        tried.append(size)
        growth.failed(PAIR, size, is_too_large=True)
    assert tried == [9000, 1472, 1452, 1372]
    other = Growth()
    assert sum(other.early_size(PAIR, 1472) is not None for _ in range(100)) == 4


def test_after_a_fall_nothing_is_tried_without_bulk() -> None:
    """What the path seemed to carry was not true for long."""
    growth = Growth()
    growth.fell(PAIR, 1472)
    assert growth.early_size(PAIR, 1472) is None


def test_a_change_of_the_network_forgets_all_of_it() -> None:
    """It may carry what the one before did not."""
    growth = Growth()
    sizes(growth, 1472)
    growth.fell(PAIR, 1472)
    growth.start_over()
    assert growth.worth(PAIR) == WORTH and growth.next_size(PAIR, 1472) == 1472
    assert growth.early_size(PAIR, 1472) == 1472


@pytest.mark.parametrize(
    ("rtt", "share"), [(0.0, 0.125), (0.001, 0.125), (0.01, 0.5), (0.02, 1.0), (0.2, 1.0)]
)
def test_short_round_trips_make_it_worth_while_sooner(rtt: float, share: float) -> None:
    """A new connection takes round trips to find its rate; on a short path that is soon done."""
    growth = Growth()
    at_the_limit = WORTH / (share * FAST)
    assert growth.is_worth(PAIR, at_the_limit * 0.99, rtt)
    assert not growth.is_worth(PAIR, at_the_limit * 1.01, rtt)


def test_pairs_without_end_are_not_remembered_without_end() -> None:
    """A meeting that changes networks for days keeps a bounded memory."""
    growth = Growth()
    for port in range(1, 5000):
        growth.fell((Address("192.0.2.1", port), PAIR[1]), 1472)
    assert len(growth._pairs) < 100
