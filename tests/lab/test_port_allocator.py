"""How outside ports are given out, kind by kind."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import TCP, UDP, Allocation
from crowline.lab.port_allocator import PortAllocator

HOST = "10.0.0.2"
NEIGHBOUR = "10.0.0.3"
KINDS = [
    Allocation.PRESERVING,
    Allocation.sequential(1),
    Allocation.sequential(-3),
    Allocation.block(8),
    Allocation.RANDOM,
    Allocation.PARITY,
]


class Pool:
    """An allocator and the ports that it has given out."""

    def __init__(self, low: int = 1024, high: int = 65535, seed: int = 1) -> None:
        self.allocator = PortAllocator((low, high), random.Random(seed).randbytes)
        self.used: set[int] = set()
        self.is_free: Callable[[int], bool] = lambda port: port not in self.used

    def take(self, kind: Allocation, port: int = 5000, host: str = HOST, protocol: int = UDP) -> int | None:
        given = self.allocator.allocate(kind, protocol, Address(host, port), self.is_free)
        if given is not None:
            assert given not in self.used
            self.used.add(given)
        return given

    def many(self, kind: Allocation, count: int, host: str = HOST, protocol: int = UDP) -> list[int]:
        ports = [self.take(kind, host=host, protocol=protocol) for _ in range(count)]
        return [port for port in ports if port is not None]

    def give_back(self, port: int, host: str = HOST) -> None:
        self.used.remove(port)
        self.allocator.release(host)


@pytest.mark.parametrize("step", [1, 2, 7, -1, -2])
def test_a_sequence_goes_on_by_its_step(step: int) -> None:
    """Each port is the one before plus the step, up or down, around the end of the range."""
    ports = Pool(40000, 40099).many(Allocation.sequential(step), 40)
    assert {(after - before) % 100 for before, after in itertools.pairwise(ports)} == {step % 100}


def test_a_sequence_wraps_around_at_both_ends() -> None:
    """After the last port comes the first one, and the other way round."""
    for step, turn in ((1, (2002, 2000)), (-1, (2000, 2002))):
        ports = Pool(2000, 2002).many(Allocation.sequential(step), 3)
        pool = Pool(2000, 2002)
        again = []
        for _ in range(6):
            again.append(pool.take(Allocation.sequential(step)))
            pool.used.clear()
        assert sorted(ports) == [2000, 2001, 2002]
        assert turn in itertools.pairwise(again)


def test_a_sequence_passes_over_ports_in_use() -> None:
    """A taken port is left out, and the step counts on from the port that was given."""
    pool = Pool(40000, 40009)
    first = pool.take(Allocation.sequential(2))
    assert first is not None
    pool.used.add(40000 + (first - 40000 + 2) % 10)
    assert pool.take(Allocation.sequential(2)) == 40000 + (first - 40000 + 4) % 10


def test_a_sequence_that_returns_to_itself_takes_the_ports_between() -> None:
    """A step that shares a factor with the range reaches every port all the same."""
    assert sorted(Pool(40000, 40009).many(Allocation.sequential(5), 10)) == list(range(40000, 40010))


def test_a_sequence_begins_anywhere_and_protocols_count_by_themselves() -> None:
    """Two boxes start at different ports, and so do UDP and TCP of one box."""
    kind = Allocation.sequential(1)
    starts = {Pool(seed=seed).take(kind) for seed in range(20)}
    assert len(starts) > 15
    pool = Pool()
    udp = pool.many(kind, 5)
    pool.many(kind, 5, protocol=TCP)
    assert pool.take(kind) == udp[-1] + 1


def test_a_block_holds_all_ports_of_its_host() -> None:
    """Ports of one host span less than its block, those of another host lie in another block."""
    pool = Pool()
    kind = Allocation.block(64)
    mine, theirs = pool.many(kind, 20), pool.many(kind, 20, host=NEIGHBOUR)
    blocks = [{(port - 1024) // 64 for port in ports} for ports in (mine, theirs)]
    assert [len(block) for block in blocks] == [1, 1]
    assert blocks[0] != blocks[1]
    assert mine != sorted(mine)


def test_a_block_that_is_used_up_gives_no_more() -> None:
    """Sixteen ports are sixteen ports, however many are free elsewhere; another host has its own."""
    pool = Pool()
    assert len(pool.many(Allocation.block(16), 20)) == 16
    assert len(pool.many(Allocation.block(16), 20, host=NEIGHBOUR)) == 16


def test_a_block_returns_with_the_last_port_of_its_host() -> None:
    """With one block in the range a second host waits until the first has nothing left."""
    pool = Pool(40000, 40007)
    kind = Allocation.block(8)
    first, second = pool.many(kind, 2)
    assert pool.take(kind, host=NEIGHBOUR) is None
    pool.give_back(first)
    assert pool.take(kind, host=NEIGHBOUR) is None
    pool.give_back(second)
    assert pool.take(kind, host=NEIGHBOUR) is not None


def test_a_block_outlives_the_expiry_of_all_its_ports_during_an_allocation() -> None:
    """Asking what is free may release every port of the host: the block stays the one that is given from."""
    pool = Pool()
    kind = Allocation.block(1)
    port = pool.take(kind)
    assert port is not None

    def is_free(candidate: int) -> bool:
        if candidate in pool.used:
            pool.give_back(candidate)
        return True

    assert pool.allocator.allocate(kind, UDP, Address(HOST, 5000), is_free) == port
    pool.used.add(port)
    assert pool.take(kind) is None


def test_blocks_of_two_sizes_do_not_overlap() -> None:
    """A host with a small and a large block keeps them apart from everyone else's."""
    pool = Pool(40000, 40031)
    small = pool.many(Allocation.block(4), 4)
    large = pool.many(Allocation.block(16), 16, host=NEIGHBOUR)
    assert len(small) == 4
    assert len(large) == 16


