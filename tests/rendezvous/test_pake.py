"""The key exchange: equal passwords agree, everything else is refused before a key exists."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.rendezvous.pake import MAX_ELEMENT, BadElement, Spake2Pake
from crowline.rendezvous.role import Role

P = 2**255 - 19
# The y coordinates of the eight points of small order: multiples of the group order times any point.
SMALL_ORDER = [
    0,
    1,
    P - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
]


def pair(host: bytes, join: bytes) -> tuple[Spake2Pake, Spake2Pake]:
    return Spake2Pake(Role.HOST, host, os.urandom), Spake2Pake(Role.JOIN, join, os.urandom)


def test_equal_passwords_make_equal_keys() -> None:
    """Both sides derive the same key from one message each."""
    host, join = pair(b"1234", b"1234")
    assert host.finish(join.element).reveal() == join.finish(host.element).reveal()
    assert len(host.element) <= MAX_ELEMENT


def test_different_passwords_make_different_keys() -> None:
    """A wrong guess gives a key that fits nothing."""
    host, join = pair(b"1234", b"1235")
    assert host.finish(join.element).reveal() != join.finish(host.element).reveal()


def test_the_own_element_is_refused() -> None:
    """A hub that sends a side its own element back learns nothing (reflection), with either side's mark."""
    for mark in (b"A", b"B", b"S"):
        host, _ = pair(b"1234", b"1234")
        with pytest.raises(BadElement):
            host.finish(mark + host.element[1:])


def test_an_element_of_the_same_side_is_refused() -> None:
    """Two hosts do not make a key."""
    host, _ = pair(b"1234", b"1234")
    other, _ = pair(b"1234", b"1234")
    with pytest.raises(BadElement):
        host.finish(other.element)


@pytest.mark.parametrize("y", SMALL_ORDER)
@pytest.mark.parametrize("sign", [0, 1])
def test_points_of_small_order_are_refused(y: int, sign: int) -> None:
    """The identity and its seven neighbours would make the key predictable."""
    host, _ = pair(b"1234", b"1234")
    with pytest.raises(BadElement):
        host.finish(b"B" + (y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("y", [P, P + 1, P + 4, 2**255 - 1])
def test_unreduced_coordinates_are_refused(y: int) -> None:
    """One point has one form."""
    host, _ = pair(b"1234", b"1234")
    with pytest.raises(BadElement):
        host.finish(b"B" + y.to_bytes(32, "little"))


def test_wrong_lengths_are_refused() -> None:
    """Every prefix, and one byte more."""
    host, join = pair(b"1234", b"1234")
    for length in range(len(join.element)):
        with pytest.raises(BadElement):
            host.finish(join.element[:length])
    with pytest.raises(BadElement):
        host.finish(join.element + b"\x00")


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_any_bytes_are_an_element_or_refused(data: bytes) -> None:
    """No other exception escapes the library."""
    host, _ = pair(b"1234", b"1234")
    try:
        host.finish(b"B" + data)
    except BadElement:
        return


def test_randomness_is_an_argument() -> None:
    """The same entropy makes the same element."""
    one, two = (Spake2Pake(Role.HOST, b"1234", lambda n: bytes([7]) * n) for _ in range(2))
    assert one.element == two.element
