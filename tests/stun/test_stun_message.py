"""The STUN codec, against the vectors of the RFCs and against everything that is not a message."""

from __future__ import annotations

import hmac
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stun_vectors as vectors
from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun.integrity import (
    fingerprint,
    long_term_key,
    long_term_key_sha256,
    sha1_integrity,
    sha256_integrity,
    short_term_key,
    userhash,
    verify_integrity,
)
from crowline.stun.message import (
    MAX_ATTRIBUTES,
    MalformedStun,
    Message,
    MessageClass,
    Method,
    is_stun,
    parse,
)

ID = bytes(range(12))
KEY = short_term_key(vectors.PASSWORD)


def message(*attributes: a.AnyAttribute, method: Method = Method.BINDING) -> Message:
    return Message(method, MessageClass.REQUEST, ID, attributes)


def raw(*attributes: tuple[int, bytes]) -> bytearray:
    """A Binding request of attributes of any type and value, honestly framed."""
    body = bytearray()
    for number, value in attributes:
        body += struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)
    return bytearray(struct.pack("!HHI", 1, len(body), a.MAGIC_COOKIE) + ID + body)


# --- vectors --------------------------------------------------------------------------------------------


def test_request_vector() -> None:
    """RFC 5769 §2.1 parses, verifies with the short-term key and gives its documented values."""
    received = parse(vectors.REQUEST)
    assert received.message.method is Method.BINDING
    assert received.message.message_class is MessageClass.REQUEST
    assert received.message.attributes == (
        a.Software("STUN test client"),
        a.Priority(0x6E0001FF),
        a.IceControlled(0x932FF9B151263B36),
        a.Username("evtj:h6vY"),
    )
    assert received.has_fingerprint
    assert verify_integrity(received, KEY)
    assert not verify_integrity(received, KEY + b"x")


@pytest.mark.parametrize(
    ("vector", "host"),
    [("RESPONSE_IPV4", "192.0.2.1"), ("RESPONSE_IPV6", "2001:db8:1234:5678:11:2233:4455:6677")],
)
def test_response_vectors(vector: str, host: str) -> None:
    """RFC 5769 §2.2 and §2.3 give the mapped address and verify."""
    received = parse(getattr(vectors, vector))
    assert received.message.message_class is MessageClass.SUCCESS
    assert received.message.get(a.XorMappedAddress) == a.XorMappedAddress(Address(host, 32853))
    assert received.message.get(a.Software) == a.Software("test vector")
    assert verify_integrity(received, KEY)


def test_long_term_vector() -> None:
    """RFC 5769 §2.4 verifies with the MD5 key, and our encoder writes the very same bytes."""
    received = parse(vectors.LONG_TERM)
    key = long_term_key(vectors.MATRIX_USER, vectors.MATRIX_REALM, vectors.MATRIX_PASSWORD)
    assert received.message.get(a.Username) == a.Username(vectors.MATRIX_USER)
    assert received.message.get(a.Nonce) == a.Nonce("f//499k954d6OL34oL9FSTvy64sA")
    assert verify_integrity(received, key)
    assert received.message.encode(key=key) == vectors.LONG_TERM


def test_sha256_vector() -> None:
    """RFC 8489 B.1 as printed: malformed by its length, yet its HMAC is that of the SHA-256 key."""
    printed = vectors.SHA256_PRINTED
    user = (vectors.MATRIX_USER, vectors.MATRIX_REALM, vectors.MATRIX_PASSWORD)
    with pytest.raises(MalformedStun):
        parse(printed)
    assert hmac.digest(long_term_key_sha256(*user), printed[:-36], "sha256") == printed[-32:]
    assert hmac.digest(long_term_key(*user), printed[:-36], "sha256") != printed[-32:]


def test_sha256_vector_with_its_length_corrected() -> None:
    """RFC 8489 B.1 with an honest length gives its attributes, and our encoder writes all but the HMAC."""
    printed = vectors.SHA256_PRINTED
    user = (vectors.MATRIX_USER, vectors.MATRIX_REALM, vectors.MATRIX_PASSWORD)
    corrected = printed[:2] + struct.pack("!H", len(printed) - 20) + printed[4:]
    received = parse(corrected)
    assert received.message.attributes == (
        a.Userhash(userhash(*user[:2])),
        a.Nonce("obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"),
        a.Realm(vectors.MATRIX_REALM),
    )
    ours = received.message.encode(key=long_term_key_sha256(*user), sha256=True)
    assert ours[:-32] == corrected[:-32]
    assert verify_integrity(parse(ours), long_term_key_sha256(*user))
    assert not verify_integrity(parse(ours), long_term_key(*user))


