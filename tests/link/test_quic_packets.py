"""What is read of datagrams before any connection is asked."""

from __future__ import annotations

import random

import pytest

from crowline.link.quic_packets import ID_LENGTH, by_connection

ONE, OTHER = b"1" * ID_LENGTH, b"2" * ID_LENGTH
SIZE = 50


def short(connection: bytes, size: int = SIZE) -> bytes:
    return (b"\x40" + connection).ljust(size, b".")


def long(connection: bytes) -> bytes:
    return (b"\xc0\0\0\0\1" + bytes([len(connection)]) + connection).ljust(SIZE, b".")


def cut(*datagrams: bytes) -> list[tuple[bytes, bytes]]:
    return [(owner, bytes(run)) for owner, run in by_connection(memoryview(b"".join(datagrams)), SIZE)]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 44])
@pytest.mark.parametrize("rest", [b"", short(ONE, 20), short(ONE, 1 + ID_LENGTH)])
def test_a_run_of_one_connection_stays_whole(count: int, rest: bytes) -> None:
    """However long it is, and however short its last datagram."""
    run = short(ONE) * count + rest
    assert cut(run) == [(ONE, run)]


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("other", [short(OTHER), long(OTHER)])
def test_a_datagram_of_another_connection_is_cut_out(count: int, other: bytes) -> None:
    """Wherever in a run it is."""
    some = short(ONE) * count
    assert cut(other, some) == [(OTHER, other), (ONE, some)]
    assert cut(some, other, some) == [(ONE, some), (OTHER, other), (ONE, some)]
    assert cut(some, other) == [(ONE, some), (OTHER, other)]


def test_ids_that_differ_in_one_byte_are_told_apart() -> None:
    """In any of their bytes."""
    for place in range(ID_LENGTH):
        near = bytearray(ONE)
        near[place] ^= 1
        run = [short(ONE)] * 20
        run[random.Random(place).randrange(1, 20)] = short(bytes(near))
        assert bytes(near) in {owner for owner, _ in cut(*run)}
