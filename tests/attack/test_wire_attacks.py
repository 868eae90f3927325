"""Attacks on every codec (rows W of the threat list): lies about lengths, floods of parts, cuts anywhere.

What a codec promises is in its harness (`fuzz/harnesses`): `check` raises for everything else that escapes.
Rows that need one codec's own rules have more tests beside it, `tests/stun/test_stun_message.py` above all.
"""

from __future__ import annotations

import gc
import itertools
import random
import struct
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from crowline.link.quic import DATAGRAM_SIZE, is_initial
from crowline.rendezvous import wire
from crowline.session.frames import HEADER, MAX_DATA, FrameParser, Kind, MalformedFrame, header
from crowline.stun import attributes as a
from crowline.stun.message import (
    HEADER_SIZE,
    MAX_ATTRIBUTES,
    MalformedStun,
    Message,
    MessageClass,
    Method,
    is_stun,
    parse,
)
from crowline.transfer import messages as transfer
from crowline.transfer.names import display_name
from crowline.turn import channel_data
from crowline.turn.framing import StreamFramer, pad
from fuzz.harness import check
from fuzz.harnesses import HARNESSES
from fuzz.harnesses.stun import IDENTIFIER, SAMPLES, vectors
from fuzz.mutation import mutate
from wire_parts import (
    CUTTERS,
    JSON_VECTORS,
    PLAIN,
    SESSION_STREAM,
    STREAM_LIMIT,
    TRANSFER_STREAM,
    cut_session,
    cut_stun,
    cut_transfer,
    raw_attribute,
    with_attributes,
)


@pytest.mark.parametrize("name", HARNESSES)
def test_w1_every_prefix_of_every_vector(name: str) -> None:
    """Cut anywhere, a message is read or refused with its codec's own error."""
    harness = HARNESSES[name]
    for seed in harness.seeds:
        step = max(1, len(seed) // 150)
        for end in range(0, len(seed), step):
            check(harness, seed[:end])


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 7, 9, 12, 0x7FFF, 0xFFFC, 0xFFFE, 0xFFFF])
def test_w2_a_stun_message_has_the_length_it_says(length: int) -> None:
    """Alone in a datagram any other length is malformed; on a stream one that is no multiple of four is."""
    data = Message(Method.BINDING, MessageClass.REQUEST, IDENTIFIER, (a.Lifetime(1),)).encode()
    lie = data[:2] + struct.pack("!H", length) + data[4:]
    if length == 8:
        return
    with pytest.raises(MalformedStun):
        parse(lie)
    framer = StreamFramer(STREAM_LIMIT)
    framer.feed(lie)
    if length % 4 or length + HEADER_SIZE > STREAM_LIMIT:
        with pytest.raises(MalformedStun):
            framer.next_message()
    elif length > 8:
        assert framer.next_message() is None


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("length", [1, 7, 9, 1025, 1501, MAX_DATA + 1, 2**31, 2**32 - 1])
def test_w2_a_session_frame_beyond_its_kinds_length_is_refused_by_its_header(kind: Kind, length: int) -> None:
    """Nothing of it is waited for, let alone kept."""
    allowed = {
        Kind.DATA: MAX_DATA,
        Kind.FIN: MAX_DATA,
        Kind.WINDOW: 8,
        Kind.PING: 1500,
        Kind.PONG: 1500,
        Kind.CLOSE: 1024,
        Kind.DATAGRAM: 65_535,
    }.get(kind, 0)
    parser = FrameParser(lambda *frame: None)
    if length > allowed:
        with pytest.raises(MalformedFrame):
            parser.feed(header(kind, 1, 0, length))
    else:
        parser.feed(header(kind, 1, 0, length))


@pytest.mark.parametrize("length", [0, transfer.MAX_CONTROL_FRAME + 1, 2**31, 2**32 - 1])
def test_w2_a_transfer_frame_of_an_impossible_length_is_refused_by_its_header(length: int) -> None:
    """No frame is empty, and none is larger than its cap."""
    for kind in transfer.FrameType:
        assert cut_transfer([transfer.frame_header(kind, length)]) == [None, b""]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda each: type(each).__name__)