# --- truncation and lies --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", vectors.ALL)
def test_every_prefix_is_malformed(name: str) -> None:
    """No prefix of a message parses, and none raises anything but `MalformedStun`."""
    vector = vectors.ALL[name]
    for size in range(len(vector)):
        assert not is_stun(vector[:size])
        with pytest.raises(MalformedStun):
            parse(vector[:size])


@pytest.mark.parametrize("name", vectors.ALL)
def test_every_false_message_length_is_malformed(name: str) -> None:
    """A length field that is not exactly the rest of the message is malformed."""
    vector = vectors.ALL[name]
    true = len(vector) - 20
    for lie in {0, 1, 3, 4, true - 4, true - 1, true + 1, true + 4, 0xFFFC, 0xFFFF} - {true}:
        with pytest.raises(MalformedStun):
            parse(vector[:2] + struct.pack("!H", lie) + vector[4:])


@pytest.mark.parametrize("name", vectors.ALL)
def test_every_false_attribute_length_is_malformed_or_unverified(name: str) -> None:
    """Attribute lengths that lie never raise anything else and never leave a message that verifies."""
    vector = vectors.ALL[name]
    keys = [
        KEY,
        long_term_key(vectors.MATRIX_USER, vectors.MATRIX_REALM, vectors.MATRIX_PASSWORD),
    ]
    for offset in attribute_offsets(vector):
        size = int.from_bytes(vector[offset + 2 : offset + 4], "big")
        for lie in {0, 1, 3, size - 1, size + 1, size + 4, 0x7FFF, 0xFFFC, 0xFFFF} - {size, -1}:
            changed = vector[: offset + 2] + struct.pack("!H", lie) + vector[offset + 4 :]
            try:
                received = parse(changed)
            except MalformedStun:
                continue
            assert not any(verify_integrity(received, key) for key in keys)


def attribute_offsets(vector: bytes) -> list[int]:
    offsets, offset = [], 20
    while offset < len(vector):
        offsets.append(offset)
        size = int.from_bytes(vector[offset + 2 : offset + 4], "big")
        offset += 4 + size + (-size % 4)
    return offsets


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_malformed(data: bytes) -> None:
    """Random bytes behind a valid header raise `MalformedStun` or parse; there is no third way."""
    framed = struct.pack("!HHI", 1, len(data), a.MAGIC_COOKIE) + ID + data
    for candidate in (data, framed):
        try:
            parse(candidate)
        except MalformedStun:
            continue