def test_a_block_larger_than_the_range_gives_nothing() -> None:
    """No block fits: no port."""
    assert Pool(40000, 40007).take(Allocation.block(16)) is None


def test_parity_is_kept_and_the_port_is_not() -> None:
    """Even stays even and odd stays odd, at both ends of an odd-sized range."""
    pool = Pool(40000, 40010)
    even = [pool.take(Allocation.PARITY, port=5000) for _ in range(7)]
    odd = [pool.take(Allocation.PARITY, port=5001) for _ in range(6)]
    assert sorted(port for port in even if port is not None) == [40000, 40002, 40004, 40006, 40008, 40010]
    assert sorted(port for port in odd if port is not None) == [40001, 40003, 40005, 40007, 40009]
    wide = [Pool(seed=seed).take(Allocation.PARITY) for seed in range(40)]
    assert len(set(wide)) > 35


def test_a_preserved_port_may_lie_outside_of_the_range_its_substitute_may_not() -> None:
    """The inside port comes first; taken, a random one of the range takes its place."""
    pool = Pool(40000, 40099)
    assert pool.take(Allocation.PRESERVING, port=700) == 700
    substitute = pool.take(Allocation.PRESERVING, port=700)
    assert substitute is not None
    assert 40000 <= substitute <= 40099


def test_kinds_without_their_parameter_are_refused() -> None:
    """A sequence without a step and a block without ports are the caller's mistakes."""
    with pytest.raises(UsageError):
        Allocation.sequential(0)
    with pytest.raises(UsageError):
        Allocation.block(0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(seed=st.integers(0, 1000), low=st.integers(1024, 1100), span=st.integers(1, 40))
def test_no_kind_gives_a_port_twice_or_outside_of_the_range(
    kind: Allocation, seed: int, low: int, span: int
) -> None:
    """Whatever the range, each port is given once and lies within, and in the end there is none."""
    pool = Pool(low, low + span - 1, seed)
    ports = [pool.take(kind, port=low) for _ in range(span + 1)]
    given_out = [port for port in ports if port is not None]
    assert len(given_out) == len(set(given_out))
    assert all(low <= port < low + span for port in given_out)
    assert ports[-1] is None
