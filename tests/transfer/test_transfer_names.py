"""Names from a peer: accepted only when they are one plain name on every system."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crowline.transfer.names import (
    MAX_COMPONENT_BYTES,
    MAX_DEPTH,
    MAX_SHOWN,
    UnsafeName,
    acts_unasked,
    check_component,
    display_name,
    numbered,
    portable,
    split_path,
    twin_key,
)

GOOD = [
    "holiday.mov",
    "notes/2024/a b.txt",
    "-rf",
    "~",
    "~root",
    ".gitignore",
    "console.log",
    "com.example",
    "com10",
    "aux_",
    "naïve/日本語/🧑‍🚀.txt",
    " leading space",
    "a" * 255,
    "é" * 127,
    "%2e%2e",
    "$HOME",
    "`id`",
    "...a",
]

BAD = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "a/./b",
    "a/..",
    "/etc/passwd",
    "//srv/share",
    "a//b",
    "a/",
    "..\\x",
    "a\\b",
    "C:\\x",
    "C:x",
    "C:",
    "\\\\srv\\x",
    "\\\\?\\C:\\x",
    "x:stream",
    "x::$DATA",
    "con",
    "CON",
    "Con.txt",
    "nul.tar.gz",
    "nul .txt",
    "aux/x",
    "com1",
    "COM¹.log",
    "lpt0",
    "conin$",
    "CLOCK$",
    "NUL\x00",
    "a\x00b",
    "a\nb",
    "a\rb",
    "a\x1b[31mred",
    "a\x7fb",
    "a\x9bb",
    "evil\u202egnp.exe",
    "a\u2066b",
    "a\u200eb",
    "a\u2028b",
    "\ufeffa",
    "a\ud800b",
    "a\u2044b",
    "a\u2215b",
    "a\uff0fb",
    "a\uff3cb",
    "trailing.",
    "trailing ",
    "...",
    "a ./b",
    "what?",
    "a*b",
    'a"b',
    "a<b",
    "a>b",
    "a|b",
    "a" * 256,
    "é" * 128,
    "a" * 300,
    "/".join("a" * (MAX_DEPTH + 1)),
    "/".join(["a" * 200] * 30),
]


@pytest.mark.parametrize("path", GOOD)
def test_a_plain_name_is_accepted(path: str) -> None:
    """Ordinary names of every language pass, in their own spelling."""
    assert "/".join(split_path(path)) == path


@pytest.mark.parametrize("path", BAD, ids=ascii)
def test_a_hostile_name_is_refused(path: str) -> None:
    """Whatever could mean something else on any system is refused with a sentence that is safe to print."""
    with pytest.raises(UnsafeName) as refused:
        split_path(path)
    assert refused.value.message.isprintable()


def test_depth_up_to_the_limit_is_accepted() -> None:
    """The deepest allowed path has as many components as the limit says."""
    assert len(split_path("/".join("a" * MAX_DEPTH))) == MAX_DEPTH


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A", "a"),
        ("Straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("CAF\u00c9/x", "cafe\u0301/X"),
        ("\u212bngstrom", "a\u030angstrom"),
    ],
)
def test_twins_have_one_key(one: str, other: str) -> None:
    """Case and normal form do not tell two names apart."""
    assert twin_key(one) == twin_key(other)


def test_different_names_have_different_keys() -> None:
    """The key keeps apart what every file system keeps apart."""
    assert len({twin_key(name) for name in ("a", "b", "é", "e", "a/b", "ab")}) == 6


@given(st.text(max_size=300))
@example("..")
@example("con" + " " * 300 + ".txt")
@example("aux." + "x" * 251)
@example("\ud800")
@example("a" * 254 + ". ")
def test_portable_makes_any_name_acceptable(name: str) -> None:
    """Whatever a local file is called, its portable name passes the check."""
    check_component(portable(name))


@pytest.mark.parametrize("name", [name for name in GOOD if "/" not in name])
def test_portable_keeps_a_good_name(name: str) -> None:
    """A name that needs no change gets none."""
    assert portable(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("12:30 what?.mp3", "12_30 what_.mp3"), ("nul.txt", "_nul.txt"), ("end. ", "end_"), ("..", "_")],
)
def test_portable_changes_no_more_than_it_must(name: str, expected: str) -> None:
    """Only the characters that some system forbids are replaced."""
    assert portable(name) == expected


@given(st.text(min_size=1, max_size=300), st.integers(1, 10_000), st.booleans())
@example("x" * 250 + ".mov", 1, False)
def test_a_numbered_name_stays_acceptable(name: str, number: int, folder: bool) -> None:
    """Counting up never makes a name too long or otherwise bad."""
    candidate = numbered(portable(name), number, folder=folder)
    assert len(candidate.encode()) <= MAX_COMPONENT_BYTES
    assert f" ({number})" in candidate
    check_component(candidate)


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("a.txt", False, "a (1).txt"),
        ("a.tar.gz", False, "a.tar (1).gz"),
        ("a", False, "a (1)"),
        (".bashrc", False, ".bashrc (1)"),
        ("v1.2", True, "v1.2 (1)"),
        ("Mr. Smith", False, "Mr. Smith (1)"),
    ],
)
def test_the_number_stands_before_the_extension(name: str, folder: bool, expected: str) -> None:
    """A program still recognises the file by its extension."""
    assert numbered(name, 1, folder=folder) == expected


@given(st.text(max_size=500))
def test_displayed_text_is_one_harmless_line(text: str) -> None:
    """No control character, no bidirectional override, no flood reaches the terminal."""
    shown = display_name(text)
    assert len(shown) <= MAX_SHOWN * 10
    for character in shown:
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert character not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_displayed_text_shows_what_was_hidden() -> None:
    """An invisible character becomes a visible escape."""
    assert display_name("a\x1b[31m\u202eb\n") == "a\\x1b[31m\\u202eb\\x0a"


@pytest.mark.parametrize("name", [".bashrc", ".ssh", "Desktop.ini", "AUTORUN.INF"])
def test_f7_names_that_are_obeyed_unasked_are_known(name: str) -> None:
    """A dotfile or desktop file is recognised, so that a person is asked first."""
    assert acts_unasked(name)
    assert not acts_unasked("a" + name)
