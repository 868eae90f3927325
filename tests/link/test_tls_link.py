"""A TLS link: both ends authenticated, bytes in and out, and how it ends."""

from __future__ import annotations

import os

import pytest

from crowline.base.errors import UsageError
from crowline.base.transport import Transport
from crowline.link import tls
from crowline.link.client_auth import LINK_ID_LENGTH, PREAMBLE_LENGTH
from crowline.link.events import LinkData, LinkUp
from crowline.link.tls import BACKLOG_LIMIT, BROKEN_OFF, ENDED, IDLE_TIMEOUT, TlsLink
from tls_pair import ALICE, BOB, CLIENT, KEY, SERVER, Wire, accept, connect, trust


def test_both_ends_rise_once_the_client_has_proven_itself() -> None:
    """The client is up after the handshake, the server after the proof, and neither has data for it."""
    wire = Wire().run()
    assert wire.events == {"client": [LinkUp()], "server": [LinkUp()]}
    assert wire.client.is_up and wire.server.is_up


@pytest.mark.parametrize("chunk", [1, 7, 1000, 16_406, 65_536, 1 << 20])
def test_bytes_flow_both_ways_however_the_stream_is_cut(chunk: int) -> None:
    """Bytes in both directions arrive whole and in order, also from a driver that feeds one at a time."""
    wire = Wire(chunk=chunk).run()
    size = 40_000 if chunk < 1000 else 1_000_000
    there, back = os.urandom(size), os.urandom(size // 2)
    for start in range(0, size, 300_000):
        wire.client.send(memoryview(there)[start : start + 300_000], wire.now)
        wire.server.send(bytearray(back[start // 2 : start // 2 + 150_000]), wire.now)
        wire.run()
    assert wire.data("server") == there
    assert wire.data("client") == back


def test_the_first_bytes_of_the_session_may_come_with_the_proof() -> None:
    """What the client sends before the server is up waits behind the proof and is handed on after it."""
    client, server = connect(), accept()
    wire = Wire(client, server)
    for sender, receiver in ((client, server), (server, client)):
        transmit = sender.next_transmit()
        assert transmit is not None
        receiver.receive(transmit.data, sender.local, 0.0)
    assert client.is_up and not server.is_up
    client.send(b"at once", 0.0)
    wire.run()
    assert wire.events["server"] == [LinkUp(), LinkData(b"at once")]


def test_small_pieces_do_not_keep_large_buffers_alive() -> None:
    """A few bytes come as an object of their own, many as a view of what they were decrypted into."""
    wire = Wire().run()
    wire.client.send(b"few", 0.0)
    wire.run()
    wire.client.send(bytes(60_000), 0.0)
    wire.run()
    few, *many = (e.data for e in wire.events["server"] if isinstance(e, LinkData))
    assert few == b"few" and isinstance(few, bytes)
    assert all(isinstance(data, memoryview) and len(data) >= 10_000 for data in many)


def test_transmits_say_which_tcp_connection_they_belong_to() -> None:
    """A pair of the same addresses may exist over UDP too."""
    transmit = connect().next_transmit()
    assert transmit is not None
    assert (transmit.destination, transmit.local, transmit.transport) == (SERVER, CLIENT, Transport.TCP)


def test_nothing_can_be_sent_before_the_link_is_up() -> None:
    """Bytes given too early are dropped, and there is no room for them."""
    client = connect()
    assert client.room() == 0
    client.send(b"too early", 0.0)
    wire = Wire(client=client).run()
    assert wire.data("server") == b""
    assert client.unanswered_since is None


def test_room_ends_at_the_backlog_limit_wherever_the_bytes_wait() -> None:
    """Bytes in the link and bytes that the driver still holds count alike."""
    wire = Wire().run()
    assert wire.client.room() == BACKLOG_LIMIT
    wire.client.queued = BACKLOG_LIMIT // 2
    assert wire.client.room() == BACKLOG_LIMIT // 2
    wire.client.send(bytes(BACKLOG_LIMIT // 2), 0.0)
    assert wire.client.room() == 0
    wire.run()
    wire.client.queued = 0
    assert wire.client.room() == BACKLOG_LIMIT


def test_a_link_whose_other_end_takes_nothing_is_ended_and_not_fed_for_ever() -> None:
    """Answers that a peer asks for and never takes pile up to a bound, in the link or in its driver."""
    wire = Wire().run()
    for _ in range(100):
        wire.client.send(bytes(BACKLOG_LIMIT // 10), 0.0)
        transmit = wire.client.next_transmit()
        wire.client.queued += len(transmit.data) if transmit is not None else 0
    assert wire.collect().downs("client") == ["the other side does not take what it asks for"]
    assert wire.client.queued <= 3 * BACKLOG_LIMIT


def test_silence_after_sending_is_visible() -> None:
    """`unanswered_since` dates the first send that nothing has come back for."""
    wire = Wire().run()
    wire.client.send(b"hello", 3.0)
    wire.client.send(b"anybody?", 4.0)
    assert wire.client.unanswered_since == 3.0
    wire.server.send(b"yes", 4.0)
    wire.run()
    assert wire.client.unanswered_since is None


def test_closing_one_end_ends_the_other_and_says_so() -> None:
    """The goodbye of TLS arrives, and the side that closed hears of nothing more."""
    wire = Wire().run()
    wire.client.send(b"last words", 0.0)
    wire.client.close(0.0)
    wire.server.send(b"crossing", 0.0)
    wire.run()
    assert wire.data("server") == b"last words"
    assert wire.downs("server") == [ENDED]
    assert wire.downs("client") == []
    assert not wire.client.is_up and not wire.server.is_up
    assert wire.client.next_timeout() is None and wire.server.next_timeout() is None


def test_closing_during_the_handshake_is_quiet() -> None:
    """A link that is not needed any more can be given up at any time."""
    client = connect()
    client.close(0.0)
    client.close(0.0)
    client.disconnected()
    assert client.next_event() is None
    assert client.room() == 0


def test_pings_keep_a_link_alive_and_silence_ends_it() -> None:
    """Consent without STUN: whatever the other side sends renews it, for 30 seconds."""
    wire = Wire().run()
    for second in range(5, 65, 5):
        wire.now = float(second)
        wire.server.send(b"ping", wire.now)
        wire.run()
        wire.client.handle_timeout(wire.now)
    assert wire.client.is_up
    deadline = wire.client.next_timeout()
    while deadline is not None and wire.client.is_up:
        wire.now = deadline
        wire.client.handle_timeout(wire.now)
        deadline = wire.client.next_timeout()
    assert wire.now == 60.0 + IDLE_TIMEOUT
    assert wire.run().downs("client") == ["the other side fell silent"]
    assert wire.downs("server") == [ENDED]


def test_a_timeout_that_comes_early_changes_nothing() -> None:
    """A driver may call at any time."""
    wire = Wire()
    wire.client.handle_timeout(4.9)
    wire.run()
    wire.client.handle_timeout(IDLE_TIMEOUT - 0.1)
    assert wire.client.is_up and wire.collect().downs("client") == []


def test_one_key_protects_no_more_records_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8446 §5.5: the link ends before, and the session goes on by another."""
    monkeypatch.setattr(tls, "RECORD_LIMIT", 10)
    wire = Wire().run()
    for _ in range(12):
        wire.client.send(b"x", 0.0)
    wire.run()
    assert wire.downs("client") == ["the link has carried all that one key may protect"]
    assert wire.data("server") == b"x" * 10
    assert wire.downs("server") == [ENDED]


def test_a_connection_that_breaks_off_never_looks_like_an_end() -> None:
    """Without the goodbye of TLS the reason is another one, before and after the link is up."""
    for wire in (Wire(), Wire().run()):
        wire.server.disconnected()
        wire.server.disconnected()
        assert wire.collect().downs("server") == [BROKEN_OFF]
        assert BROKEN_OFF != ENDED


def test_after_the_goodbye_the_end_of_the_connection_is_no_news() -> None:
    """TCP ends after TLS has: one event."""
    wire = Wire().run()
    wire.client.close(0.0)
    wire.run()
    wire.server.disconnected()
    assert wire.collect().downs("server") == [ENDED]


def test_each_role_wants_its_own_trust() -> None:
    """Roles follow the session: a mix-up is the caller's mistake."""
    with pytest.raises(UsageError):
        TlsLink.connect(
            destination=SERVER,
            local=CLIENT,
            trust=trust(BOB, ALICE, is_client=False),
            client_key=KEY,
            link_id=bytes(LINK_ID_LENGTH),
            now=0.0,
        )
    with pytest.raises(UsageError):
        TlsLink.accept(
            destination=CLIENT, local=SERVER, trust=trust(ALICE, BOB, is_client=True), client_key=KEY, now=0.0
        )


def test_the_proof_is_as_long_as_the_protocol_says() -> None:
    """The constant that both kinds of link share: an id of 8 bytes and a SHA-256 HMAC."""
    assert PREAMBLE_LENGTH == 40