@given(st.sampled_from(sorted(vectors.ALL)), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_never_verifies(name: str, position: int, change: int) -> None:
    """Flipping any bits up to the end of the integrity, padding included, breaks it or the form."""
    damaged = bytearray(vectors.ALL[name])
    covered = len(damaged) - (8 if parse(damaged).has_fingerprint else 0)
    long_term = long_term_key(vectors.MATRIX_USER, vectors.MATRIX_REALM, vectors.MATRIX_PASSWORD)
    damaged[position % covered] ^= change
    try:
        received = parse(damaged)
    except MalformedStun:
        return
    assert not verify_integrity(received, long_term if name == "long-term" else KEY)


@pytest.mark.parametrize("first", range(256))
def test_top_bits_and_method_decide_what_is_stun(first: int) -> None:
    """Only first bytes with two zero bits look like STUN; unknown methods among them are malformed."""
    data = bytes([first]) + vectors.REQUEST[1:]
    assert is_stun(data) == (first < 0x40)
    if first not in (0x00, 0x01):
        with pytest.raises(MalformedStun):
            parse(data)


def test_wrong_cookie_is_not_stun() -> None:
    """A message of RFC 3489, without the cookie, is not answered and so not parsed."""
    data = vectors.REQUEST[:4] + b"\x21\x12\xa4\x43" + vectors.REQUEST[8:]
    assert not is_stun(data)
    with pytest.raises(MalformedStun):
        parse(data)


# --- attributes -----------------------------------------------------------------------------------------

FIXED_SIZES = {
    a.Priority: 4, a.Lifetime: 4, a.IceControlled: 8, a.IceControlling: 8, a.ChannelNumber: 4, a.EvenPort: 1,
    a.RequestedTransport: 4, a.ReservationToken: 8, a.UseCandidate: 0, a.DontFragment: 0,
    a.RequestedAddressFamily: 4, a.AdditionalAddressFamily: 4, a.ChangeRequest: 4, a.Userhash: 32,
}  # fmt: skip


@pytest.mark.parametrize("cls", FIXED_SIZES, ids=lambda cls: cls.__name__)
def test_fixed_sizes_are_exact(cls: type[a.Attribute]) -> None:
    """A fixed-size attribute of any other size is malformed."""
    for size in range(40):
        data = raw((cls.type, bytes(size)))
        if size == FIXED_SIZES[cls]:
            assert parse(data).message.get(cls) is not None
        else:
            with pytest.raises(MalformedStun):
                parse(data)


@pytest.mark.parametrize("cls", [a.MappedAddress, a.XorMappedAddress, a.XorPeerAddress, a.OtherAddress])
def test_address_sizes_fit_their_family(cls: type[a.Attribute]) -> None:
    """An address is 8 bytes of family 1 or 20 bytes of family 2, and nothing else."""
    for family in range(4):
        for size in range(32):
            value = (bytes([0, family]) + bytes(30))[:size]
            if (family, size) in ((1, 8), (2, 20)):
                assert parse(raw((cls.type, value))).message.get(cls) is not None
            else:
                with pytest.raises(MalformedStun):
                    parse(raw((cls.type, value)))


@pytest.mark.parametrize(
    "value",
    [b"", b"\0\0\4", b"\0\0\2\0", b"\0\0\7\0", b"\0\0\4\x64", b"\0\0\4\1\xff", b"\0\0\4\1" + b"x" * 764],
)
def test_bad_error_codes_are_malformed(value: bytes) -> None:
    """ERROR-CODE needs four bytes, a class of 3 to 6, a number below 100 and a short UTF-8 reason."""
    with pytest.raises(MalformedStun):
        parse(raw((a.ErrorCode.type, value)))


@pytest.mark.parametrize("cls", [a.Username, a.Realm, a.Nonce, a.Software])
def test_texts_are_short_utf8(cls: type[a.Text]) -> None:
    """Texts are strict UTF-8 up to their cap in octets; control characters pass, for whoever shows them."""
    longest = b"x" * cls.max_octets
    assert parse(raw((cls.type, longest))).message.get(cls) == cls(longest.decode())
    assert parse(raw((cls.type, b"\x1b[31m\0"))).message.get(cls) == cls("\x1b[31m\0")
    for value in (longest + b"x", b"\xff", b"\xed\xa0\x80", b"\xc0\x80"):
        with pytest.raises(MalformedStun):
            parse(raw((cls.type, value)))


def test_odd_unknown_attributes_are_malformed() -> None:
    """UNKNOWN-ATTRIBUTES is a list of 16-bit numbers."""
    assert parse(raw((0x000A, b"\x7f\1\x7f\2"))).message.get(a.UnknownAttributes) == a.UnknownAttributes(
        (0x7F01, 0x7F02)
    )
    with pytest.raises(MalformedStun):
        parse(raw((0x000A, b"\x7f\1\x7f")))


def test_first_duplicate_counts() -> None:
    """Of two attributes of one type the first counts; all stay readable for types that may repeat."""
    received = parse(message(a.Lifetime(600), a.Lifetime(0)).encode())
    assert received.message.get(a.Lifetime) == a.Lifetime(600)
    assert received.message.get_all(a.Lifetime) == (a.Lifetime(600), a.Lifetime(0))


def test_attribute_cap() -> None:
    """One attribute more than the cap is malformed, even when all are empty."""
    assert len(parse(raw(*[(0x8055, b"")] * MAX_ATTRIBUTES)).message.attributes) == MAX_ATTRIBUTES
    with pytest.raises(MalformedStun):
        parse(raw(*[(0x8055, b"")] * (MAX_ATTRIBUTES + 1)))
    with pytest.raises(MalformedStun):
        parse(raw(*[(0x8055, b"")] * 16_000))


def test_unknown_attributes_are_listed_when_required() -> None:
    """Unknown types below 0x8000 are listed once each, in order; the others are only kept."""
    received = parse(raw((0x7F02, b"a"), (0x8055, b"b"), (0x7F01, b""), (0x7F02, b"c")))
    assert received.unknown_required == (0x7F02, 0x7F01)
    assert a.UnknownAttribute(0x8055, b"b") in received.message.attributes


def test_padding_is_ignored_and_written_as_zero() -> None:
    """Whatever a peer pads with, the value is the same, and what we write leaks nothing."""
    dirty = message(a.Username("evtj:")).encode().replace(b"evtj:\0\0\0", b"evtj:\xff\xfe\xfd")
    assert parse(dirty).message == message(a.Username("evtj:"))
    assert parse(dirty).message.encode() == message(a.Username("evtj:")).encode()


def test_reserved_bytes_are_ignored() -> None:
    """Reserved bytes of typed attributes do not change their value."""
    received = parse(raw((0x000C, b"\x40\0\xaa\xbb"), (0x0019, b"\x11\xaa\xbb\xcc")))
    assert received.message.get(a.ChannelNumber) == a.ChannelNumber(0x4000)
    assert received.message.get(a.RequestedTransport) == a.RequestedTransport(17)


# --- integrity and fingerprint --------------------------------------------------------------------------


def append(data: bytes, number: int, value: bytes, *, keep_fingerprint: bool = False) -> bytes:
    """Add an attribute behind everything, with the message length corrected."""
    body = data + struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)
    body = body[:2] + struct.pack("!H", len(body) - 20) + body[4:]
    return append(body, 0x8028, fingerprint(body)) if keep_fingerprint else body


