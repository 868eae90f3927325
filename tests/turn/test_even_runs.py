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
