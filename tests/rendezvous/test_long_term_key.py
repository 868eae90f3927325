"""Proofs of a long-term key are good for one side of one meeting."""

from __future__ import annotations

import os

import pytest

from crowline.base.secrets import Secret
from crowline.rendezvous.long_term_key import LongTermKey, proves
from crowline.rendezvous.role import Role

BINDING = bytes(range(32))


@pytest.fixture
def key() -> LongTermKey:
    return LongTermKey(Secret(os.urandom(32)))


def test_a_proof_shows_the_key(key: LongTermKey) -> None:
    """To whoever has the public one and was in the meeting."""
    proof = key.prove(Role.HOST, BINDING)
    assert proves(proof, key.public, Role.HOST, BINDING)


def test_a_proof_is_worth_nothing_elsewhere(key: LongTermKey) -> None:
    """From the other side, in another meeting, for another key, or altered."""
    proof = key.prove(Role.HOST, BINDING)
    other = LongTermKey(Secret(os.urandom(32)))
    assert not proves(proof, key.public, Role.JOIN, BINDING)
    assert not proves(proof, key.public, Role.HOST, bytes(32))
    assert not proves(proof, other.public, Role.HOST, BINDING)
    assert not proves(bytes([proof[0] ^ 1]) + proof[1:], key.public, Role.HOST, BINDING)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_what_has_another_length_proves_nothing(key: LongTermKey, length: int) -> None:
    """And raises nothing."""
    proof = key.prove(Role.HOST, BINDING)
    assert not proves(proof, bytes(length), Role.HOST, BINDING)
    assert not proves(bytes(length + 1), key.public, Role.HOST, BINDING)


def test_points_of_small_order_prove_nothing() -> None:
    """A signature under one needs no private key, and libraries take it (RFC 8032 §5.1.7 lets them)."""
    prime, order_eight = 2**255 - 19, 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    for y in (0, 1, prime - 1, prime, prime + 1, order_eight, prime - order_eight):
        for sign in (0, 1 << 255):
            point = (y | sign).to_bytes(32, "little")
            for start in (bytes(32), point, b"\x01" + bytes(31)):
                for role in Role:
                    for number in range(16):
                        assert not proves(start + bytes(32), point, role, bytes([number]) * 32)
