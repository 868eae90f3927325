"""Near misses of a mistyped code, found without asking anyone: a guess at the server would cost the code."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import permutations, product

from crowline.rendezvous.code import MAX_NUMBER, Code, place_parts, syndrome
from crowline.rendezvous.words import indexes, words

MAX_SUGGESTIONS = 5
MAX_EDITS = 2
"""Typing errors looked for in a word that is not in the list; the words are three apart."""

MAX_SUBSTITUTE_EDITS = 4
"""Typing errors between a word of the list and the one that was meant: another word, misheard."""

MAX_NEAR = 8
"""Candidates kept for an unknown word; at two typing errors there are rarely more than three."""

SWAP_COST = 1.5
"""Two words in the wrong order are less likely than one slip of the finger, likelier than two."""

Triple = tuple[str, str, str]


def near_misses(number: int, spoken: Triple) -> tuple[Code, ...]:
    """Codes whose checksum fits and that are close to what was typed, the likeliest first."""
    ranked: dict[Code, float] = {}
    for cost, code in _candidates(number, spoken):
        if cost < ranked.get(code, float("inf")):
            ranked[code] = cost
    best = sorted(ranked, key=lambda code: (ranked[code], str(code)))
    return tuple(best[:MAX_SUGGESTIONS])


def _candidates(number: int, spoken: Triple) -> Iterator[tuple[float, Code]]:
    options = [readings(word) for word in spoken]
    for reading in product(*options):
        cost = sum(edits for edits, _ in reading)
        places = (reading[0][1], reading[1][1], reading[2][1])
        yield from _fitting(number, places, cost)
        for order in permutations(places):
            yield from _fitting(number, (order[0], order[1], order[2]), cost + SWAP_COST)
        for other in _other_numbers(number):
            yield from _fitting(other, places, cost + 1)
    if all(word in indexes() for word in spoken):
        yield from _substituted(number, spoken)


def _fitting(number: int, places: tuple[int, int, int], cost: float) -> Iterator[tuple[float, Code]]:
    if syndrome(number, places) == 0:
        yield cost, Code.from_indexes(number, places)


def readings(word: str) -> list[tuple[int, int]]:
    """What `word` may have meant: (typing errors, place in the list), the likeliest `MAX_NEAR`."""
    known = indexes()
    if word in known:
        return [(0, known[word])]
    letters = _letters(word)
    found = []
    for place, (candidate, its_letters) in enumerate(zip(words(), _all_letters(), strict=True)):
        if len(word) >= 3 and candidate.startswith(word):
            found.append((1, place))
            continue
        # One typing error changes at most two members of the set of letters.
        if (letters ^ its_letters).bit_count() > 2 * MAX_EDITS:
            continue
        edits = distance(word, candidate)
        if edits <= MAX_EDITS:
            found.append((edits, place))
    return sorted(found)[:MAX_NEAR]


def _substituted(number: int, spoken: Triple) -> Iterator[tuple[float, Code]]:
    """Codes with one word exchanged for another of the list: the checksum leaves eight for each place."""
    known = indexes()
    parts = place_parts()
    places = [known[word] for word in spoken]
    wrong = syndrome(number, (places[0], places[1], places[2]))
    for at in range(3):
        wanted = parts[at][places[at]] ^ wrong
        for candidate, part in enumerate(parts[at]):
            if part != wanted:
                continue
            edits = distance(spoken[at], words()[candidate])
            if edits <= MAX_SUBSTITUTE_EDITS:
                other = [*places[:at], candidate, *places[at + 1 :]]
                yield edits, Code.from_indexes(number, (other[0], other[1], other[2]))


@cache
def _other_numbers(number: int) -> tuple[int, ...]:
    """The numbers one typing error away."""
    text = str(number)
    found = set()
    for at in range(len(text) + 1):
        head, tail = text[:at], text[at:]
        found |= {head + digit + tail for digit in "0123456789"}
        if tail:
            found |= {head + digit + tail[1:] for digit in "0123456789"}
            found.add(head + tail[1:])
        if len(tail) > 1:
            found.add(head + tail[1] + tail[0] + tail[2:])
    numbers = {int(other) for other in found if other and not other.startswith("0")}
    return tuple(sorted(other for other in numbers if other != number and other <= MAX_NUMBER))


def distance(left: str, right: str) -> int:
    """Typing errors between two words: wrong, missing, extra letters and neighbours exchanged."""
    before: list[int] = []
    above = list(range(len(right) + 1))
    for row, mine in enumerate(left, 1):
        line = [row]
        for column, theirs in enumerate(right, 1):
            best = min(above[column] + 1, line[-1] + 1, above[column - 1] + (mine != theirs))
            if row > 1 and column > 1 and mine == right[column - 2] and left[row - 2] == theirs:
                best = min(best, before[column - 2] + 1)
            line.append(best)
        before, above = above, line
    return above[-1]


@cache
def _all_letters() -> tuple[int, ...]:
    return tuple(_letters(word) for word in words())


def _letters(word: str) -> int:
    mask = 0
    for letter in word:
        mask |= 1 << (ord(letter) - ord("a"))
    return mask
