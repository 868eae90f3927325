"""A long text becomes several messages, and nothing of it is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.chat.pages import pages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n", []),
        ("short", ["short"]),
        ("two\r\nlines\r\n", ["two\nlines"]),
        ("12345\n78901\n", ["12345", "78901"]),
        ("1234567890\nab", ["1234567890", "ab"]),
        ("1234567890ab", ["1234567890", "ab"]),
        ("a\n\n\n\n\n\n\n\n\n\n\n\nb", ["a", "b"]),
    ],
)
def test_texts_are_cut_at_the_ends_of_lines(text: str, expected: list[str]) -> None:
    """Where there are any; lines end as they do everywhere."""
    assert pages(text, 10) == expected


@given(st.text(alphabet="ab\n\r", max_size=200), st.integers(1, 20))
def test_no_piece_is_empty_or_too_long_and_nothing_is_lost(text: str, most: int) -> None:
    """But for line ends."""
    found = pages(text, most)
    assert all(1 <= len(page) <= most for page in found)
    assert "".join(found).replace("\n", "") == text.replace("\n", "").replace("\r", "")
