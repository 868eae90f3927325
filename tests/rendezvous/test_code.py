"""Codes: their words, their checksum, and what is made of a mistyped one."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.base.errors import WrongCode
from crowline.rendezvous.code import MAX_NUMBER, SECRET_BITS, Code, CodeTypo, syndrome
from crowline.rendezvous.typos import MAX_NEAR, MAX_SUGGESTIONS, distance, readings
from crowline.rendezvous.words import indexes, spell, words

NUMBERS = st.integers(1, MAX_NUMBER)
SECRETS = st.integers(0, 2**SECRET_BITS - 1)
CODES = st.builds(Code.from_secret, NUMBERS, SECRETS)
EXAMPLE = Code(7, ("maple", "orbit", "candle"))


def places(code: Code) -> list[int]:
    return [indexes()[word] for word in code.words]


def test_the_list_has_2048_plain_words_in_order() -> None:
    """2,048 distinct words of three to eight lower-case letters, sorted."""
    assert len(words()) == len(set(words())) == 2048
    assert list(words()) == sorted(words())
    assert all(3 <= len(word) <= 8 and set(word) <= set(string.ascii_lowercase) for word in words())


def test_no_two_words_begin_with_the_same_four_letters() -> None:
    """Four letters name a word, and no word begins another."""
    assert len({word[:4] for word in words()}) == 2048


def test_any_two_words_are_three_typing_errors_apart() -> None:
    """One typing error leaves one nearest word."""
    letters = [frozenset(word) for word in words()]
    for left, word in enumerate(words()):
        for right in range(left):
            if len(letters[left] ^ letters[right]) <= 4 and abs(len(word) - len(words()[right])) <= 2:
                assert distance(word, words()[right]) >= 3, (word, words()[right])


@settings(deadline=None)
@given(CODES)
def test_a_code_reads_back(code: Code) -> None:
    """What is shown can be typed."""
    assert Code.parse(str(code)) == code


@settings(deadline=None)
@given(NUMBERS, SECRETS)
def test_the_password_is_the_secret_and_not_the_number(number: int, secret: int) -> None:
    """The public number is no part of what feeds the PAKE."""
    code = Code.from_secret(number, secret)
    assert code.secret == secret
    assert code.password() == secret.to_bytes(4, "big")


@pytest.mark.parametrize(
    "text",
    [
        "7-maple-orbit-candle",
        "  7 Maple ORBIT candle\n",
        "7 - maple - orbit - candle",
        "“7–maple—orbit−candle”",
        "'7-maple-orbit-candle'.",
        "7.maple_orbit/candle",
        "7maple orbit candle",
        "7 mapleorbit candle",
        "7 maple or bit candle",
        "7 maple orbit candle",
        "maple orbit candle 7",
        "007-maple-orbit-candle",
        "crowline receive 7-maple-orbit-candle",
        "https://get.example/7-maple-orbit-candle",
    ],
)
def test_parsing_forgives_the_form(text: str) -> None:
    """Case, spaces, separators, quotes and a command in front do not matter."""
    assert Code.parse(text) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "maple-orbit-candle",
        "7-maple-orbit",
        "7-8-maple-orbit-candle",
        "0-maple-orbit-candle",
        "99999999-maple-orbit-candle",
        "7-maple-orbit-candle-river",
        "-1",
        "9" * 100_000,
        "7-maple-orbit-candle" + " " * 1000,
        "\x00\ud800",
    ],
)
def test_what_is_no_code_is_refused_with_a_sentence(text: str) -> None:
    """Anything else is a wrong code (exit 4), with no suggestion."""
    with pytest.raises(CodeTypo) as refused:
        Code.parse(text)
    assert isinstance(refused.value, WrongCode)
    assert refused.value.exit_code == 4
    assert refused.value.suggestions == ()
    assert refused.value.message.endswith(".")


@settings(deadline=None)
@given(CODES, st.integers(0, 2))
def test_of_2047_other_words_in_one_place_exactly_7_pass(code: Code, place: int) -> None:
    """A wrong word is caught with probability 2040/2047, which is more than 1 - 1/256, for every code."""
    mine = places(code)
    passing = 0
    for other in range(2048):
        trial = [*mine[:place], other, *mine[place + 1 :]]
        passing += other != mine[place] and syndrome(code.number, (trial[0], trial[1], trial[2])) == 0
    assert passing == 7


@settings(deadline=None)
@given(CODES, st.data())
def test_a_wrong_digit_never_passes(code: Code, data: st.DataObject) -> None:
    """The checksum covers the number: one changed digit is always noticed."""
    text = str(code.number)
    at = data.draw(st.integers(0, len(text) - 1))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != text[at]]))
    changed = int(text[:at] + digit + text[at + 1 :])
    first, second, third = places(code)
    assert changed == 0 or syndrome(changed, (first, second, third)) != 0


def test_a_typo_of_one_letter_leads_to_the_right_code() -> None:
    """At least 95 of 100 wrong, missing, extra or exchanged letters are put right by the first suggestion."""
    dice = random.Random(5)
    right = tried = 0
    for _ in range(1000):
        code = Code.generate(dice.choice([3, 42, 123]), dice.randbytes)
        typed = list(code.words)
        at = dice.randrange(3)
        typed[at] = one_typo(typed[at], dice)
        if typed[at] == code.words[at]:
            continue
        tried += 1
        right += best_reading(f"{code.number} {' '.join(typed)}") == code
    assert tried > 900
    assert right >= 0.95 * tried


@pytest.mark.parametrize(
    "text",
    [
        "7 mapel orbt candel",
        "7-orbit-maple-candle",
        "7-candle-orbit-maple",
        "8-maple-orbit-candle",
        "71-maple-orbit-candle",
        "7-mapl-orbi-cand",
        "7-candle-orbti-maple",
    ],
)
def test_near_misses_contain_what_was_meant(text: str) -> None:
    """Two slips, exchanged words, a wrong number and words cut short are found."""
    with pytest.raises(CodeTypo) as typo:
        Code.parse(text)
    assert EXAMPLE in typo.value.suggestions
    assert len(typo.value.suggestions) <= MAX_SUGGESTIONS
    assert str(typo.value.suggestions[0]) in typo.value.hint


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_code_or_a_wrong_code(text: str) -> None:
    """Nothing else escapes the parser."""
    try:
        Code.parse(text)
    except WrongCode:
        return


@settings(deadline=None)
@given(st.text(string.ascii_lowercase, min_size=1, max_size=12))
def test_an_unknown_word_has_few_readings(word: str) -> None:
    """Three unknown words do not explode into combinations."""
    assert len(readings(word)) <= MAX_NEAR


def test_codes_do_not_print_their_words() -> None:
    """A log line with a code's repr gives nothing away."""
    assert repr(EXAMPLE) == "Code(7-…)"


def test_spelling_takes_eleven_bits_a_word() -> None:
    """The first bits name the first word."""
    assert spell(bytes([0, 0b00100000, 0, 0, 0, 0]), 2) == (words()[1], words()[0])


def one_typo(word: str, dice: random.Random) -> str:
    at = dice.randrange(len(word))
    letter = dice.choice(string.ascii_lowercase)
    return dice.choice(
        [
            word[:at] + letter + word[at + 1 :],
            word[:at] + letter + word[at:],
            word[:at] + word[at + 1 :],
            word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :],
        ]
    )


def best_reading(text: str) -> Code | None:
    try:
        return Code.parse(text)
    except CodeTypo as typo:
        return typo.suggestions[0] if typo.suggestions else None
