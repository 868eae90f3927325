"""Attacks on TLS links, by identifiers of the threat list: K5 (altered), K7 (identity), T2 (floods)."""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.secrets import Secret
from crowline.link.client_auth import AUTHENTICATION_LIMIT, LINK_ID_LENGTH, PREAMBLE_LENGTH, preamble
from crowline.link.events import LinkData, LinkDown, LinkUp
from crowline.link.tls import BACKLOG_LIMIT, BROKEN_OFF, ENDED, MAX_BARREN, TlsLink
from crowline.link.tls_frames import ANSWER
from crowline.net.own_certificate import load
from tls_forger import (
    ALERT,
    APPLICATION_DATA,
    CLIENT_HELLO,
    HANDSHAKE,
    NEW_SESSION_TICKET,
    Forger,
    RawPeer,
    framed,
    handshake_message,
)
from tls_pair import ALICE, BOB, CLIENT, EVE, KEY, Wire, accept, connect, trust

PROOF = preamble(KEY, BOB.fingerprint, b"i" * LINK_ID_LENGTH)
UNPROVEN = "the other side could not prove itself"
WRONG_CERTIFICATE = "the other side shows another certificate than the one announced"


def downs(link: TlsLink) -> list[str]:
    """The reasons why `link` ended; it must not have delivered anything."""
    events = list(iter(link.next_event, None))
    assert all(isinstance(event, LinkUp | LinkDown) for event in events)
    return [event.reason for event in events if isinstance(event, LinkDown)]


