"""What two sides without a server tell each other: tokens, datagrams, and questions to their network."""

from __future__ import annotations

import base64
import hashlib
import struct

from crowline.base.addresses import Address
from crowline.net import dns_message
from crowline.net.dns_message import MalformedDns
from crowline.rendezvous.datagram_stream import (
    MAGIC,
    MAX_HELD,
    MAX_MESSAGE,
    SEGMENT,
    DatagramStream,
    MessageArrived,
    Way,
)
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import CandidateSignal
from crowline.rendezvous.token import PREFIX, BadToken, Token
from fuzz.harness import Harness

_HERE, _THERE = Address("192.0.2.1", 4000), Address("198.51.100.1", 4000)
_CANDIDATES = (
    CandidateSignal("1", 1, "udp", 1000, "192.0.2.7", 4000, "host"),
    CandidateSignal("2", 1, "udp", 900, "2001:db8::7", 4001, "srflx"),
)
_TOKENS = (
    Token(Role.HOST, bytes(32), bytes(32), "abcd", "x" * 24, _CANDIDATES),
    Token(Role.JOIN, b"k" * 32, b"c" * 32, "efgh", "y" * 24, (), b"answers!"),
)
_NAME = "11111111-2222._crowline._tcp.local"


def run_token_text(data: bytes) -> None:
    """What is pasted; a token that is read is written as one that is read alike."""
    token = Token.parse(data.decode(errors="replace"))
    assert Token.parse(str(token)) == token


def run_token_body(data: bytes) -> None:
    """The same behind a checksum that fits."""
    checked = data + hashlib.sha256(data).digest()[:4]
    run_token_text(PREFIX.encode() + base64.urlsafe_b64encode(checked).rstrip(b"="))


def run_datagrams(data: bytes) -> None:
    """From a side with which a stream is open: cuts of the input, each behind a length and a kind."""
    stream = DatagramStream([Way(_HERE, _THERE)], knocks=True, entropy=lambda n: b"\xa5" * n, now=0.0)
    now, came, told = 0.0, 0, 0
    while len(data) >= 3:
        length, kind = struct.unpack_from("!HB", data)
        packet = MAGIC + bytes([kind]) + b"p" * 8 + b"\xa5" * 8 + data[3 : 3 + length % (SEGMENT + 40)]
        data = data[3 + length % (SEGMENT + 40) :]
        now += 0.1
        came += len(packet)
        stream.receive(packet, _THERE, now, _HERE)
        stream.handle_timeout(now)
        while (transmit := stream.next_transmit()) is not None:
            assert transmit.destination == _THERE
            told += len(transmit.data) if transmit.hop_limit is None and stream.is_open else 0
        while (event := stream.next_event()) is not None:
            assert not isinstance(event, MessageArrived) or len(event.message) <= MAX_MESSAGE
        assert len(stream._held) <= MAX_HELD and len(stream._in) <= MAX_MESSAGE + 4 + (MAX_HELD + 1) * SEGMENT
    assert told <= 3 * came + 100


def run_dns(data: bytes) -> None:
    """Questions and answers of a network; names are in lower case, and none is too long."""
    message = dns_message.parse(data)
    names = [each.name for each in message.questions] + [name for name, _ in message.addresses]
    assert all(len(name) <= dns_message.MAX_NAME and name == name.lower() for name in names)


HARNESSES = (
    Harness(
        name="token-text",
        run=run_token_text,
        module="crowline/rendezvous/token",
        seeds=tuple(f"here: {str(each)[:60]}\n{str(each)[60:]} thanks".encode() for each in _TOKENS),
        allowed=(BadToken,),
        tokens=(PREFIX.encode(), b"\n ", b"=", b"-_", "\u00e9".encode()),
    ),
    Harness(
        name="token-body",
        run=run_token_body,
        module="crowline/rendezvous/token",
        seeds=tuple(each.body for each in _TOKENS),
        allowed=(BadToken,),
        tokens=(b"\1\1", b"\0\0\0\0", b"\xff" * 4, b"\x7f\xff\xff\xff"),
    ),
    Harness(
        name="datagram-stream",
        run=run_datagrams,
        module="crowline/rendezvous/datagram_stream",
        seeds=(
            struct.pack("!HB", 12, 0) + struct.pack("!II", 0, 0) + b"\0\0\0\0",
            struct.pack("!HB", 18, 0)
            + struct.pack("!II", 6, 0)
            + b"\x80\0\0\2hi\0\0\0\0"
            + struct.pack("!HB", 14, 0)
            + struct.pack("!II", 0, 0)
            + b"\0\0\0\2ok"
            + struct.pack("!HB", 8, 1)
            + struct.pack("!II", 16, 0),
        ),
        tokens=(b"\0\x08", b"\xff\xff\xff\xff", b"\x80\0\0\1", b"\0\0\0\0", b"\0\1\x40\0"),
    ),
    Harness(
        name="mdns-message",
        run=run_dns,
        module="crowline/net/dns_message",
        seeds=(
            dns_message.write_service_query(_NAME),
            dns_message.write_service_answer(_NAME, 4711, "one.local"),
            dns_message.write_answer("one.local", "192.0.2.7"),
            dns_message.write_query("two.local"),
        ),
        allowed=(MalformedDns,),
        tokens=(b"\xc0\x0c", b"\0\x21\0\1", b"\0\xff\0\1", b"\x3f", b"\xc0\0"),
    ),
)
