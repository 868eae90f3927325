"""New inputs from old ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fuzz.harness import MAX_INPUT

_NUMBERS = (0, 1, 3, 4, 7, 8, 0x3F, 0x40, 0x4F, 0x50, 0x7F, 0x80, 0xFE, 0xFF)
_WIDE = (0, 1, 3, 0x3FFF, 0x4000, 0x4FFF, 0x5000, 0x7FFF, 0x8000, 0xFFFC, 0xFFFE, 0xFFFF)
MOST_STEPS = 6


def mutate(data: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> bytes:
    """`data` with one to six changes; `pool` are other inputs to take parts from."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, MOST_STEPS)):
        dice.choice(_STEPS)(changed, pool, tokens, dice)
    return bytes(changed[:MAX_INPUT])


def _flip(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.choice(_NUMBERS)


def _set_wide(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    if len(data) >= 2:
        at = dice.randrange(len(data) - 1)
        data[at : at + 2] = dice.choice(_WIDE).to_bytes(2, "big")


def _add_small(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    if data:
        at = dice.randrange(len(data))
        data[at] = (data[at] + dice.randint(-4, 4)) % 256


def _cut(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    if data:
        start = dice.randrange(len(data))
        del data[start : start + dice.choice((1, 2, 4, 16, len(data)))]


def _repeat(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    if data:
        start = dice.randrange(len(data))
        part = data[start : start + dice.choice((1, 4, 20, 100))]
        data[start:start] = part * dice.choice((1, 1, 2, 10, 100))


def _insert(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    at = dice.randint(0, len(data))
    data[at:at] = (
        dice.choice(tokens) if tokens and dice.random() < 0.7 else dice.randbytes(dice.randint(1, 8))
    )


def _overwrite(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    if data and tokens:
        token = dice.choice(tokens)
        at = dice.randrange(len(data))
        data[at : at + len(token)] = token


def _join(data: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], dice: random.Random) -> None:
    other = dice.choice(pool)
    cut = dice.randint(0, len(data))
    data[cut:] = other[dice.randint(0, len(other)) :]


_STEPS = (_flip, _set, _set_wide, _add_small, _cut, _repeat, _insert, _overwrite, _join)