def stranger(*, is_server: bool, certificate: bool = True) -> ssl.SSLContext:
    """A context that trusts everybody, with the right certificate of its role or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["crowline/1"])
    if certificate:
        load(context, BOB if is_server else ALICE)
    return context


def forger_against_server(folder: Path) -> tuple[Forger, TlsLink]:
    """A client that is up on a server, and can forge records."""
    server = accept()
    forger = Forger(trust(ALICE, BOB, is_client=True), folder)
    forger.shake_hands(server)
    server.receive(forger.record(APPLICATION_DATA, PROOF), CLIENT, 0.0)
    assert server.next_event() == LinkUp()
    return forger, server


def forger_against_client(folder: Path) -> tuple[Forger, TlsLink]:
    """A server that a client has risen on, and can forge records."""
    client = connect()
    forger = Forger(trust(BOB, ALICE, is_client=False), folder)
    forger.take(client)
    forger.shake_hands(client)
    assert client.next_event() == LinkUp()
    return forger, client


# --- K7: who is on the other side -----------------------------------------------------------------------


def test_k7_a_server_with_another_certificate_is_refused() -> None:
    """The client never rises, and the other side learns nothing but an alert."""
    wire = Wire(server=accept(own=EVE)).run()
    assert wire.downs("client") == [WRONG_CERTIFICATE]
    assert not wire.has_risen("client") and not wire.has_risen("server")
    assert len(wire.downs("server")) == 1


def test_k7_a_client_with_another_certificate_is_refused() -> None:
    """The meeting key alone is not enough."""
    wire = Wire(client=connect(own=EVE)).run()
    wire.client.send(b"let me in", 0.0)
    wire.run()
    assert wire.downs("server") == [WRONG_CERTIFICATE]
    assert not wire.has_risen("server") and wire.data("server") == b""
    assert len(wire.downs("client")) == 1 and wire.downs("client") != [ENDED]


def test_k7_a_client_without_a_certificate_is_refused() -> None:
    """It is asked for one and cannot go on without."""
    server = accept()
    peer = RawPeer(stranger(is_server=False, certificate=False), is_server=False)
    peer.shake_hands(server)
    peer.send(server, PROOF + framed(b"let me in"))
    assert downs(server) == ["TLS failed: peer did not return a certificate"]


def test_k7_a_certificate_that_the_announced_one_has_signed_is_refused(tmp_path: Path) -> None:
    """The announced certificate is whom to talk to, not whom to believe: its children are strangers."""
    context = stranger(is_server=True, certificate=False)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(_child_of_bob() + BOB.certificate)
    context.load_cert_chain(chain)
    client = connect()
    peer = RawPeer(context, is_server=True)
    peer.take(client)
    peer.shake_hands(client)
    (reason,) = downs(client)
    assert reason != ENDED
    assert not client.is_up


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_k7_tls_1_2_is_refused(is_server: bool) -> None:
    """There is no downgrade, whoever asks for it."""
    context = stranger(is_server=is_server)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    link = connect() if is_server else accept()
    peer = RawPeer(context, is_server=is_server)
    peer.take(link)
    peer.shake_hands(link)
    assert len(downs(link)) == 1
    assert not link.is_up


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("names", [[], ["h2", "http/1.1"]], ids=["none", "others"])
def test_k7_another_protocol_inside_tls_is_refused(is_server: bool, names: list[str]) -> None:
    """The right certificate with another ALPN is another program that uses the same key."""
    context = stranger(is_server=is_server)
    context.set_alpn_protocols(names)
    link = connect() if is_server else accept()
    peer = RawPeer(context, is_server=is_server)
    peer.take(link)
    peer.shake_hands(link)
    assert len(downs(link)) == 1
    assert not link.is_up


@pytest.mark.parametrize(
    "first",
    [
        preamble(Secret(b"x" * 32), BOB.fingerprint, b"i" * LINK_ID_LENGTH),
        preamble(KEY, ALICE.fingerprint, b"i" * LINK_ID_LENGTH),
        bytes(PREAMBLE_LENGTH),
        b"j" + PROOF[1:],
        PROOF[:-1] + bytes([PROOF[-1] ^ 1]),
    ],
    ids=["key", "fingerprint", "zeros", "link_id", "last_bit"],
)
def test_k7_a_client_with_the_certificate_and_without_the_key_is_refused(first: bytes) -> None:
    """Nothing that follows a wrong proof is handed on."""
    server = accept()
    peer = RawPeer(stranger(is_server=False), is_server=False)
    peer.shake_hands(server)
    peer.send(server, first + framed(b"let me in"))
    assert downs(server) == [UNPROVEN]
    assert server.room() == 0


def test_k7_the_proof_may_come_in_pieces_and_nothing_passes_before_it() -> None:
    """Byte by byte, each in a record of its own."""
    server = accept()
    peer = RawPeer(stranger(is_server=False), is_server=False)
    peer.shake_hands(server)
    for place in range(PREAMBLE_LENGTH - 1):
        peer.send(server, PROOF[place : place + 1])
        assert server.next_event() is None
    peer.send(server, PROOF[-1:])
    assert server.next_event() == LinkUp()


# --- K5: a stream that was altered or cut short ---------------------------------------------------------


def test_k5_every_cut_of_a_stream_is_told_from_an_end() -> None:
    """Wherever the connection breaks, the reason says so, and only the goodbye of TLS is an end."""
    for kept in range(0, 200, 7):
        wire = Wire().run()
        wire.client.send(b"x" * 100, 0.0)
        wire.client.close(0.0)
        sent = b"".join(bytes(t.data) for t in iter(wire.client.next_transmit, None))
        wire.server.receive(sent[:kept], CLIENT, 0.0)
        wire.server.disconnected()
        reason = ENDED if kept >= len(sent) else BROKEN_OFF
        assert wire.collect().downs("server") == [reason]


def test_k5_one_altered_bit_ends_the_link_before_a_byte_of_its_record_is_delivered() -> None:
    """Header, contents and tag alike."""
    for bit in range(0, 8 * 40, 3):
        wire = Wire().run()
        wire.client.send(b"x" * 18, 0.0)
        transmit = wire.client.next_transmit()
        assert transmit is not None
        altered = bytearray(transmit.data)
        altered[bit // 8] ^= 1 << bit % 8
        # A longer length makes the record wait for more, so that there is more.
        wire.server.receive(altered + bytes(70_000), CLIENT, 0.0)
        assert len(wire.collect().downs("server")) == 1
        assert wire.data("server") == b""


@pytest.mark.parametrize("order", [(0, 0), (1,), (1, 0)], ids=["repeated", "lost", "swapped"])
def test_k5_records_out_of_order_end_the_link(order: tuple[int, ...]) -> None:
    """A record is good at its place only."""
    wire = Wire().run()
    records = []
    for number in range(2):
        wire.client.send(b"record %d" % number, 0.0)
        records += [bytes(t.data) for t in iter(wire.client.next_transmit, None)]
    for number in order:
        wire.server.receive(records[number], CLIENT, 0.0)
    assert len(wire.collect().downs("server")) == 1
    assert wire.data("server") == (b"record 0" if order[0] == 0 else b"")


@given(st.binary(min_size=1, max_size=300))
def test_k5_garbage_instead_of_a_handshake_ends_the_link_or_waits_in_vain(data: bytes) -> None:
    """Nothing raises, nothing rises, and what OpenSSL does not refuse at once the deadline does."""
    for link in (connect(), accept()):
        link.receive(data, CLIENT, 0.0)
        link.handle_timeout(AUTHENTICATION_LIMIT)
        (reason,) = downs(link)
        assert reason.isprintable() and reason not in (ENDED, BROKEN_OFF)


@given(st.binary(min_size=1, max_size=300))
def test_k5_garbage_in_the_middle_of_a_link_delivers_nothing(data: bytes) -> None:
    """Whatever follows a good record without being one."""
    wire = Wire().run()
    wire.client.send(b"good", 0.0)
    wire.run()
    wire.server.receive(data + bytes(70_000), CLIENT, 0.0)
    wire.collect()
    assert wire.data("server") == b"good"
    assert len(wire.downs("server")) == 1


# --- T2: peers that go on and on ------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 1, 100, -1], ids=["nothing", "a_byte", "half", "all_but_a_byte"])
@pytest.mark.parametrize("is_client", [True, False], ids=["client", "server"])
def test_t2_a_peer_that_never_finishes_the_handshake_is_dropped_in_time(is_client: bool, kept: int) -> None:
    """However far it got: the limit counts from the start and no byte moves it."""
    link, other = (connect(now=10.0), accept()) if is_client else (accept(now=10.0), connect())
    if is_client:
        hello = link.next_transmit()
        assert hello is not None
        other.receive(hello.data, CLIENT, 0.0)
    flight = other.next_transmit()
    assert flight is not None
    link.receive(bytes(flight.data)[:kept], CLIENT, 14.0)
    assert link.next_timeout() == 10.0 + AUTHENTICATION_LIMIT
    link.handle_timeout(10.0 + AUTHENTICATION_LIMIT - 0.001)
    assert downs(link) == []
    link.handle_timeout(10.0 + AUTHENTICATION_LIMIT)
    assert downs(link) == ["the other side did not prove itself in time"]
    assert link.next_timeout() is None


def test_t2_a_client_that_never_sends_its_proof_is_dropped_in_time() -> None:
    """A finished handshake is not enough to stay."""
    server = accept()
    peer = RawPeer(stranger(is_server=False), is_server=False)
    peer.shake_hands(server)
    peer.send(server, PROOF[:-1])
    server.handle_timeout(AUTHENTICATION_LIMIT)
    assert downs(server) == ["the other side did not prove itself in time"]


def test_t2_a_hello_of_64_kilobytes_is_refused() -> None:
    """A handshake message that claims to be large is not waited for."""
    server = accept()
    message = handshake_message(CLIENT_HELLO, bytes(65_000))
    for start in range(0, len(message), 16_000):
        piece = message[start : start + 16_000]
        server.receive(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece, CLIENT, 0.0)
    assert len(downs(server)) == 1


def test_t2_a_flood_of_key_updates_ends_the_link(tmp_path: Path) -> None:
    """Each is lawful and asks for an answer; none is larger, and the link ends within 32 KiB."""
    forger, server = forger_against_server(tmp_path)
    received = answered = 0
    while server.is_up:
        update = forger.key_update(wants_answer=True)
        server.receive(update, CLIENT, 0.0)
        received += len(update)
        answered += sum(len(t.data) for t in iter(server.next_transmit, None))
        assert received < 2 * MAX_BARREN
    assert downs(server) == ["the other side sends nothing that the link is for"]
    assert answered < received + 100


def test_t2_answers_to_key_updates_pile_up_to_a_bound(tmp_path: Path) -> None:
    """With content between them they could go on, but not for a peer that takes no answer."""
    forger, server = forger_against_server(tmp_path)
    piled = 0
    while server.is_up:
        server.receive(forger.key_update(wants_answer=True), CLIENT, 0.0)
        server.receive(forger.record(APPLICATION_DATA, framed(b"x")), CLIENT, 0.0)
        transmit = server.next_transmit()
        piled += len(transmit.data) if transmit else 0
        server.queued = 2 * BACKLOG_LIMIT - 10_000 + piled
        assert piled < 20_000
    reasons = [event.reason for event in iter(server.next_event, None) if isinstance(event, LinkDown)]
    assert reasons == ["the other side does not take what it asks for"]


def test_t2_key_updates_between_data_are_lawful(tmp_path: Path) -> None:
    """A peer may change its keys as it likes, and have this side change its own."""
    forger, server = forger_against_server(tmp_path)
    for number in range(50):
        server.receive(forger.key_update(wants_answer=True), CLIENT, 0.0)
        server.receive(forger.record(APPLICATION_DATA, framed(b"%d" % number)), CLIENT, 0.0)
        server.send(b"answer", 0.0)
    data = [bytes(event.data) for event in iter(server.next_event, None) if isinstance(event, LinkData)]
    assert data == [b"%d" % number for number in range(50)]
    assert server.is_up


def test_t2_records_of_length_zero_end_the_link_when_there_are_many(tmp_path: Path) -> None:
    """A few carry nothing and harm nobody; a stream of them is an attack. None becomes an event."""
    forger, server = forger_against_server(tmp_path)
    for _ in range(10):
        server.receive(forger.record(APPLICATION_DATA, b""), CLIENT, 0.0)
    assert server.is_up and server.next_event() is None
    for _ in range(MAX_BARREN // 22 + 1):
        server.receive(forger.record(APPLICATION_DATA, b"", padding=3), CLIENT, 0.0)
    assert len(downs(server)) == 1


def test_t2_records_of_padding_end_the_link(tmp_path: Path) -> None:
    """Large records without content, each lawful, are no way to keep a link busy."""
    forger, server = forger_against_server(tmp_path)
    for _ in range(4):
        server.receive(forger.record(APPLICATION_DATA, b"", padding=16_000), CLIENT, 0.0)
    assert len(downs(server)) == 1


def test_t2_noise_does_not_keep_a_silent_link_alive(tmp_path: Path) -> None:
    """Only content counts as a sign of life."""
    forger, server = forger_against_server(tmp_path)
    for second in range(1, 31):
        server.receive(forger.key_update(wants_answer=False), CLIENT, float(second))
        server.handle_timeout(float(second))
    assert downs(server) == ["the other side fell silent"]


def test_t2_a_flood_of_answers_ends_the_link(tmp_path: Path) -> None:
    """Answers to nothing carry nothing, and they are not answered."""
    forger, server = forger_against_server(tmp_path)
    for _ in range(MAX_BARREN // 26 + 1):
        server.receive(forger.record(APPLICATION_DATA, ANSWER), CLIENT, 0.0)
    goodbye = server.next_transmit()
    assert downs(server) == ["the other side sends nothing that the link is for"]
    assert goodbye is not None and len(goodbye.data) < 100


@pytest.mark.parametrize(
    "message",
    [handshake_message(CLIENT_HELLO, bytes(200)), handshake_message(0, b""), b"", b"\x18\0\0"],
    ids=["client_hello", "hello_request", "empty", "half_a_message"],
)
def test_t2_renegotiation_and_other_handshakes_in_mid_link_end_it(tmp_path: Path, message: bytes) -> None:
    """TLS 1.3 has none (RFC 8446 §4.1.2), and a half message may not stand between data (§5.1)."""
    forger, server = forger_against_server(tmp_path)
    server.receive(forger.record(HANDSHAKE, message), CLIENT, 0.0)
    server.receive(forger.record(APPLICATION_DATA, framed(b"after")), CLIENT, 0.0)
    assert len(downs(server)) == 1


def test_t2_a_flood_of_tickets_ends_the_link(tmp_path: Path) -> None:
    """The server may send what our own servers do not; nothing is kept and the end comes soon."""
    forger, client = forger_against_client(tmp_path)
    ticket = bytes(4) + bytes(4) + b"\x01n" + b"\x00\x20" + os.urandom(32) + b"\0\0"
    for _ in range(MAX_BARREN // len(ticket)):
        client.receive(forger.record(HANDSHAKE, handshake_message(NEW_SESSION_TICKET, ticket)), CLIENT, 0.0)
    assert downs(client) == ["the other side sends nothing that the link is for"]


@pytest.mark.parametrize("level", [1, 2], ids=["warning", "fatal"])
def test_t2_alerts_end_the_link_with_a_reason_of_our_own(tmp_path: Path, level: int) -> None:
    """No alert but the goodbye is an end."""
    forger, server = forger_against_server(tmp_path)
    server.receive(forger.record(ALERT, bytes([level, 80])), CLIENT, 0.0)
    (reason,) = downs(server)
    assert reason.startswith("TLS failed: ") and reason.isprintable()


def test_t2_data_after_the_goodbye_is_not_delivered(tmp_path: Path) -> None:
    """Whoever has said goodbye has nothing more to say."""
    forger, server = forger_against_server(tmp_path)
    server.receive(
        forger.record(ALERT, bytes([1, 0])) + forger.record(APPLICATION_DATA, framed(b"after")), CLIENT, 0.0
    )
    assert downs(server) == [ENDED]


def _child_of_bob() -> bytes:
    """A P-256 key and its certificate, signed with the key of the announced certificate (PEM)."""
    parent = x509.load_pem_x509_certificate(BOB.certificate)
    signer = serialization.load_pem_private_key(BOB.private_key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "child")]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2000, 1, 1))
        .not_valid_after(datetime.datetime(2100, 1, 1))
        .sign(signer, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem)
