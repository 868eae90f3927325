"""The 2,048 words that codes and verifiers are made of, 11 bits each.

Any two of them are at least three typing errors apart (a wrong, missing, extra or exchanged letter counts as
one), and no two begin with the same four letters: a slip can be put right and a word can be cut short.
"""

from __future__ import annotations

import pkgutil
from functools import cache

BITS_PER_WORD = 11


@cache
def words() -> tuple[str, ...]:
    """The list, in alphabetical order."""
    text = pkgutil.get_data(__package__, "words.txt")
    assert text is not None, "the word list is a part of the package"
    return tuple(text.decode("ascii").split())


@cache
def indexes() -> dict[str, int]:
    """Each word's place in the list."""
    return {word: place for place, word in enumerate(words())}


def spell(data: bytes, count: int) -> tuple[str, ...]:
    """The first `count` × 11 bits of `data` as words."""
    bits = int.from_bytes(data, "big") >> (len(data) * 8 - count * BITS_PER_WORD)
    mask = (1 << BITS_PER_WORD) - 1
    return tuple(words()[bits >> place * BITS_PER_WORD & mask] for place in reversed(range(count)))
