"""Datagrams of a QUIC link: what fits arrives in a packet of its own, and nothing ends the link."""

from __future__ import annotations

import os

import pytest

from crowline.link import quic_connection
from crowline.link.events import LinkDatagram, LinkDown
from crowline.link.quic import DATAGRAM_SIZE, DATAGRAMS_WAITING, QuicLink
from crowline.link.quic_connection import LinkConnection
from quic_wire import Wire, connect, up


def datagrams(wire: Wire, side: str) -> list[bytes]:
    return [bytes(event.data) for event in wire.events[side] if isinstance(event, LinkDatagram)]


def ends(wire: Wire) -> dict[str, QuicLink]:
    assert wire.server is not None
    return {"client": wire.client, "server": wire.server}


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("size", [DATAGRAM_SIZE, 1452, 8900])
def test_the_largest_datagram_arrives_as_it_was_sent(side: str, size: int) -> None:
    """Every length up to the limit goes over, in both directions, whatever size the link has."""
    wire = up(size=size)
    link = ends(wire)[side]
    limit = link.max_datagram_size
    sent = [os.urandom(length) for length in (1, limit // 2, limit - 1, limit)]
    for data in sent:
        assert link.send_datagram(data, wire.now)
    wire.run(0.2)
    assert datagrams(wire, "server" if side == "client" else "client") == sent
    assert limit >= size - 50


@pytest.mark.parametrize("busy", [False, True])
def test_what_does_not_fit_is_refused_and_costs_nothing_else(busy: bool) -> None:
    """One byte too many would end the connection in the QUIC library; it never gets there."""
    wire = up()
    if busy:
        wire.client.send(os.urandom(300_000), wire.now)
    assert not wire.client.send_datagram(bytes(wire.client.max_datagram_size + 1), wire.now)
    assert wire.client.send_datagram(bytes(wire.client.max_datagram_size), wire.now)
    wire.client.send(b"streams go on", wire.now)
    wire.run(1.0)
    assert wire.data("server").endswith(b"streams go on")
    assert not wire.downs("client") and len(datagrams(wire, "server")) == 1


def test_the_largest_datagram_leaves_while_acknowledgements_have_gaps() -> None:
    """An acknowledgement of many ranges goes with the datagram or after it; neither ends the connection."""
    wire = up()
    server = ends(wire)["server"]
    for number in range(40):
        server.send(bytes(2000), wire.now)
        while (transmit := server.next_transmit()) is not None:
            if number % 2:
                wire.client.receive_run(transmit.data, transmit.segment_size or len(transmit.data), wire.now)
    assert wire.client.send_datagram(bytes(wire.client.max_datagram_size), wire.now)
    wire.run(0.5)
    assert len(datagrams(wire, "server")) == 1
    assert not wire.downs("client")


def test_a_flood_of_datagrams_waits_for_the_window_and_is_bounded() -> None:
    """The QUIC library would send them all at once; here a few wait, and the rest is lost unsent."""
    wire = up()
    taken = sum(wire.client.send_datagram(bytes(1000), wire.now) for _ in range(1000))
    assert DATAGRAMS_WAITING <= taken < DATAGRAMS_WAITING + 20
    first = 0
    while (transmit := wire.client.next_transmit()) is not None:
        first += len(transmit.data)
        wire.deliver("client", transmit)
    assert first < 20_000  # what congestion control lets a new connection send
    wire.run(2.0)
    assert len(datagrams(wire, "server")) == taken


def test_one_turn_may_bring_as_many_as_the_window_takes() -> None:
    """Only what cannot leave yet has to wait, and that is what is bounded."""
    wire = up(delay=0.01)
    wire.client.send(os.urandom(900_000), wire.now)
    wire.run(1.0)
    many = 3 * DATAGRAMS_WAITING
    assert all(wire.client.send_datagram(bytes(1000), wire.now) for _ in range(many))
    wire.run(0.5)
    assert len(datagrams(wire, "server")) == many


def test_datagrams_do_not_wait_behind_a_bulk_stream() -> None:
    """A stream that has more than the window to send holds a datagram back for a round trip, no longer."""
    wire = up()
    for _ in range(4):
        wire.client.send(os.urandom(200_000), wire.now)
    wire.run(0.02)
    assert wire.client.send_datagram(b"now", wire.now)
    wire.run(0.05)
    assert datagrams(wire, "server") == [b"now"]


def test_a_side_that_has_not_proven_itself_gets_no_datagram_through() -> None:
    """The gate that stands before stream bytes stands before datagrams too."""
    wire = Wire(connect())
    admission = wire.client._admission
    admission._first = bytes(len(admission._first) - 1)  # one byte short of a proof
    wire.run(0.2)
    assert wire.client.is_up  # as far as this side can know
    assert wire.client.send_datagram(b"let me in", wire.now)
    wire.run(0.2)
    assert not datagrams(wire, "server")


def test_a_link_that_is_not_up_takes_no_datagrams() -> None:
    """Neither before the handshake nor after the end."""
    wire = Wire(connect())
    assert wire.client.max_datagram_size == 0
    assert not wire.client.send_datagram(b"x", 0.0)
    wire.run(0.2)
    wire.client.close(wire.now)
    assert wire.client.max_datagram_size == 0
    assert not wire.client.send_datagram(b"x", wire.now)
    assert not any(isinstance(event, LinkDown) for event in wire.events["client"])


@pytest.mark.parametrize("length", [1, 8, 20])
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("size", [DATAGRAM_SIZE, 1452])
def test_the_largest_datagram_leaves_room_for_the_id_that_the_other_side_chose(
    size: int, side: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each packet has it, and it has up to 20 bytes; what is one byte too large would end the connection."""

    def go_by_another_id(connection: LinkConnection) -> None:
        connection.host_cid = os.urandom(length)
        connection._configuration.connection_id_length = length

    if side == "client":
        with monkeypatch.context() as patch:
            patch.setattr(LinkConnection, "_shorten_id", go_by_another_id)
            wire = Wire(connect(size=size))
    else:
        wire = Wire(connect(size=size))
        monkeypatch.setattr(LinkConnection, "_shorten_id", go_by_another_id)
    wire.run(0.2)
    for sender, receiver in (("client", "server"), ("server", "client")):
        link = ends(wire)[sender]
        sent = os.urandom(link.max_datagram_size)
        assert len(sent) >= size - 50 and link.send_datagram(sent, wire.now)
        wire.run(0.2)
        assert datagrams(wire, receiver) == [sent]
    assert all(link.is_up for link in wire.links())


@pytest.mark.parametrize("most", [0, 1, 4, 100])
def test_no_datagram_is_larger_than_the_other_side_takes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The QUIC library would end the connection over one, even an empty one where the other takes none."""
    wire = Wire(connect())
    monkeypatch.setattr(quic_connection, "_MAX_DATAGRAM_FRAME", most)
    wire.run(0.2)
    limit = wire.client.max_datagram_size
    assert limit == max(0, most - 4)  # the frame's type and length, and the kind of data
    assert not wire.client.send_datagram(bytes(limit + 1), wire.now)
    assert wire.client.send_datagram(bytes(limit), wire.now) == (limit > 0)
    wire.run(0.2)
    assert datagrams(wire, "server") == [bytes(limit)] * (limit > 0)
    assert wire.client.is_up
