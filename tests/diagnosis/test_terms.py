"""The words that a diagnosis uses can be asked for."""

from __future__ import annotations

import pytest

from crowline.base.errors import UsageError
from crowline.diagnosis.terms import TERMS, explain


@pytest.mark.parametrize(
    "word", ["NAT", "symmetric", "Full-Cone", "UPnP", "double nat", "CGNAT", "mtu", "turn"]
)
def test_a_term_is_found_however_it_is_written(word: str) -> None:
    """Case and hyphens are nobody's concern."""
    assert explain(word).text


def test_an_unknown_word_names_those_that_are_known() -> None:
    """So that one need not guess."""
    with pytest.raises(UsageError) as caught:
        explain("flux")
    assert "mapping" in caught.value.hint


def test_no_name_stands_for_two_terms() -> None:
    """Whoever asks gets one answer."""
    names = [name.replace("-", "").replace(" ", "").lower() for term in TERMS for name in term.names]
    assert len(names) == len(set(names))


def test_a_text_that_points_to_a_term_points_to_one_that_there_is() -> None:
    """`like this`."""
    for term in TERMS:
        for word in term.text.split("`")[1::2]:
            assert explain(word) in TERMS