def test_w3_an_attribute_has_the_size_it_says(sample: a.AnyAttribute) -> None:
    """Past the end of the message is malformed, and so is every other size of an attribute of a fixed one."""
    value = sample.write(IDENTIFIER)
    for claimed in (len(value) + 4 - len(value) % 4 + 1, 0x7FFF, 0xFFFC, 0xFFFF):
        with pytest.raises(MalformedStun):
            parse(with_attributes(raw_attribute(sample.type, value, claimed)))
    for size in (0, 1, 2, 3, 5, 9, 17, 33):
        data = with_attributes(raw_attribute(sample.type, bytes(size)))
        try:
            read = parse(data).message.attributes
        except MalformedStun:
            continue
        assert [each.write(IDENTIFIER) for each in read] and len(read) == 1


@pytest.mark.parametrize(
    "cls",
    [
        a.Lifetime,
        a.XorPeerAddress,
        a.XorMappedAddress,
        a.ErrorCode,
        a.ChannelNumber,
        a.RequestedTransport,
        a.Priority,
    ],
)
def test_w3_typed_attributes_are_never_empty(cls: type[a.Attribute]) -> None:
    """LIFETIME, addresses, ERROR-CODE, CHANNEL-NUMBER and the like."""
    with pytest.raises(MalformedStun):
        parse(with_attributes(raw_attribute(cls.type, b"")))


def test_w4_a_flood_of_parts_is_refused_at_once() -> None:
    """16,000 empty attributes, 100,000 servers in a welcome, 100,000 entries in one byte each."""
    empty = raw_attribute(a.DontFragment.type, b"")
    began = time.process_time()
    parse(with_attributes(empty * MAX_ATTRIBUTES))
    for count in (MAX_ATTRIBUTES + 1, 16_000):
        with pytest.raises(MalformedStun):
            parse(with_attributes(empty * count))
    servers = ",".join(['{"host":"","port":1}'] * 2500)
    with pytest.raises(wire.MalformedWire):
        wire.decode_hub(f'{{"t":"welcome","v":1,"stun":[{servers}]}}'.encode())
    many = transfer.frame_header(transfer.FrameType.ENTRIES, 100_008)
    flood = many + b"\x82\xa7folders\xdd" + struct.pack("!I", 2**31) + bytes(100_008)
    assert cut_transfer([flood])[0] is None
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize("offset", range(9))
def test_w5_no_field_needs_to_be_aligned(offset: int) -> None:
    """From every offset in memory the same comes out."""

    def shifted(data: bytes) -> memoryview:
        return memoryview(bytes(offset) + data)[offset:]

    for data in vectors():
        assert parse(shifted(data)).message == parse(data).message
    for payload in range(9):
        data = channel_data.wrap(0x4000, bytes(payload))
        found = channel_data.unwrap(shifted(data))
        assert found is not None and bytes(found[1]) == bytes(payload)
    assert cut_session([shifted(SESSION_STREAM)]) == cut_session([SESSION_STREAM])  # type: ignore[list-item]
    assert cut_transfer([shifted(TRANSFER_STREAM)]) == cut_transfer([TRANSFER_STREAM])  # type: ignore[list-item]


@pytest.mark.parametrize("first", range(256))
def test_w6_the_first_byte_says_which_protocol_it_is(first: int) -> None:
    """STUN, ChannelData and the beginning of a link are told apart, the rest is none of them (RFC 7983)."""
    stun = bytes([first]) + PLAIN.encode()[1:]
    initial = bytes([first]) + b"\0\0\0\1\x08" + bytes(DATAGRAM_SIZE - 6)
    channel = bytes([first]) + b"\0\0\4data"
    kinds = [
        is_stun(stun),
        channel_data.is_channel_data(channel),
        is_initial(initial),
    ]
    assert kinds == [first < 0x40, 0x40 <= first < 0x50, 0xC0 <= first < 0xD0]
    if first < 0x40:
        try:
            assert parse(stun).message.method in Method
        except MalformedStun:
            assert first > 1


