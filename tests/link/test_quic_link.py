"""A QUIC link: both ends authenticated, runs in and out, and what happens to everybody else."""

from __future__ import annotations

import os

import pytest

from crowline.base.secrets import Secret
from crowline.link.events import LinkDown, LinkUp
from crowline.link.identity import Identity
from crowline.link.quic import (
    AUTHENTICATION_LIMIT,
    BACKLOG_LIMIT,
    DATAGRAM_SIZE,
    QuicLink,
    is_initial,
)
from quic_wire import CLIENT, IDENTITY, KEY, SERVER, Wire, connect


def test_bytes_flow_both_ways_once_both_ends_are_authenticated() -> None:
    """Megabytes in both directions arrive whole and in order."""
    wire = Wire(connect())
    wire.run(0.2)
    assert wire.client.is_up and wire.server is not None and wire.server.is_up
    there, back = os.urandom(3_000_000), os.urandom(1_000_000)
    for start in range(0, len(there), 500_000):
        wire.client.send(there[start : start + 500_000], wire.now)
        wire.run(0.2)
    wire.server.send(back, wire.now)
    wire.run(0.5)
    assert wire.data("server") == there
    assert wire.data("client") == back


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_path_that_loses_full_size_datagrams_of_one_direction_gets_no_link(side: str) -> None:
    """Small packets pass, and checks with them; bulk would not. The handshake is padded (RFC 9000 §14.1)."""
    wire = Wire(connect())
    wire.mtu[side] = DATAGRAM_SIZE - 1
    wire.run(AUTHENTICATION_LIMIT + 1)
    assert not any(isinstance(event, LinkUp) for events in wire.events.values() for event in events)
    assert wire.downs("client") == ["the other side did not prove itself in time"]


def test_bulk_leaves_in_runs_of_one_datagram_size() -> None:
    """Most bytes go out in runs whose datagrams are no larger than every path carries."""
    wire = Wire(connect())
    wire.run(0.2)
    wire.sent.clear()
    wire.client.send(bytes(400_000), wire.now)
    wire.run(0.5)
    assert all((t.segment_size or len(t.data)) <= DATAGRAM_SIZE for t in wire.sent)
    assert max(len(t.data) for t in wire.sent) > 8 * DATAGRAM_SIZE
    assert {(t.destination, t.local) for t in wire.sent} == {(SERVER, CLIENT)}


def test_the_client_refuses_a_server_with_another_certificate() -> None:
    """A wrong fingerprint ends the link before any application byte."""
    wire = Wire(connect(), identity=Identity.generate())
    wire.run(1.0)
    assert not wire.client.is_up
    assert wire.downs("client")
    assert LinkUp() not in wire.events["server"]


def test_the_server_refuses_a_client_without_the_meeting_key() -> None:
    """The proof in the first bytes is wrong: nothing that follows is handed on."""
    wire = Wire(connect(key=Secret(b"x" * 32)))
    wire.run(0.1)
    wire.client.send(b"let me in", wire.now)
    wire.run(1.0)
    assert wire.data("server") == b""
    assert LinkUp() not in wire.events["server"]
    assert wire.downs("server") == ["the other side could not prove itself"]
    assert wire.downs("client")


def test_a_client_that_never_proves_itself_is_dropped_in_time() -> None:
    """Silence after the first datagram costs the server no more than the limit."""
    client = connect()
    first = client.next_transmit()
    assert first is not None
    server = QuicLink.accept(
        first.data, destination=CLIENT, local=SERVER, identity=IDENTITY, client_key=KEY, now=0.0
    )
    server.receive_run(first.data, len(first.data), 0.0)
    while (t := server.next_timeout()) is not None and t < AUTHENTICATION_LIMIT:
        server.handle_timeout(t)
    server.handle_timeout(AUTHENTICATION_LIMIT)
    assert server.next_event() == LinkDown("the other side did not prove itself in time")


def test_closing_one_end_ends_the_other() -> None:
    """The other end hears of it at once."""
    wire = Wire(connect())
    wire.run(0.2)
    wire.client.close(wire.now)
    wire.run(0.2)
    assert wire.downs("server")
    assert wire.server is not None and not wire.server.is_up


def test_silence_after_sending_is_visible() -> None:
    """`unanswered_since` dates the first send that nothing has come back for."""
    wire = Wire(connect())
    wire.run(0.2)
    assert wire.client.unanswered_since is None
    wire.client.send(b"hello", wire.now)
    assert wire.client.unanswered_since == wire.now
    wire.run(0.2)
    assert wire.client.unanswered_since is None


def test_room_ends_at_the_backlog_limit() -> None:
    """A link takes no more than its backlog, and nothing before it is up."""
    link = connect()
    assert link.room() == 0
    wire = Wire(link)
    wire.run(0.2)
    assert wire.client.room() == BACKLOG_LIMIT
    wire.client.send(bytes(BACKLOG_LIMIT), wire.now)
    assert wire.client.room() == 0


def test_garbage_on_the_wire_changes_nothing() -> None:
    """Random and truncated datagrams are dropped without an event."""
    wire = Wire(connect())
    wire.run(0.2)
    assert wire.server is not None
    for size in (1, 20, 21, 200, DATAGRAM_SIZE):
        wire.server.receive_run(os.urandom(size), size, wire.now)
        wire.client.receive_run(b"\x40" + os.urandom(size), size + 1, wire.now)
    wire.client.send(b"still here", wire.now)
    wire.run(0.2)
    assert wire.data("server") == b"still here"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        bytes(DATAGRAM_SIZE),
        b"\xc0\x00\x00\x00\x02\x08" + bytes(DATAGRAM_SIZE),
        b"\xc0\x00\x00\x00\x01\x07" + bytes(DATAGRAM_SIZE),
        b"\xc0\x00\x00\x00\x01\x15" + bytes(DATAGRAM_SIZE),
        b"\xe0\x00\x00\x00\x01\x08" + bytes(DATAGRAM_SIZE),
        b"\xc0\x00\x00\x00\x01\x08" + bytes(DATAGRAM_SIZE - 7),
    ],
    ids=["empty", "short", "zeros", "version", "short_id", "long_id", "handshake", "not_padded"],
)
def test_only_a_full_size_initial_begins_a_link(data: bytes) -> None:
    """Anything else costs no connection."""
    assert not is_initial(data)


def test_a_real_first_datagram_begins_a_link() -> None:
    """What our own client sends first is recognised."""
    first = connect().next_transmit()
    assert first is not None
    assert is_initial(first.data[: first.segment_size or len(first.data)])


def test_what_the_other_end_says_of_its_reason_reaches_no_screen() -> None:
    """Reasons are shown to people: a peer's words, which may hold escape sequences, are no part of them."""
    wire = Wire(connect())
    wire.run(0.2)
    wire.client._connection.close(error_code=0, reason_phrase="\x1b[2J\x1b]0;owned\x07 all is well")
    wire.client._dirty = True
    wire.run(0.2)
    (reason,) = wire.downs("server")
    assert reason.isprintable() and "owned" not in reason


def test_a_link_whose_other_end_takes_nothing_is_ended_and_not_fed_for_ever() -> None:
    """Answers that a peer asks for and never takes pile up to a bound."""
    wire = Wire(connect())
    wire.run(0.2)
    for _ in range(100):
        wire.client.send(bytes(BACKLOG_LIMIT // 10), wire.now)
        if not wire.client.is_up:
            break
    assert wire.client._connection.get_send_buffer_size(0) <= 3 * BACKLOG_LIMIT
    wire.run(0.01)
    assert len(wire.downs("client")) == 1
