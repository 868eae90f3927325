"""Messages of a forwarding, and SOCKS5, byte by byte."""

from __future__ import annotations

import random

import pytest

from crowline.base.addresses import Address
from crowline.forward import messages as m
from crowline.forward.socks import (
    Command,
    MalformedSocks,
    Reply,
    SocksConversation,
    SocksRequest,
    format_address,
    format_datagram,
    parse_datagram,
    reply,
    split_datagram,
)

CONTROL: list[m.Control] = [
    m.Reach(1, "udp", "dns.example", 53),
    m.Roam(0),
    m.Listen(2, "tcp", "127.0.0.1", 0, "localhost:80"),
    m.Granted(2, 4711),
    m.Denied(3, m.Reason.NOT_ALLOWED),
]


@pytest.mark.parametrize("message", CONTROL)
def test_messages_come_back_as_they_went(message: m.Control) -> None:
    """With their length in front."""
    data = m.encode(message)
    assert m.LENGTH.unpack_from(data)[0] == len(data) - 2
    assert m.decode_control(data[2:]) == message


def test_heads_and_answers_come_back_too() -> None:
    """And none is taken for another kind."""
    for head in (m.Connect(1, "tcp", "web.example", 80), m.Connect(1, "udp", flow=4), m.Arrived(7)):
        assert m.decode_head(m.encode(head)[2:]) == head
        with pytest.raises(m.MalformedForwardMessage):
            m.decode_control(m.encode(head)[2:])
    for answer in (m.Opened(), m.Failed(m.Reason.SILENT)):
        assert m.decode_answer(m.encode(answer)[2:]) == answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"t":"reach"}',
        b'{"t":"reach","rule":-1,"transport":"tcp","host":"a","port":1}',
        b'{"t":"reach","rule":4294967296,"transport":"tcp","host":"a","port":1}',
        b'{"t":"reach","rule":1,"transport":"sctp","host":"a","port":1}',
        b'{"t":"reach","rule":1,"transport":"tcp","host":"a","port":65536}',
        b'{"t":"reach","rule":true,"transport":"tcp","host":"a","port":1}',
        b'{"t":"reach","rule":1,"transport":"tcp","host":"' + b"a" * 256 + b'","port":1}',
        b'{"t":"reach","rule":1,"transport":"tcp","host":"a, which is harmless","port":1}',
        b'{"t":"listen","rule":1,"transport":"tcp","host":"a","port":1,"target":"a. Agree?\\n"}',
        b'{"t":"roam","rule":1e3}',
        b'{"t":"nonsense"}',
        b'{"t":"roam","rule":"\xff"}',
        b"[" * 2000,
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """By type, before anything is done with it."""
    with pytest.raises(m.MalformedForwardMessage):
        m.decode_control(body)


def test_an_unknown_reason_is_a_failure() -> None:
    """A newer version may have more of them; every one has a sentence."""
    assert m.Reason("out-of-cheese") is m.Reason.FAILED
    assert all(reason.sentence for reason in m.Reason)


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_a_program_says_what_it_wants_in_pieces_of_any_size(piece: int) -> None:
    """Greeting, request, and what follows without waiting."""
    conversation = SocksConversation()
    said = b"\x05\x02\x02\x00" + b"\x05\x01\x00\x03\x0bexample.org\x01\xbb" + b"GET"
    sent, request = b"", None
    for start in range(0, len(said) - 3, piece):
        part = said[start : start + piece] if start + piece < len(said) - 3 else said[start:]
        request = conversation.feed(part)
        sent += conversation.outgoing
        if request is not None:
            break
    assert request == SocksRequest(Command.CONNECT, "example.org", 443)
    assert sent == b"\x05\x00" and conversation.rest == b"GET"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b""),
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (
            b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50",
            b"\x05\x00" + reply(Reply.COMMAND_NOT_SUPPORTED),
        ),
        (
            b"\x05\x01\x00\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50",
            b"\x05\x00" + reply(Reply.COMMAND_NOT_SUPPORTED),
        ),
        (
            b"\x05\x01\x00\x05\x01\x00\x02\x7f\x00\x00\x01\x00\x50",
            b"\x05\x00" + reply(Reply.ADDRESS_NOT_SUPPORTED),
        ),
        (b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00" + reply(Reply.ADDRESS_NOT_SUPPORTED)),
        (b"\x05\x01\x00\x05\x01\x00\x03\x02a\n\x00\x50", b"\x05\x00" + reply(Reply.ADDRESS_NOT_SUPPORTED)),
    ],
)
def test_what_is_not_understood_gets_the_answer_of_the_rfc(said: bytes, answer: bytes) -> None:
    """And the conversation is over."""
    conversation = SocksConversation()
    with pytest.raises(MalformedSocks):
        conversation.feed(said)
    assert conversation.outgoing == answer


def test_replies_have_the_codes_of_the_rfc() -> None:
    """RFC 1928 §6."""
    assert reply(None) == b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    assert reply(None, Address("2001:db8::1", 99))[3:4] == b"\x04"
    codes = {reason: reply(reason)[1] for reason in m.Reason}
    assert codes[m.Reason.REFUSED] == 5 and codes[m.Reason.NOT_ALLOWED] == 2
    assert codes[m.Reason.UNREACHABLE] == 3 and codes[m.Reason.UNKNOWN_NAME] == 4
    assert codes[m.Reason.FAILED] == codes[m.Reason.TOO_MANY] == 1


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "example.org"])
def test_datagrams_say_where_they_go(host: str) -> None:
    """Both ways round; a fragment is none (RFC 1928 §7)."""
    inner = format_address(host, 53) + b"payload"
    data = format_datagram(inner)
    assert parse_datagram(data) == inner
    found = split_datagram(memoryview(inner))
    assert found is not None and found[:2] == (host, 53) and bytes(found[2]) == b"payload"
    assert parse_datagram(b"\x00\x00\x01" + inner) is None
    assert all(
        split_datagram(memoryview(inner)[:size]) is None for size in range(len(inner) - len("payload"))
    )


def test_noise_never_raises_anything_else() -> None:
    """Ten thousand random datagrams and conversations."""
    noise = random.Random(1)
    for _ in range(10_000):
        data = noise.randbytes(noise.randrange(40))
        split_datagram(memoryview(data))
        parse_datagram(data)
        conversation = SocksConversation()
        try:
            conversation.feed(b"\x05\x01\x00\x05\x01\x00" + data)
        except MalformedSocks:
            continue
