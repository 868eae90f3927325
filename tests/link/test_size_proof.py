"""A link with large packets is up when such packets came through in both directions, and only then."""

from __future__ import annotations

import itertools
import os
import random

import pytest

from crowline.link import quic_connection
from crowline.link.events import LinkUp
from crowline.link.quic import AUTHENTICATION_LIMIT, DATAGRAM_SIZE, MAX_DATAGRAM_SIZE
from crowline.link.size_proof import PROBE, SEEN, TRIES, SizeProof
from quic_wire import Wire, connect, up


@pytest.mark.parametrize("size", [1201, 1280, 1372, 1452, 1472, 4000, 8952, MAX_DATAGRAM_SIZE])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_packets_of_that_size_carry_what_is_sent(size: int, delay: float) -> None:
    """Once up, both ends send packets that are as large as was proven, and no larger."""
    wire = up(size=size, delay=delay)
    assert wire.server is not None
    there, back = os.urandom(600_000), os.urandom(600_000)
    wire.sent.clear()
    wire.client.send(there, wire.now)
    wire.server.send(back, wire.now)
    wire.run(5.0)
    assert wire.data("server") == there and wire.data("client") == back
    largest = max(transmit.segment_size or len(transmit.data) for transmit in wire.sent)
    assert size - 60 < largest <= size


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_path_that_drops_large_packets_of_one_direction_gets_no_such_link(side: str) -> None:
    """The handshake goes through, the proof does not; both ends know it soon."""
    wire = Wire(connect(size=1452), delay=0.02)
    wire.mtu[side] = 1400
    wire.run(2.0, until=lambda: bool(wire.downs("client") and wire.downs("server")))
    assert wire.now < AUTHENTICATION_LIMIT / 2
    assert not any(LinkUp() in events for events in wire.events.values())


def test_what_proves_a_size_may_not_be_cut_on_its_way_and_bulk_is_left_to_the_kernel() -> None:
    """Fragments would prove nothing; later on, a path that shrank and says so costs fragments only."""
    wire = up(size=1452)
    proofs = [transmit for transmit in wire.sent if len(transmit.data) > 1400]
    assert proofs and all(transmit.dont_fragment for transmit in proofs)
    wire.sent.clear()
    wire.client.send(bytes(10_000), wire.now)
    wire.run(0.1)
    assert wire.sent and not any(transmit.dont_fragment for transmit in wire.sent)


@pytest.mark.parametrize("seed", range(8))
def test_losses_delay_the_proof_and_break_no_bytes(seed: int) -> None:
    """Whichever of its packets get lost, the link ends before it handed anything on, or all comes through."""
    wire = Wire(connect(size=1452), delay=0.01)
    chance = random.Random(seed)
    wire.loses = lambda side: chance.random() < 0.03
    wire.run(AUTHENTICATION_LIMIT, until=lambda: wire.client.is_up)
    sent = os.urandom(100_000)
    wire.client.send(sent, wire.now)
    wire.run(20.0, until=lambda: len(wire.data("server")) == len(sent) or bool(wire.downs("client")))
    if wire.downs("client"):
        assert not wire.data("server")
        return
    assert wire.data("server") == sent
    assert wire.events["server"][0] == LinkUp()


def test_each_end_has_its_own_size() -> None:
    """A side whose network carries no more than the least size answers to larger packets all the same."""
    wire = Wire(connect(size=1452), server_size=DATAGRAM_SIZE)
    wire.mtu["server"] = DATAGRAM_SIZE
    wire.run(0.3)
    assert wire.client.is_up and wire.server is not None and wire.server.is_up
    assert wire.server.size == DATAGRAM_SIZE


def test_a_server_with_larger_packets_keeps_to_the_least_where_the_client_proves_nothing() -> None:
    """Without a proof there is none in either direction."""
    wire = Wire(connect(), server_size=8952)
    wire.run(0.3)
    assert wire.server is not None and wire.server.is_up
    assert wire.server.size == DATAGRAM_SIZE


