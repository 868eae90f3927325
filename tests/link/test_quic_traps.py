"""What the QUIC library does that a driver must know of: each trap, and what the link makes of it.

Where a test says what the library itself does, and it fails with another version, the link can do without the
precaution that the test stands for.
"""

from __future__ import annotations

import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError

from crowline.base.addresses import Address
from crowline.link.identity import Identity
from crowline.link.quic import BACKLOG_LIMIT, DATAGRAM_SIZE, QuicLink
from crowline.link.quic_connection import PSEUDO_ADDRESS
from quic_wire import Wire, connect, up

# Bytes in flight that a link keeps to, and what a run may be more than that.
WINDOW = (16 << 20) + (64 << 10)


def small(wire: Wire) -> QuicLink:
    assert wire.server is not None
    return wire.server


def test_certificates_are_of_a_kind_whose_handshake_does_not_hang() -> None:
    """With an Ed25519 certificate the library's client waits for ever, unless told of that algorithm."""
    certificate = x509.load_der_x509_certificate(Identity.generate().certificate_der)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def test_the_handshake_passes_where_the_library_by_itself_never_gets_through() -> None:
    """A path of 1,232 bytes, the least under IPv6, loses the 1,280 bytes that the library begins with."""
    default = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["x"]))
    default.connect(PSEUDO_ADDRESS, 0.0)
    assert len(default.datagrams_to_send(0.0)[0][0]) > 1232
    wire = Wire(connect())
    wire.mtu = {"client": 1232, "server": 1232}
    wire.run(0.2)
    assert wire.client.is_up and small(wire).is_up


def test_a_path_that_becomes_narrower_is_never_noticed_by_the_library_and_shows_as_silence() -> None:
    """Large packets are sent again and again, without an event; a link with the least packets goes on."""
    large, least = up(size=1452, delay=0.02), up(delay=0.02)
    for wire in (large, least):
        wire.mtu = {"client": 1400, "server": 1400}
        wire.client.send(os.urandom(300_000), wire.now)
        began = wire.now
        wire.run(20.0)
    assert large.data("server") == b"" and not large.downs("client")
    assert large.client.unanswered_since == began  # what the session leaves a link for
    assert len(least.data("server")) == 300_000 and least.client.unanswered_since is None


def test_no_link_sends_more_than_its_size_however_long_it_lives() -> None:
    """The library's search for larger packets is off: it is one-sided, and says nothing of what it finds."""
    wire = up(delay=0.01)
    for _ in range(60):
        wire.client.send(os.urandom(5000), wire.now)
        wire.run(1.0)
    assert max(transmit.segment_size or len(transmit.data) for transmit in wire.sent) <= DATAGRAM_SIZE


def test_both_ends_may_send_larger_packets_than_the_library_would_believe_its_own_client() -> None:
    """It tells every server that it takes 1,472 bytes, whatever it was made for."""
    wire = up(size=8952)
    small(wire).send(os.urandom(200_000), wire.now)
    wire.run(1.0)
    assert small(wire)._connection.largest_datagram == 8952


def test_an_oversized_datagram_poisons_a_connection_of_the_library_and_no_link() -> None:
    """After one that does not fit into a packet nothing leaves any more, and no event says so."""
    wire = up()
    wire.client._connection.send_datagram_frame(bytes(DATAGRAM_SIZE))
    with pytest.raises((QuicConnectionError, RuntimeError)):
        wire.client._connection.datagrams_to_send(wire.now)
    wire = up()
    assert not wire.client.send_datagram(bytes(DATAGRAM_SIZE), wire.now)
    wire.client.send(b"on it goes", wire.now)
    wire.run(0.1)
    assert wire.data("server") == b"on it goes"


def test_links_say_that_they_take_datagrams_in_both_roles() -> None:
    """The library's servers do not, unless they are told to."""
    wire = up()
    assert wire.client._connection.largest_data and small(wire)._connection.largest_data