@pytest.mark.parametrize("with_fingerprint", [False, True])
@pytest.mark.parametrize("sha256", [False, True])
def test_attributes_after_integrity_do_not_count(with_fingerprint: bool, sha256: bool) -> None:
    """What follows the integrity attribute is ignored, required or not, and the integrity still holds."""
    signed = message(a.Username("u")).encode(key=b"k", sha256=sha256)
    late = append(signed, a.Lifetime.type, bytes(4))
    late = append(late, 0x7F01, b"", keep_fingerprint=with_fingerprint)
    received = parse(late)
    assert received.message == message(a.Username("u"))
    assert received.unknown_required == ()
    assert received.has_fingerprint == with_fingerprint
    assert verify_integrity(received, b"k")


def test_late_attributes_must_still_be_well_formed() -> None:
    """A malformed attribute behind the integrity makes the message malformed."""
    with pytest.raises(MalformedStun):
        parse(append(message().encode(key=b"k"), a.Lifetime.type, bytes(3)))


@pytest.mark.parametrize("size", [0, 4, 16, 19, 21, 32])
def test_message_integrity_has_twenty_bytes(size: int) -> None:
    """MESSAGE-INTEGRITY of another size is malformed."""
    with pytest.raises(MalformedStun):
        parse(raw((0x0008, bytes(size))))


@pytest.mark.parametrize("size", [0, 4, 12, 15, 17, 33, 36])
def test_sha256_integrity_sizes(size: int) -> None:
    """MESSAGE-INTEGRITY-SHA256 has 16 to 32 bytes in steps of four."""
    with pytest.raises(MalformedStun):
        parse(raw((0x001C, bytes(size))))


@pytest.mark.parametrize("size", [16, 20, 28])
def test_truncated_sha256_integrity_is_not_accepted(size: int) -> None:
    """A truncated SHA-256 that would be right does not verify: nobody agreed on truncation."""
    before = message().encode()
    assert not verify_integrity(parse(append(before, 0x001C, sha256_integrity(before, b"k", size))), b"k")
    assert verify_integrity(parse(append(before, 0x001C, sha256_integrity(before, b"k"))), b"k")


def test_sha256_alone_decides_when_both_are_present() -> None:
    """With both integrity attributes the SHA-256 one is checked, and a good SHA-1 does not help it."""
    signed = message().encode(key=b"k")
    assert not verify_integrity(parse(append(signed, 0x001C, bytes(32))), b"k")
    assert verify_integrity(parse(append(signed, 0x001C, sha256_integrity(signed, b"k"))), b"k")
    before = message().encode()
    wrong_sha1 = append(before, 0x0008, bytes(20))
    assert verify_integrity(parse(append(wrong_sha1, 0x001C, sha256_integrity(wrong_sha1, b"k"))), b"k")


