"""STUN messages, and the machines that answer or send them without knowing anybody."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun import classic
from crowline.stun.client import BindingClient
from crowline.stun.integrity import verify_integrity
from crowline.stun.message import HEADER_SIZE, MalformedStun, Message, MessageClass, Method, is_stun, parse
from crowline.stun.nonce_cookie import read_features
from crowline.stun.password_algorithms import first_known, read_choice
from crowline.stun.responder import Alternates, Responder
from fuzz.harness import Harness

CLIENT = Address("44.2.2.2", 5000)
SERVER = Address("44.1.1.1", 3478)
OTHER_SERVER = Address("44.1.1.2", 3479)
IDENTIFIER = b"twelve bytes"
KEY = b"a key"

_V4, _V6 = Address("192.0.2.1", 1), Address("2001:db8::1", 65535)
SAMPLES: tuple[a.AnyAttribute, ...] = (
    a.MappedAddress(_V4), a.XorMappedAddress(_V6), a.XorPeerAddress(_V4), a.XorRelayedAddress(_V4),
    a.AlternateServer(_V6), a.ResponseOrigin(_V4), a.OtherAddress(_V4), a.Username("user"), a.Realm("realm"),
    a.Nonce("nonce"), a.Software("text"), a.AlternateDomain("example.org"), a.UseCandidate(),
    a.DontFragment(),
    a.Data(b"data!"), a.Padding(b"12345678"), a.PasswordAlgorithms(b"\0\2\0\0\0\1\0\0"),
    a.PasswordAlgorithm(b"\0\2\0\0"), a.RequestedAddressFamily(1), a.AdditionalAddressFamily(2),
    a.ErrorCode(438, "Stale Nonce"), a.AddressErrorCode(2, 440, "no"), a.UnknownAttributes((0x7FFF, 1)),
    a.ChangeRequest(True, False), a.Userhash(bytes(32)), a.ChannelNumber(0x4000), a.Lifetime(600),
    a.EvenPort(True), a.RequestedTransport(17), a.ReservationToken(b"12345678"), a.Priority(1),
    a.ResponsePort(9), a.IceControlled(1), a.IceControlling(2), a.ConnectionId(7), a.Icmp(3, 4, 1500),
    a.Nomination(3),
    a.MobilityTicket(b"ticket"), a.UnknownAttribute(0x7FFE, b"odd"), a.UnknownAttribute(0xFFFE, b""),
)  # fmt: skip
"""One of each attribute there is."""


def vectors() -> tuple[bytes, ...]:
    """A plain, a signed and a fingerprinted message, and one with each attribute."""
    plain = Message(Method.BINDING, MessageClass.REQUEST, IDENTIFIER)
    full = Message(Method.ALLOCATE, MessageClass.ERROR, IDENTIFIER, SAMPLES)
    return (
        plain.encode(),
        plain.encode(key=KEY, fingerprint=True),
        full.encode(key=KEY, sha256=True, fingerprint=True),
        *(Message(Method.SEND, MessageClass.INDICATION, IDENTIFIER, (each,)).encode() for each in SAMPLES),
    )


def run_message(data: bytes) -> None:
    """What is accepted says the same when it is written and read again, and is not signed by chance."""
    received = parse(data)
    assert is_stun(data)
    message = received.message
    assert parse(message.encode(fingerprint=True)).message == message
    verify_integrity(received, KEY)


def run_machines(data: bytes) -> None:
    """Answers go to where the question came from, and have at most three times its bytes."""
    responder = Responder(Alternates(SERVER, OTHER_SERVER))
    responder.receive(data, CLIENT, 0.0, SERVER)
    while (transmit := responder.next_transmit()) is not None:
        assert transmit.destination.host == CLIENT.host
        assert len(transmit.data) <= 3 * len(data)
    client = BindingClient(entropy=lambda size: IDENTIFIER[:size])
    client.query(SERVER, 0.0)
    client.next_transmit()
    client.receive(data, SERVER, 0.0)
    while client.next_event() is not None:
        pass


def run_classic(data: bytes) -> None:
    """A request of RFC 3489 is taken whole, and its answer repeats its id."""
    asked = classic.read_request(data)
    assert classic.write_unknown(asked, asked.unknown, 420)[4:HEADER_SIZE] == data[4:HEADER_SIZE]


def run_security(data: bytes) -> None:
    """What a challenge or a request says about algorithms is understood, or says nothing."""
    read_features(data.decode("utf-8", "replace"))
    read_features("obMatJos2" + data.decode("latin-1"))
    first_known(a.PasswordAlgorithms(data))
    read_choice(a.PasswordAlgorithm(data))


HARNESSES = (
    Harness(
        name="stun-classic",
        run=run_classic,
        module="crowline/stun/classic",
        seeds=(b"\0\1\0\0" + bytes(16), b"\0\1\0\x08" + bytes(16) + b"\0\3\0\4\0\0\0\6"),
        allowed=(MalformedStun,),  # the one error that `read_request` promises
        tokens=(b"\0\3\0\4", b"\0\2\0\x08", b"\0\6\0\0", b"\x7f\xff\0\0"),
    ),
    Harness(
        name="stun-security",
        run=run_security,
        module="crowline/stun/",
        seeds=(b"obMatJos2gAAB", b"\0\2\0\0\0\1\0\0", b"\0\2\0\5param\0\0\0"),
        tokens=(b"obMatJos2", b"\0\2\0\0", b"\xff\xff", b"===="),
    ),
    Harness(
        name="stun-message",
        run=run_message,
        module="crowline/stun/",
        seeds=vectors(),
        allowed=(MalformedStun,),  # the one error that `parse` promises
        tokens=(*(each.type.to_bytes(2, "big") for each in SAMPLES), b"\x21\x12\xa4\x42", b"\x80\x28\0\4"),
    ),
    Harness(
        name="stun-machines",
        run=run_machines,
        module="crowline/stun/",
        seeds=vectors(),
        tokens=(b"\0\3\0\4\0\0\0\6", b"\0\x27\0\4", b"\0\x26"),
    ),
)