@pytest.mark.parametrize("bad_first", [True, False])
def test_w7_the_first_of_two_counts(bad_first: bool) -> None:
    """Whichever of the two is the better one; a malformed one spoils the message wherever it is."""
    good, bad = (
        raw_attribute(a.Lifetime.type, struct.pack("!I", 600)),
        raw_attribute(a.Lifetime.type, b"\xff" * 4),
    )
    message = parse(with_attributes(*((bad, good) if bad_first else (good, bad)))).message
    assert message.get(a.Lifetime) == a.Lifetime(2**32 - 1 if bad_first else 600)
    broken = raw_attribute(a.Lifetime.type, b"\xff" * 3)
    with pytest.raises(MalformedStun):
        parse(with_attributes(*((broken, good) if bad_first else (good, broken))))


@pytest.mark.parametrize("seed", range(8))
def test_w9_what_was_read_is_written_and_read_alike(seed: int) -> None:
    """Whatever is accepted, written anew: the same message, and from then on the same bytes.

    The other direction, from any message over its bytes to itself, is `test_round_trip` of the STUN codec.
    """
    dice, seeds, accepted = random.Random(seed), vectors(), 0
    for _ in range(3000):
        data = mutate(dice.choice(seeds), seeds, (), dice)
        if (found := channel_data.unwrap(data)) is not None:
            assert channel_data.unwrap(channel_data.wrap(*found)) == found
        with suppress(MalformedStun):
            message = parse(data).message
            written = message.encode()
            assert parse(written).message == message
            assert parse(written).message.encode() == written
            accepted += 1
    assert accepted > 100


@pytest.mark.parametrize("name", CUTTERS)
def test_w12_a_stream_says_the_same_however_it_is_cut(name: str) -> None:
    """All at once, a byte at a time, and in two at each boundary."""
    cut, stream = CUTTERS[name]
    whole = cut([stream])
    assert whole and whole[-1] is not None
    assert cut([stream[at : at + 1] for at in range(len(stream))]) == whole
    for at in range(1, len(stream)):
        assert cut([stream[:at], stream[at:]]) == whole


@pytest.mark.parametrize("name", CUTTERS)
def test_w12_a_broken_stream_breaks_at_the_same_place_however_it_is_cut(name: str) -> None:
    """What came before the damage has been given out, and nothing after it is."""
    cut, stream = CUTTERS[name]
    broken = stream + b"\xff" * 40
    whole = cut([broken])
    assert None in whole
    assert cut([broken[at : at + 1] for at in range(len(broken))]) == whole


def test_w13_padding_is_read_as_anything_and_written_as_zero() -> None:
    """Between attributes and behind ChannelData on a stream: no memory leaks out, no meaning leaks in."""
    clean = with_attributes(raw_attribute(a.Data.type, b"12345"), raw_attribute(a.Lifetime.type, bytes(4)))
    dirty = bytearray(clean)
    start = clean.index(b"12345") + 5
    assert clean[start : start + 3] == bytes(3)
    dirty[start : start + 3] = b"\xff\xfe\xfd"
    assert parse(bytes(dirty)).message == parse(clean).message
    assert parse(clean).message.encode() == clean
    padded = pad(channel_data.wrap(0x4000, b"12345"))
    assert padded.endswith(b"12345" + bytes(3))
    stained = padded[:-3] + b"\xff\xfe\xfd" + PLAIN.encode()
    assert cut_stun([stained]) == [padded[:-3], PLAIN.encode()]


@pytest.mark.parametrize("number", [0x0001, 0x3FFF, 0x4000, 0x4FFF, 0x5000, 0x7FFF, 0xFFFF])
def test_w14_channel_numbers_have_a_range(number: int) -> None:
    """0x4000 to 0x4FFF (RFC 8656 §12); on a stream others end it."""
    data = struct.pack("!HH", number, 4) + b"data"
    is_channel = 0x4000 <= number <= 0x4FFF
    assert (channel_data.unwrap(data) is not None) == is_channel
    assert cut_stun([data]) == ([data] if is_channel else [None])


