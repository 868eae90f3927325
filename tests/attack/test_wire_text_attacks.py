"""Attacks on every codec (rows W of the threat list): nests, and texts and numbers that seem to be others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem, MalformedMessage, UsageError
from crowline.rendezvous import signals, wire
from crowline.rendezvous.code import Code, CodeTypo
from crowline.server.config import parse_endpoint, parse_network, parse_ports, parse_size
from crowline.server.settings import load
from crowline.stun import attributes as a
from crowline.stun.message import (
    MalformedStun,
    parse,
)
from crowline.transfer import messages as transfer
from crowline.transfer.names import display_name
from wire_parts import (
    JSON_DECODERS,
    cut_transfer,
    raw_attribute,
    with_attributes,
)


@pytest.mark.parametrize("name", JSON_DECODERS)
@pytest.mark.parametrize(
    "opening", [b"[", b'{"t":', b'{"t":"welcome","v":1,"x":[', b'{"t":"hello","x":{"y":[']
)
def test_w8_nesting_has_an_end(name: str, opening: bytes) -> None:
    """Deep JSON is malformed, in a field that is known and in one that is not; never a RecursionError."""
    decode = JSON_DECODERS[name]
    for depth in (100, 2000, 60_000 // len(opening)):
        with pytest.raises(MalformedMessage):
            decode(opening * depth)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1x", b"\x81\xa7folders\x91"])
def test_w8_nesting_has_an_end_in_transfers(opening: bytes) -> None:
    """Deep msgpack breaks the transfer off with a sentence."""
    payload = opening * (1_000_000 // len(opening))
    frame = transfer.frame_header(transfer.FrameType.ENTRIES, len(payload)) + payload
    assert cut_transfer([frame]) == [None, b""]


@pytest.mark.parametrize("text", ["x = " + "[" * 20_000, "x = " + "{a=" * 20_000, "a." * 20_000 + "b = 1"])
def test_w8_nesting_has_an_end_in_settings(text: str, tmp_path: Path) -> None:
    """A settings file cannot break the parser either."""
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises((UsageError, LocalProblem)):
        load(file)


TEXTS = {
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "cut": b"\xe2\x82",
    "latin-1": b"caf\xe9",
    "beyond unicode": b"\xf4\x90\x80\x80",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_w10_texts_are_strict_utf8(text: bytes) -> None:
    """In attributes, in JSON and in msgpack: nothing is replaced, guessed or read as something else."""
    for cls in (a.Username, a.Realm, a.Nonce, a.Software):
        with pytest.raises(MalformedStun):
            parse(with_attributes(raw_attribute(cls.type, text)))
    with pytest.raises(wire.MalformedWire):
        wire.decode_hub(b'{"t":"welcome","v":1,"motd":"' + text + b'"}')
    with pytest.raises(signals.MalformedSignal):
        signals.decode(b'{"t":"hello","name":"' + text + b'"}')
    payload = b"\x82\xa6reason\xa0\xa8sentence" + bytes([0xA0 + len(text)]) + text
    frame = transfer.frame_header(transfer.FrameType.REJECT, len(payload)) + payload
    assert cut_transfer([frame]) == [None, b""]


@pytest.mark.parametrize("octets", [763, 764, 2000])
def test_w10_lengths_of_texts_count_in_octets(octets: int) -> None:
    """763 octets are the most that a reason has, whatever the letters are (RFC 8489 §14.8)."""
    text = ("é" * octets).encode()[: octets - octets % 2] + b"x" * (octets % 2)
    data = with_attributes(raw_attribute(a.ErrorCode.type, b"\0\0\4\0" + text))
    if octets == 763:
        assert parse(data).message.get(a.ErrorCode) == a.ErrorCode(400, text.decode())
    else:
        with pytest.raises(MalformedStun):
            parse(data)


@pytest.mark.parametrize("letter", ["\x00", "\x1b", "\u202e", "\x9b", "\ufeff", "\r", "\n", "\u2066"])
def test_w10_what_moves_the_cursor_is_shown_as_what_it_is(letter: str) -> None:
    """A text of the other side is one line on a terminal, with nothing hidden in it."""
    shown = display_name(f"a{letter}b")
    assert letter not in shown and shown.isprintable() and shown.startswith("a") and shown.endswith("b")


NUMBERS = [
    "-0",
    "+1",
    "1 2",
    "1_0",
    "\uff11",
    "\u0661",
    "9" * 5000,
    "65536",
    "1e3",
    "0x10",
    "1.0",
    "",
    "true",
    "-1",
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda text: text[:8] or "empty")
def test_w11_only_digits_are_numbers_where_a_person_writes(number: str) -> None:
    """Ports, ranges, sizes and codes: a sentence, not what Python's `int` makes of it."""
    with pytest.raises(UsageError):
        parse_endpoint(f"192.0.2.1:{number}" if number else "192.0.2.1:x", 1)
    with pytest.raises(UsageError):
        parse_ports(f"1024-{number}")
    with pytest.raises(UsageError):
        parse_network(f"10.0.0.0/{number}" if number else "10.0.0.0/")
    if number not in ("65536",):
        with pytest.raises(UsageError):
            parse_size(number)


@pytest.mark.parametrize("number", ["9" * 5000, "0", "99999999", "1-2", "-"])
def test_w11_a_code_has_a_number_of_seven_digits_at_most(number: str) -> None:
    """Whatever else is typed is a typo."""
    with pytest.raises(CodeTypo):
        Code.parse(f"{number}-maple-orbit-candle")


@pytest.mark.parametrize(
    "number",
    [
        "-0.5",
        "+1",
        "01",
        "1_0",
        '"1"',
        "9" * 400,
        "65536",
        "1e5",
        "true",
        "null",
        "NaN",
        "Infinity",
        "-1",
        "1.5",
    ],
)
def test_w11_only_whole_numbers_in_their_range_are_numbers_in_json(number: str) -> None:
    """No strings, no booleans, no fractions, nothing beyond the range of a port."""
    with pytest.raises(wire.MalformedWire):
        wire.decode_hub(f'{{"t":"welcome","v":1,"stun":[{{"host":"","port":{number}}}]}}'.encode())
    text = json.dumps({"t": "candidate", "foundation": "f", "component": 1, "transport": "udp", "priority": 1,
                       "host": "192.0.2.1", "port": 0, "kind": "host"})  # fmt: skip
    with pytest.raises(signals.MalformedSignal):
        signals.decode(text.replace('"port": 0', f'"port": {number}').encode())
