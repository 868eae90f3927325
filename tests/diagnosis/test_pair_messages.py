"""What two doctors tell each other, on the wire."""

from __future__ import annotations

import random
from itertools import product

import msgspec
import pytest

from crowline.diagnosis.pair_messages import (
    HEADER,
    MAX_PAYLOAD,
    MAX_WORDS,
    Arrived,
    Kind,
    MalformedFrame,
    Settled,
    SideFacts,
    SideResult,
    frame,
    message,
    parse,
    parse_header,
)
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice


def test_a_summary_comes_back_as_it_was() -> None:
    """Of every kind of NAT."""
    kinds = product(MappingKind, FilterKind, PortChoice, (True, False), MappingKind)
    for mapping, filtering, ports, has_udp, tcp in kinds:
        summary = NatSummary(mapping, filtering, ports, has_udp, tcp)
        sent = msgspec.json.encode(SideFacts.of(summary, nat="symmetric"))
        assert parse(sent, SideFacts).summary == summary


def test_kinds_of_a_newer_version_are_unknown() -> None:
    """And so are fields: both are no reason to refuse."""
    read = parse(b'{"mapping":"QUANTUM","filtering":"PER_PORT","colour":"blue"}', SideFacts)
    assert read.summary == NatSummary(filtering=FilterKind.PER_PORT)


def test_frames_say_their_kind_and_length() -> None:
    """Kind, length, payload."""
    data = message(Kind.ARRIVED, Arrived(1000, 0.5))
    kind, length = parse_header(data[: HEADER.size])
    assert (kind, length) == (Kind.ARRIVED, len(data) - HEADER.size)
    assert parse(data[HEADER.size :], Arrived).rate == 2000
    assert Arrived(1000, 0).rate is None
    assert parse_header(frame(Kind.TRAIN_ENDED, b"")[: HEADER.size]) == (Kind.TRAIN_ENDED, 0)


@pytest.mark.parametrize(
    "header", [HEADER.pack(9, 0), HEADER.pack(0, 0), HEADER.pack(3, MAX_PAYLOAD + 1), b"\xff" * 5]
)
def test_headers_that_make_no_sense_are_refused(header: bytes) -> None:
    """Kinds that there are not, and lengths that nobody needs."""
    with pytest.raises(MalformedFrame):
        parse_header(header)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"nat":17}',
        b'{"has_udp":"yes"}',
        b'{"nat":"' + b"x" * (MAX_WORDS + 1) + b'"}',
        b'{"routers":["a","a","a","a","a","a","a","a","a"]}',
        b'{"routers":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_objects_that_make_no_sense_are_refused(payload: bytes) -> None:
    """Wrong types, too long, too deep."""
    with pytest.raises(MalformedFrame):
        parse(payload, SideFacts)


@pytest.mark.parametrize(
    ("payload", "type_"),
    [
        (b'{"bytes":-1,"seconds":1}', Arrived),
        (b'{"bytes":1,"seconds":-1}', Arrived),
        (b'{"bytes":1,"seconds":1e9}', Arrived),
        (b'{"bytes":99999999999999999999,"seconds":1}', Arrived),
        (b'{"bytes":1}', Arrived),
        (b'{"tried":"many"}', SideResult),
        (b'{"direct":1}', Settled),
    ],
)
def test_numbers_that_make_no_sense_are_refused(payload: bytes, type_: type) -> None:
    """Negative ones, endless ones, none at all."""
    with pytest.raises(MalformedFrame):
        parse(payload, type_)


def test_noise_is_read_or_refused() -> None:
    """Nothing else happens, whatever comes."""
    dice = random.Random(1)
    good = msgspec.json.encode(SideFacts.of(NatSummary(), nat="x", routers=("pcp",)))
    refused = 0
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            parse(bytes(data), SideFacts)
        except MalformedFrame:
            refused += 1
    assert 0 < refused < 3000
