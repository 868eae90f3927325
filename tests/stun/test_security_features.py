"""Nonce cookies, password algorithms and prepared strings: the small parts of RFC 8489 §9.2."""

from __future__ import annotations

import pytest

import stun_vectors as vectors
from crowline.stun import attributes as a
from crowline.stun.integrity import long_term_key_sha256, userhash
from crowline.stun.nonce_cookie import SIZE, Features, read_features, write_cookie
from crowline.stun.opaque_string import prepare
from crowline.stun.password_algorithms import (
    OFFERED,
    Algorithm,
    derive_key,
    first_known,
    read_choice,
    write_choice,
)

ALL_FEATURES = [Features(p, u) for p in (False, True) for u in (False, True)]


@pytest.mark.parametrize("features", ALL_FEATURES)
def test_a_cookie_says_what_was_written(features: Features) -> None:
    """What a server writes in front of its nonce, a client reads there."""
    cookie = write_cookie(features)
    assert len(cookie) == SIZE == 13
    assert read_features(cookie + "anything") == features


@pytest.mark.parametrize(
    ("bits", "features"),
    [
        ("AAAA", Features()),
        ("gAAA", Features(password_algorithms=True)),
        ("AAAB", Features(password_algorithms=True)),
        ("QAAA", Features(username_anonymity=True)),
        ("AAAC", Features(username_anonymity=True)),
        ("wAAA", Features(True, True)),
        ("wAAD", Features(True, True)),
        ("P//8", Features()),
    ],
)
def test_both_bit_orders_are_read(bits: str, features: Features) -> None:
    """Counted from the top as the RFC says, or from the bottom as its vector does; other bits are nothing."""
    assert read_features(f"obMatJos2{bits}f//499k954d6OL34oL9FSTvy64sA") == features


def test_both_features_are_written_at_both_ends() -> None:
    """A reader of either bit order finds what it looks for."""
    assert write_cookie(Features(True, True)) == "obMatJos2wAAD"


@pytest.mark.parametrize(
    "nonce", ["", "obMatJos2", "obMatJos2gA", "obMatJos2gA==", "obMatJos2§§§§", "xgAAAy"]
)
def test_no_cookie_means_no_feature(nonce: str) -> None:
    """Nonces of servers before RFC 8489, and damaged ones, tell of nothing."""
    assert read_features(nonce) == Features()


def test_the_vector_of_the_rfc_hides_its_user() -> None:
    """RFC 8489 B.1: its nonce says username anonymity, and its USERHASH is the one of its user."""
    nonce = "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"
    assert nonce.encode() in vectors.SHA256_PRINTED
    assert read_features(nonce).username_anonymity
    assert userhash(vectors.MATRIX_USER, vectors.MATRIX_REALM) in vectors.SHA256_PRINTED


def test_the_offer_is_sha256_before_md5() -> None:
    """The list on the wire, best first, without parameters."""
    assert OFFERED.value == bytes.fromhex("0002 0000 0001 0000")
    assert first_known(OFFERED) is Algorithm.SHA256


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_choice_is_read_as_written(algorithm: Algorithm) -> None:
    """The chosen algorithm crosses the wire."""
    assert read_choice(write_choice(algorithm)) is algorithm


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("0001 0000 0002 0000", Algorithm.MD5),
        ("0099 0003 aabbcc00 0002 0000", Algorithm.SHA256),
        ("0099 0003 aabbcc", None),
        ("0002 0004 aabbccdd", None),
        ("0002 0004 aabb", None),
        ("0002", None),
        ("", None),
    ],
)
def test_the_first_known_algorithm_counts(value: str, known: Algorithm | None) -> None:
    """Unknown numbers and parameters that do not belong are passed over; a damaged list has none."""
    assert first_known(a.PasswordAlgorithms(bytes.fromhex(value))) is known


@pytest.mark.parametrize("value", ["", "0002", "0003 0000", "0002 0001 ff", "0002 0000 0001 0000"])
def test_a_choice_is_one_entry_that_we_know(value: str) -> None:
    """Nothing, something unknown, or two at once is no choice."""
    assert read_choice(a.PasswordAlgorithm(bytes.fromhex(value))) is None


def test_keys_of_the_rfc() -> None:
    """RFC 8489 §9.2.2 prints one MD5 key; the SHA-256 key is of the same text."""
    assert derive_key(Algorithm.MD5, "user", "realm", "pass").hex() == "8493fbc53ba582fb4c044c456bdc40eb"
    key = derive_key(Algorithm.SHA256, "user", "realm", "pass")
    assert key == long_term_key_sha256("user", "realm", "pass")
    assert len(key) == 32


def test_strings_are_prepared() -> None:
    """RFC 8265 §4.2: composed or not, with whatever space, a password is the same; ASCII is left alone."""
    assert prepare("pa:ss word") == "pa:ss word"
    assert prepare("cafe\u0301\u00a0x") == prepare("café\u3000x") == "café x"
    decomposed = derive_key(Algorithm.SHA256, "u", "r", "cafe\u0301")
    assert decomposed == derive_key(Algorithm.SHA256, "u", "r", "café")