def test_w14_channel_data_never_gives_more_than_it_holds() -> None:
    """One byte missing is as bad as all of them; more bytes than claimed are not data."""
    assert channel_data.unwrap(struct.pack("!HH", 0x4000, 5) + b"data") is None
    assert channel_data.unwrap(struct.pack("!HH", 0x4000, 0xFFFF)) is None
    found = channel_data.unwrap(struct.pack("!HH", 0x4000, 2) + b"data")
    assert found is not None and bytes(found[1]) == b"da"


def test_w14_what_a_stream_claims_is_not_kept_before_it_is_judged() -> None:
    """A STUN message beyond the cap ends the stream at its header; ChannelData cannot claim 4 MB at all."""
    framer = StreamFramer(STREAM_LIMIT)
    framer.feed(struct.pack("!HH", 1, 0xFFFC) + a.COOKIE_BYTES)
    with pytest.raises(MalformedStun):
        framer.next_message()
    framer = StreamFramer(STREAM_LIMIT)
    framer.feed(struct.pack("!HH", 0x4000, 0xFFFF))
    for _ in range(64):
        framer.feed(bytes(1024))
        while framer.next_message() is not None:
            framer.rest()
    assert len(framer) <= 0xFFFF + 4


def test_w14_without_padding_the_next_message_is_not_where_it_should_be() -> None:
    """Unpadded ChannelData on a stream shifts what follows: the stream ends, and nothing is guessed."""
    stream = channel_data.wrap(0x4000, b"abc") + PLAIN.encode()
    assert cut_stun([stream]) == [channel_data.wrap(0x4000, b"abc"), None]


def _stun_frames(count: int) -> Callable[[], object]:
    stream = PLAIN.encode() * count
    return lambda: cut_stun([stream])


def _session_frames(count: int) -> Callable[[], object]:
    stream = header(Kind.PING, 0, 1) * count
    return lambda: cut_session([stream])


def _session_bytes(count: int) -> Callable[[], object]:
    parts = [bytes([byte]) for byte in HEADER.pack(Kind.CLOSE, 0, 0, 1000) + bytes(1000)] * (
        count // 1000 + 1
    )
    return lambda: cut_session(parts)


def _transfer_bytes(count: int) -> Callable[[], object]:
    frame = transfer.frame_header(transfer.FrameType.REJECT, 8 * count) + bytes(8 * count)
    parts = [frame[at : at + 8] for at in range(0, len(frame), 8)]
    return lambda: cut_transfer(parts)


def _runs(count: int) -> Callable[[], object]:
    run = b"".join(channel_data.wrap(0x4000 + number % 2, b"x") for number in range(count))
    return lambda: list(channel_data.unwrap_run(run, 5))


def _names(count: int) -> Callable[[], object]:
    text = "\x1b" * 40 * count
    return lambda: display_name(text)


@pytest.mark.parametrize(
    "make", [_stun_frames, _session_frames, _session_bytes, _transfer_bytes, _runs, _names]
)
def test_x4_eight_times_the_input_takes_no_sixty_four_times_as_long(
    make: Callable[[int], Callable[[], object]],
) -> None:
    """Linear work would take eight times as long; what a noisy machine adds is far from a square."""

    def seconds(count: int) -> float:
        work, best = make(count), float("inf")
        for _ in range(3):
            began = time.process_time()
            work()
            best = min(best, time.process_time() - began)
        return best

    gc.disable()
    try:
        assert seconds(8 * 2000) < 32 * max(seconds(2000), 0.0005)
    finally:
        gc.enable()


def test_harnesses_have_vectors_for_every_attribute() -> None:
    """A new attribute must come into `SAMPLES`, so that the rows above see it."""
    sampled = {type(each) for each in SAMPLES} - {a.UnknownAttribute}
    assert sampled == set(a.ATTRIBUTES.values())
    assert len(set(itertools.chain(*JSON_VECTORS.values()))) == sum(map(len, JSON_VECTORS.values()))