def test_whoever_never_answers_ends_the_proof() -> None:
    """So many packets and no more, each after three round trips."""
    proof = SizeProof()
    proof.begin(1400, 0.1, 0.0)
    probes, now = 0, 0.0
    while not proof.has_failed(now):
        frames = proof.due(now)
        assert all(len(frame) == 1400 for frame in frames)
        probes += sum(frame[:1] == PROBE for frame in frames)
        now = proof.next_timeout() or now
    assert probes == TRIES
    assert now == pytest.approx(0.3 * TRIES)


def test_an_answer_alone_is_not_enough() -> None:
    """The other side must have shown that its packets come too, unless it has never been asked."""
    proof = SizeProof()
    proof.begin(1400, 0.1, 0.0)
    proof.hear(SEEN)
    proof.hear(b"")
    proof.hear(b"\xff")
    assert not proof.is_done
    proof.hear(PROBE)
    assert proof.is_done


def test_who_uses_the_link_was_told_that_its_packets_come() -> None:
    """The answer to this side's packet got lost, and the other side's bytes say the same."""
    proof = SizeProof()
    proof.begin(1400, 0.1, 0.0)
    proof.heard_stream()
    assert not proof.is_done
    proof.hear(PROBE)
    proof.heard_stream()
    assert proof.is_done


@pytest.mark.parametrize("size", [1372, 1472, 8952])
def test_the_first_bulk_finds_a_window_that_is_open(size: int) -> None:
    """What was sent for the proof counts like a first flight, and the second one is about twice as large."""
    wire = up(size=size, delay=0.04)
    for link in wire.links():
        assert link._connection.window_left > 2 * 14_720
    wire.sent.clear()
    wire.client.send(bytes(200_000), wire.now)
    wire.run(0.06)
    assert sum(len(transmit.data) for transmit in wire.sent) > 2 * 14_720


def test_a_proof_takes_one_round_trip_more_than_the_handshake() -> None:
    """The client's packets come after what proves the client, so none of them is sent in vain."""
    wire = Wire(connect(size=1472), delay=0.04)
    wire.run(0.2, until=lambda: wire.client.is_up)
    assert wire.client.is_up and wire.server is not None
    wire.run(0.08, until=lambda: wire.server is not None and wire.server.is_up)
    assert wire.server.is_up


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_link_whose_first_packets_got_lost_is_given_up(side: str) -> None:
    """Its window has shrunk before it was ever open: a long path would be filled a minute later."""
    wire = Wire(connect(size=1472), delay=0.02)
    large = itertools.count()
    wire.loses_datagram = lambda of, data: of == side and len(data) > 1400 and next(large) == 4
    wire.run(2.0, until=lambda: bool(wire.downs(side)))
    assert wire.downs(side) == ["the handshake lost packets"]


def test_a_handshake_that_lost_packets_proves_no_size() -> None:
    """The QUIC library falls back to the least size then; the link ends, no frame is too large for it."""
    wire = Wire(connect(size=1452), delay=0.5)  # its first timer runs out before anything can come
    wire.run(4.0)
    assert not wire.client.is_up
    assert wire.downs("client") == ["the handshake lost packets"]


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_side_that_takes_no_datagrams_is_refused_as_soon_as_it_is_known(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No size can be proven to it, and a timer for packets that never leave would not stop."""
    if side == "client":
        with monkeypatch.context() as patch:
            patch.setattr(quic_connection, "_MAX_DATAGRAM_FRAME", 0)
            wire = Wire(connect(size=1452), delay=0.02)
    else:
        wire = Wire(connect(size=1452), delay=0.02)
        monkeypatch.setattr(quic_connection, "_MAX_DATAGRAM_FRAME", 0)
    wire.loses_datagram = lambda of, data: of == side and len(data) > 1400 and data[0] < 0x80
    other = "server" if side == "client" else "client"
    wire.run(1.0, until=lambda: bool(wire.downs(other)))
    assert wire.downs(other) == ["the other side takes no packets of that size"]
    assert wire.now < 0.2
