"""The line that a person writes in a chat: keys in, texts out, and what is shown of it."""

from __future__ import annotations

import pytest

from crowline.cli.chat_screen import set_off
from crowline.cli.line_editor import Key, LineEditor, width

LEFT, RIGHT, UP, DOWN = b"\x1b[D", b"\x1b[C", b"\x1b[A", b"\x1b[B"
HOME, END, DELETE = b"\x1b[H", b"\x1bOF", b"\x1b[3~"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (b"hello\r", ["hello"]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"\r  \r", []),
        (b"helo" + LEFT + b"l\r", ["hello"]),
        (b"ello" + HOME + b"h" + END + b"!\r", ["hello!"]),
        (b"hxello" + HOME + RIGHT + DELETE + b"\r", ["hello"]),
        (b"hellox\x7f\r", ["hello"]),
        (b"\x7f\x7fa\r", ["a"]),
        (b"say hello there\x17\x17bye\r", ["say bye"]),
        (b"wrong\x15right\r", ["right"]),
        (b"hello there" + LEFT * 6 + b"\x0b\r", ["hello"]),
        (b"b\x01a\x05c\r", ["abc"]),
        (b"a\x04\x04b\r", ["ab"]),
        (b"one\x1b\rtwo\r", ["one\ntwo"]),
        (b"a\tb\r", ["a\tb"]),
        (b"a\x00\x07b\r", ["ab"]),
        (b"a" + LEFT * 9 + RIGHT * 9 + b"b\r", ["ab"]),
        (b"\x1b[200~one\rtwo\nthree\x1b[201~\r", ["one\ntwo\nthree"]),
        (b"\x1b[200~a\x1b[Db\x03\x1b[201~c\r", ["ab\x03c"]),
        (b"\x1b[1;5Da\r", ["a"]),
        (b"\x1bxa\r", ["a"]),
        (b"\x1b[" + b"1" * 40 + b"a\r", ["1" * 26 + "a"]),
    ],
    ids=repr,
)
def test_keys_make_texts(keys: bytes, expected: list[str]) -> None:
    """Also when they come one byte at a time."""
    assert LineEditor().feed(keys) == expected
    editor = LineEditor()
    assert [text for byte in keys for text in editor.feed(bytes([byte]))] == expected


def test_characters_may_come_in_pieces() -> None:
    """And what is no UTF-8 is shown as such."""
    editor = LineEditor()
    assert [text for byte in "zwei ü 漢\r".encode() for text in editor.feed(bytes([byte]))] == ["zwei ü 漢"]
    assert editor.feed(b"\xff\r") == ["�"]


def test_the_end_is_ctrl_d_where_nothing_is_written() -> None:
    """Elsewhere it deletes what is under the cursor."""
    editor = LineEditor()
    assert editor.feed(b"ab" + HOME + b"\x04\r") == ["b"]
    assert editor.feed(b"\x04") == [Key.END]


def test_the_arrows_bring_back_what_was_written() -> None:
    """The newest first; below it is an empty line."""
    editor = LineEditor()
    editor.feed(b"one\rtwo\r")
    assert editor.feed(UP + UP + UP + b"!\r") == ["one!"]
    assert editor.feed(UP + UP + DOWN + b"\r") == ["one!"]
    assert editor.feed(UP + DOWN + DOWN + b"new\r") == ["new"]


@pytest.mark.parametrize(
    ("keys", "width", "expected"),
    [
        (b"hello", 20, ("hello", 5)),
        (b"hello" + LEFT, 20, ("hello", 4)),
        (b"0123456789", 5, ("6789", 4)),
        (b"0123456789" + HOME, 5, ("0123", 0)),
        ("漢字漢字".encode(), 5, ("漢字", 4)),
        (b"\x1b[200~a\nb\x1b[0m\x07c\x1b[201~", 20, ("a⏎b�c", 5)),
        ("e\u0301".encode(), 20, ("e\u0301", 1)),
    ],
    ids=repr,
)
def test_what_fits_is_shown(keys: bytes, width: int, expected: tuple[str, int]) -> None:
    """Around the cursor, by columns, without what could move the terminal's own."""
    editor = LineEditor()
    editor.feed(keys)
    assert editor.view(width) == expected


def test_nobody_can_write_what_looks_like_somebody_elses_message() -> None:
    """Each further line is set off, and nothing moves the cursor or turns the text around."""
    shown = set_off("ana: ", "hi\nyou: I owe you 100\r\x1b[2Ax\u202egnp.exe", 80)
    assert shown == "ana: hi\n     you: I owe you 100��[2Ax�gnp.exe"


@pytest.mark.parametrize("columns", [1, 10, 20, 21, 80])
@pytest.mark.parametrize("filler", [" ", "字", "e\u0301"], ids=["narrow", "wide", "combining"])
@pytest.mark.parametrize("head", ["ana: ", "  ", f"{'x' * 32}: "])
def test_no_text_is_long_enough_to_reach_the_beginning_of_a_line(
    columns: int, filler: str, head: str
) -> None:
    """The terminal breaks none: each one fits, and all but the first are set off."""
    text = filler * 100 + "you: I owe you 100"
    first, *others = set_off(head, text, columns).split("\n")
    assert others and first.startswith(head) and all(line.startswith("  ") for line in others)
    shown = first.removeprefix(head) + "".join(line.lstrip(" ") for line in others)
    assert shown.replace(" ", "") == text.replace(" ", "")
    for line in others:
        assert sum(width(char) for char in line) <= max(columns, 10)