def test_first_integrity_counts() -> None:
    """A second MESSAGE-INTEGRITY does not replace the first."""
    before = message().encode()
    forged = append(before, 0x0008, bytes(20))
    assert not verify_integrity(parse(append(forged, 0x0008, sha1_integrity(forged, b"k"))), b"k")


def test_unsigned_message_does_not_verify() -> None:
    """A message without an integrity attribute verifies with no key at all."""
    received = parse(message(a.Username("u")).encode(fingerprint=True))
    assert not received.is_signed
    assert not verify_integrity(received, b"")


def test_fingerprint_must_be_right_last_and_four_bytes() -> None:
    """A wrong, short or early FINGERPRINT is malformed."""
    good = message().encode(fingerprint=True)
    assert parse(good).has_fingerprint
    for bad in (
        good[:-1] + bytes([good[-1] ^ 1]),
        bytes(append(good, 0x8022, b"late")),
        bytes(raw((0x8028, b""))),
        bytes(raw((0x8028, bytes(8)))),
    ):
        with pytest.raises(MalformedStun):
            parse(bad)


def test_buffers_of_every_kind_parse_alike() -> None:
    """bytes, bytearray and a memoryview at an odd offset give the same message, and it owns its bytes."""
    buffer = bytearray(b"\xff" + vectors.REQUEST)
    views = [parse(vectors.REQUEST), parse(bytearray(vectors.REQUEST)), parse(memoryview(buffer)[1:])]
    buffer[:] = bytes(len(buffer))
    assert views[0] == views[1] == views[2]
    assert verify_integrity(views[2], KEY)


# --- round trips ----------------------------------------------------------------------------------------

hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
addresses = st.builds(Address, hosts, st.integers(0, 65535))
words = st.text(max_size=100)
BY_FIELD = {
    "address": addresses,
    "family": st.integers(0, 255),
    "protocol": st.integers(0, 255),
    "seconds": st.integers(0, 2**32 - 1),
    "tie_breaker": st.integers(0, 2**64 - 1),
    "rank": st.integers(0, 2**64 - 1),
    "reserve": st.booleans(),
    "change_ip": st.booleans(),
    "change_port": st.booleans(),
    "token": st.binary(min_size=8, max_size=8),
    "port": st.integers(0, 65535),
    "code": st.integers(300, 699),
    "reason": words,
    "icmp_type": st.integers(0, 127),
    "icmp_code": st.integers(0, 511),
    "data": st.integers(0, 2**32 - 1),
    "types": st.lists(st.integers(0, 65535), max_size=9).map(tuple),
}
VALUES = {
    a.Priority: st.integers(0, 2**32 - 1),
    a.ChannelNumber: st.integers(0, 65535),
    a.ConnectionId: st.integers(0, 2**32 - 1),
    a.Userhash: st.binary(min_size=32, max_size=32),
}


def any_of(cls: type[a.Attribute]) -> st.SearchStrategy[a.Attribute]:
    fields = {}
    for field in msgspec.structs.fields(cls):
        if field.name != "value":
            fields[field.name] = BY_FIELD[field.name]
        elif cls in VALUES:
            fields["value"] = VALUES[cls]
        else:
            fields["value"] = (
                words.map(lambda t: t[:60]) if issubclass(cls, a.Text) else st.binary(max_size=99)
            )
    return st.builds(cls, **fields)


any_attribute = st.one_of([any_of(cls) for cls in a.ATTRIBUTES.values()])
messages = st.builds(
    Message,
    st.sampled_from(Method),
    st.sampled_from(MessageClass),
    st.binary(min_size=12, max_size=12),
    st.lists(any_attribute, max_size=12).map(tuple),
)


@given(messages, st.none() | st.binary(max_size=40), st.booleans(), st.booleans())
def test_round_trip(original: Message, key: bytes | None, with_fingerprint: bool, sha256: bool) -> None:
    """What is built parses to itself, verifies with its key only, and builds to the same bytes again."""
    data = original.encode(key=key, fingerprint=with_fingerprint, sha256=sha256)
    received = parse(data)
    assert received.message == original
    assert received.message.encode(key=key, fingerprint=with_fingerprint, sha256=sha256) == data
    assert received.has_fingerprint == with_fingerprint
    assert received.is_signed == (key is not None)
    if key is not None:
        assert verify_integrity(received, key)
        assert not verify_integrity(received, key + b"\1")
