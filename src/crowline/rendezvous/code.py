"""The code that one person reads to another: a number and three words.

The words carry 33 bits: 25 secret ones and an 8-bit checksum over the number and the secret. The number
names a mailbox on the server and is public; the secret bits feed the PAKE and leave the machine in no other
form.

The checksum is a CRC, because its promises hold for every code and not only on average: changing one digit of
the number never goes unnoticed, and of the 2,047 other words in one place exactly 7 do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from crowline.base.errors import WrongCode
from crowline.rendezvous.words import BITS_PER_WORD, indexes, words

SECRET_BITS = 25
CHECKSUM_BITS = 8
MAX_NUMBER = 9_999_999
"""Seven digits: ten million mailboxes are more than one server holds, and more cannot be read aloud."""

LAN_NUMBERS = range(10_000, 100_000)
"""Those of meetings that a network has without a server; servers give out shorter numbers first, so that
hardly a code of theirs is looked for in vain."""

MAX_TEXT = 200
"""Characters looked at; a pasted command line fits, a pasted document is not a code."""

CRC_POLYNOMIAL = 0x2F
CRC_START = 0xAE
"""Chosen so that the code of the documentation is one."""

EXAMPLE = "7-maple-orbit-candle"


class CodeTypo(WrongCode):
    """There is a typo in that code."""

    def __init__(self, suggestions: tuple[Code, ...] = (), message: str | None = None) -> None:
        hint = f"Did you mean {suggestions[0]}?" if suggestions else "Check it with the other side."
        super().__init__(message, hint=hint)
        self.suggestions = suggestions


@dataclass(frozen=True, slots=True, repr=False)
class Code:
    """A number, 1 to 9,999,999, and three words whose checksum fits. The class methods build it."""

    number: int
    words: tuple[str, str, str]

    @classmethod
    def generate(cls, number: int, entropy: Callable[[int], bytes]) -> Code:
        """A fresh code for the mailbox `number`."""
        return cls.from_secret(number, draw_secret(entropy))

    @classmethod
    def from_secret(cls, number: int, secret: int) -> Code:
        """The code of `number` and `secret` (25 bits)."""
        return cls.from_indexes(number, _split(secret << CHECKSUM_BITS | _checksum(number, secret)))

    @classmethod
    def from_indexes(cls, number: int, places: tuple[int, int, int]) -> Code:
        """The code of three places in the word list; the caller has checked the checksum."""
        first, second, third = (words()[place] for place in places)
        return cls(number, (first, second, third))

    @classmethod
    def parse(cls, text: str) -> Code:
        """Read what a person typed: any case, any separators, quotes, a command in front, words run together.

        Raises `CodeTypo` with the near misses whose checksum fits, the likeliest first.
        """
        number, spoken = _read(text)
        if len(spoken) != 3 or any(word not in indexes() for word in spoken):
            spoken = _segment("".join(spoken)) or spoken
        if len(spoken) != 3:
            raise CodeTypo(message=f"A code has a number and three words, like {EXAMPLE}.")
        first, second, third = spoken
        known = indexes()
        if first in known and second in known and third in known:
            places = (known[first], known[second], known[third])
            if syndrome(number, places) == 0:
                return cls.from_indexes(number, places)
        from crowline.rendezvous.typos import near_misses

        raise CodeTypo(near_misses(number, (first, second, third)))

    @property
    def secret(self) -> int:
        """The 25 secret bits."""
        known = indexes()
        first, second, third = (known[word] for word in self.words)
        return (first << 2 * BITS_PER_WORD | second << BITS_PER_WORD | third) >> CHECKSUM_BITS

    @property
    def is_of_lan(self) -> bool:
        """Whether it may have been made without a server."""
        return self.number in LAN_NUMBERS

    def password(self) -> bytes:
        """What feeds the PAKE: the secret alone, so that it can start before a number is known."""
        return password(self.secret)

    def __str__(self) -> str:
        return "-".join((str(self.number), *self.words))

    def __repr__(self) -> str:
        return f"Code({self.number}-…)"


def draw_secret(entropy: Callable[[int], bytes]) -> int:
    """25 secret bits."""
    return int.from_bytes(entropy(4), "big") >> (32 - SECRET_BITS)


def password(secret: int) -> bytes:
    """The PAKE's password of 25 secret bits: four bytes."""
    return secret.to_bytes(4, "big")


def syndrome(number: int, places: tuple[int, int, int]) -> int:
    """Zero exactly for a code whose checksum fits.

    A CRC is linear: the result is the exclusive or of one part for the number and one for each place, so
    that the words that would fit in one place can be looked up (`place_parts`) and need not be tried.
    """
    parts = place_parts()
    return _checksum(number, 0) ^ parts[0][places[0]] ^ parts[1][places[1]] ^ parts[2][places[2]]


@cache
def place_parts() -> tuple[tuple[int, ...], ...]:
    """For each of the three places the part of `syndrome` of each word in it."""
    zero = _checksum(0, 0)
    total = 3 * BITS_PER_WORD
    of_bit = [1 << bit for bit in range(CHECKSUM_BITS)]
    of_bit += [_checksum(0, 1 << bit) ^ zero for bit in range(total - CHECKSUM_BITS)]
    tables = []
    for place in range(3):
        lowest = total - (place + 1) * BITS_PER_WORD
        table = [0]
        for bit in range(BITS_PER_WORD):
            table += [part ^ of_bit[lowest + bit] for part in table]
        tables.append(tuple(table))
    return tuple(tables)


def _split(bits: int) -> tuple[int, int, int]:
    mask = (1 << BITS_PER_WORD) - 1
    return bits >> 2 * BITS_PER_WORD, bits >> BITS_PER_WORD & mask, bits & mask


def _checksum(number: int, secret: int) -> int:
    register = CRC_START
    for byte in str(number).encode() + secret.to_bytes(4, "big"):
        register ^= byte
        for _ in range(8):
            register = (register << 1 ^ (CRC_POLYNOMIAL if register & 0x80 else 0)) & 0xFF
    return register


def _read(text: str) -> tuple[int, list[str]]:
    """The number, and the words after it (or all words, when they stand before it)."""
    plain = unicodedata.normalize("NFKC", text[:MAX_TEXT]).casefold()
    tokens = re.findall(r"[0-9]+|[a-z]+", plain)
    numbers = [place for place, token in enumerate(tokens) if token.isdigit()]
    if len(numbers) != 1 or len(text) > MAX_TEXT:
        raise CodeTypo(message=f"That is not a code: one looks like {EXAMPLE}.")
    [at] = numbers
    if len(tokens[at]) > len(str(MAX_NUMBER)) or int(tokens[at]) == 0:
        raise CodeTypo(message="The number of that code is not one that servers give out.")
    after = tokens[at + 1 :]
    return int(tokens[at]), after or tokens[:at]


def _segment(letters: str) -> list[str] | None:
    """Cut letters into three words of the list, if that can be done."""
    known = indexes()
    for first in range(3, len(letters) - 5):
        if letters[:first] not in known:
            continue
        for second in range(first + 3, len(letters) - 2):
            pieces = [letters[i:j] for i, j in pairwise((0, first, second, len(letters)))]
            if all(piece in known for piece in pieces):
                return pieces
    return None
