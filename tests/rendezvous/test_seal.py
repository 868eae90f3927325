"""Sealed messages: what an attacker on the way can do to them, and what comes of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.base.errors import IntegrityFailed
from crowline.base.secrets import Secret
from crowline.rendezvous.keys import derive
from crowline.rendezvous.seal import MAX_MESSAGES, OVERHEAD, Opener, SealBroken, Sealer, SealExhausted

KEY = Secret(bytes(range(32)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=20))))
def test_messages_open_in_the_order_of_sealing(messages: list[tuple[bytes, bytes]]) -> None:
    """What was sealed comes out, and a seal adds 16 bytes."""
    sealer, opener = Sealer(KEY), Opener(KEY)
    for plain, associated in messages:
        sealed = sealer.seal(plain, associated)
        assert len(sealed) == len(plain) + OVERHEAD
        assert opener.open(sealed, associated) == plain


def test_every_flipped_bit_is_noticed() -> None:
    """One bit anywhere, in text or tag, breaks the seal."""
    sealed = Sealer(KEY).seal(b"six words that nobody may alter")
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            Opener(KEY).open(bytes(altered))


def test_every_truncation_is_noticed() -> None:
    """No prefix of a message opens."""
    sealed = Sealer(KEY).seal(b"whole")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            Opener(KEY).open(sealed[:length])


@pytest.mark.parametrize("order", [(0, 0), (1,), (0, 2), (1, 0)], ids=["replayed", "late", "lost", "swapped"])
def test_order_is_part_of_the_seal(order: tuple[int, ...]) -> None:
    """A repeated, missing or moved message does not open."""
    sealer, opener = Sealer(KEY), Opener(KEY)
    sealed = [sealer.seal(b"message %d" % number) for number in range(3)]
    with pytest.raises(SealBroken):
        for number in order:
            opener.open(sealed[number])


def test_nothing_opens_after_a_failure() -> None:
    """One broken message ends the direction, so that an attacker has one try."""
    sealer, opener = Sealer(KEY), Opener(KEY)
    good = sealer.seal(b"good")
    with pytest.raises(SealBroken):
        opener.open(b"\x00" * len(good))
    with pytest.raises(SealBroken) as broken:
        opener.open(good)
    assert isinstance(broken.value, IntegrityFailed)


def test_a_message_turned_back_does_not_open() -> None:
    """Each direction has its own key, so a side cannot be made to read its own words."""
    host, join = (derive(KEY, f"signals/{role}") for role in ("host", "join"))
    sealed = Sealer(host).seal(b"from the host")
    with pytest.raises(SealBroken):
        Opener(join).open(sealed)


def test_associated_data_is_authenticated() -> None:
    """The same message under another label does not open."""
    sealed = Sealer(KEY).seal(b"text", b"one")
    with pytest.raises(SealBroken):
        Opener(KEY).open(sealed, b"two")


def test_a_nonce_is_never_used_twice() -> None:
    """The same text sealed twice gives different bytes, and at the limit sealing stops."""
    sealer = Sealer(KEY)
    assert sealer.seal(b"same") != sealer.seal(b"same")
    sealer._count = MAX_MESSAGES - 1
    sealer.seal(b"the last one")
    for _ in range(2):
        with pytest.raises(SealExhausted):
            sealer.seal(b"one too many")


def test_keys_of_two_purposes_differ() -> None:
    """HKDF separates purposes, and takes the wanted length."""
    assert derive(KEY, "a").reveal() != derive(KEY, "b").reveal()
    assert len(derive(KEY, "a", 7).reveal()) == 7
    assert derive(KEY, "a").reveal() == derive(KEY, "a").reveal()
