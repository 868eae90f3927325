"""Runs of ChannelData whose headers are all alike are cut without a look at each one, and give the same."""

from __future__ import annotations

import random
import struct

from crowline.turn import channel_data


def payloads(run: bytes, size: int) -> list[tuple[int, bytes]]:
    """Every payload with its channel, each datagram looked at alone."""
    pieces = (channel_data.unwrap(run[start : start + size]) for start in range(0, len(run), size))
    return [(piece[0], bytes(piece[1])) for piece in pieces if piece is not None]


def test_runs_give_what_their_datagrams_give() -> None:
    """Thousands of random runs, most of them even, with headers that lie, other channels and short ends."""
    chance, even = random.Random(8656), 0
    for _ in range(5000):
        size, run = chance.randint(4, 24), b""
        for _ in range(chance.randint(1, 6)):
            number = chance.choice([0x4000] * 9 + [0x4001, 0x5000])
            length = chance.choice([size - 4] * 9 + [max(0, size - 5), size, 0])
            run += (struct.pack("!HH", number, length) + chance.randbytes(size - 4))[:size]
        run = run[: len(run) - chance.choice([0, 0, 0, 1, 3])]
        even += channel_data._is_even(memoryview(run), size)
        cut = list(channel_data.unwrap_run(run, size))
        assert [(number, bytes(part)) for number, parts in cut for part in parts] == payloads(run, size)
        for _, parts in cut:
            assert all(len(part) == len(parts[0]) for part in parts[:-1])
            assert len(parts[-1]) <= len(parts[0])
            assert len(parts) == 1 or all(len(part) for part in parts)
    assert even > 500


def test_empty_datagrams_of_a_run_are_datagrams() -> None:
    """RFC 8656 §12.6: without data there is still a datagram, wherever in a run it stands."""
    full, empty = b"\x40\0\0\4full", b"\x40\0\0\0    "
    cut = channel_data.unwrap_run(full + empty + empty + full + full + b"\x40\0\0\0", 8)
    assert [[bytes(part) for part in parts] for _, parts in cut] == [
        [b"full"], [b""], [b""], [b"full", b"full"], [b""],
    ]  # fmt: skip


def test_a_run_of_one_channel_becomes_one_of_another_where_it_lies() -> None:
    """A run with a shorter end, one without, and a datagram alone."""
    for payloads_there in ([b"a" * 100] * 5 + [b"b" * 7], [b"a" * 100] * 4, [b"alone"]):
        size, joined = len(payloads_there[0]) + 4, b"".join(payloads_there)
        run = bytearray(channel_data.wrap_run(0x4000, joined, size - 4))
        assert channel_data.number_of_run(memoryview(run), size) == 0x4000
        channel_data.renumber_run(memoryview(run), size, 0x4ABC)
        assert run == channel_data.wrap_run(0x4ABC, joined, size - 4)


def test_no_other_run_has_a_number() -> None:
    """One with another channel, padding, a lie about its length, an empty datagram, or a bit of a header."""
    even = b"\x40\0\0\4full" * 2
    for run in (
        even + b"\x40\1\0\4full",
        even + b"\x40\0\0\3fulx",
        even + b"\x40\0\0\5full",
        even + b"\x40\0\0\0",
        even + b"\x40\0",
        even + b"\x40\0\0\2a",
        even + b"\x40\0\0\1ab",
        b"\x50\0\0\4full" * 2,
        b"\x40\0\0",
        b"",
    ):
        assert channel_data.number_of_run(memoryview(run), 8) is None
    assert channel_data.number_of_run(memoryview(even + b"\x40\0\0\1a"), 8) == 0x4000