def test_the_windows_of_the_library_hold_nobody_back_so_the_session_must() -> None:
    """Whether anybody reads or not, more comes than the windows say; what waits is counted here."""
    wire = up(delay=0.001)
    sent = 0
    while sent < 40 << 20:
        room = wire.client.room()
        wire.client.send(bytes(room), wire.now)
        sent += room
        assert wire.client._connection.get_send_buffer_size(0) <= BACKLOG_LIMIT
        wire.run(0.02)
    wire.run(2.0)
    assert sum(len(getattr(event, "data", b"")) for event in wire.events["server"]) == sent > 2 * WINDOW


def test_the_window_of_congestion_control_is_capped_on_a_path_without_loss() -> None:
    """By itself it grows as long as nothing is lost: to 615 MB on a loopback interface."""
    wire = up(delay=0.1)
    most = 0
    for _ in range(60):
        wire.client.send(bytes(wire.client.room()), wire.now)
        wire.run(0.05)
        core = wire.client._connection._core
        assert core is not None
        most = max(most, core.bytes_in_flight)
    assert BACKLOG_LIMIT < most <= WINDOW


@pytest.mark.parametrize("outage", [1.0, 6.0, 20.0])
def test_after_an_outage_the_first_sign_of_life_ends_the_wait(outage: float) -> None:
    """By itself the library waits for its timer, which has doubled again and again: as long as the outage."""
    wire = up(delay=0.02)
    wire.client.send(os.urandom(50_000), wire.now)
    wire.run(0.001)
    wire.loses = lambda side: True
    wire.run(outage)
    wire.loses = lambda side: False
    wire._way.clear()
    ended = wire.now
    small(wire).send(b"a ping of the session", wire.now)
    wire.run(5.0, until=lambda: len(wire.data("server")) == 50_000)
    assert len(wire.data("server")) == 50_000
    assert wire.now - ended < 0.5


@pytest.mark.parametrize("source", ["192.0.2.77", "2001:db8::1", "fe80::1"])
def test_addresses_are_no_business_of_the_connection(source: str) -> None:
    """It sees one that never changes; on some it would choke, and each change costs a validation."""
    wire = up()
    wire.client.send(b"by another way", wire.now)
    while (transmit := wire.client.next_transmit()) is not None:
        small(wire).receive(transmit.data, Address(source, 4321), wire.now, Address("fe80::2", 1))
    wire.run(0.1)
    assert wire.data("server") == b"by another way"


def test_a_second_stream_ends_the_link() -> None:
    """The session has streams of its own; those of the library are limited, and raise when they run out."""
    wire = up()
    wire.client._connection.send_stream_data(4, b"what is this?")
    wire.client._dirty = True
    wire.run(0.2)
    assert wire.downs("server") == ["the other side opened a stream that a link does not have"]


def test_a_link_that_the_other_end_closed_is_down_at_once() -> None:
    """The library says so only after three round trips of draining."""
    wire = up(delay=0.1)
    wire.client.close(wire.now)
    wire.run(0.15)
    assert wire.downs("server") == ["the connection ended"]


def test_runs_mixed_from_two_connections_are_none() -> None:
    """A buffer of the kernel may end in a datagram of anybody; what is not this link's changes nothing."""
    wire, other = up(), up()
    wire.client.send(b"mine", wire.now)
    other.client.send(b"another's", other.now)
    mine, strange = wire.client.next_transmit(), other.client.next_transmit()
    assert mine is not None and strange is not None
    run = bytes(strange.data).ljust(len(mine.data), b"\0") + bytes(mine.data)
    small(wire).receive_run(run, len(mine.data), wire.now)
    wire.run(0.1)
    assert wire.data("server") == b"mine" and not wire.downs("server")


def test_a_short_path_is_not_filled_with_what_can_only_wait() -> None:
    """Without loss the window grows on; what is in flight is bounded by the least round trip."""
    wire = up(delay=0.0005)
    wire.client.send(bytes(100_000), wire.now)
    wire.run(0.1)
    wire.delay = 0.5  # a queue, not the path
    most = 0
    for _ in range(100):
        wire.client.send(bytes(wire.client.room()), wire.now)
        wire.run(0.05)
        core = wire.client._connection._core
        assert core is not None
        most = max(most, core.bytes_in_flight)
    assert most <= (6 << 20)
