"""Attacks on the sockets of plans for hard NATs: by the other side, and by strangers who find a port."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from crowline.api.traversal.punching import MAX_CHECK
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.agent import IceAgent
from crowline.net.udp import UdpSocket
from crowline.punch.nat_profile import NatProfile
from crowline.punch.plan_choice import NatSummary
from crowline.punch.punch_signals import PunchCall, PunchProfile, PunchReady
from crowline.stun.message import Message, MessageClass, Method
from punching_side import HOST, Side, StunServer, measuring, until


@pytest.fixture(autouse=True)
def profiles(monkeypatch: pytest.MonkeyPatch) -> list[NatProfile]:
    """What the next measurements find."""
    return measuring(monkeypatch)


async def test_h1_nobody_is_sprayed_on_the_word_of_the_other_side(tmp_path: Path) -> None:
    """It names a host of somebody else: the hub is asked, says nothing, and no packet leaves."""
    server, victim = StunServer(), StunServer()
    side, other = Side(leads=False, folder=tmp_path, server=server), Side(leads=True, folder=tmp_path)
    side.meet(other)
    await until(lambda: side.punching.profile, side)
    side.punching.hear(PunchProfile("per_port", "per_port", "random", host="127.0.0.3"))
    side.punching.hear(PunchCall(1, "low-ttl", "both"))
    await until(lambda: any(isinstance(each, PunchReady) for each in side.signals), side)
    side.punching.hear(PunchReady(1, victim.address.host, (victim.address.port,)))
    await until(lambda: side.vouched == ["127.0.0.3", victim.address.host], side)
    # A server of ours: what the hub says of its host counts for nothing.
    side.gatherer.expect(server.address)
    side.punching.vouched(server.address.host)
    for _ in range(20):
        await asyncio.sleep(0)
    assert victim.asked == 0
    for each in (side, other):
        each.close()
    for each in (server, victim):
        each.close()


async def test_h1_hosts_and_words_that_make_no_sense_are_survived(tmp_path: Path) -> None:
    """Signals come from an authenticated side, and are no better for it."""
    side, other = Side(leads=False, folder=tmp_path), Side(leads=True, folder=tmp_path)
    side.meet(other)
    for host in ("", "nonsense", "2001:db8::1", "1.2.3.4.5", "127.0.0.1 "):
        side.punching.hear(PunchProfile("odd", "odd", "odd", host=host))
        side.punching.vouched(host)
    assert side.reasons.peer == NatSummary()
    for each in (side, other):
        each.close()


async def test_h3_no_guess_goes_to_a_port_that_routers_watch(tmp_path: Path) -> None:
    """A translator on the way would take it for telephony, and rewrite it."""
    side = Side(leads=False, folder=tmp_path)
    adoption = side.punching._owner
    assert adoption.may_probe(Address("44.1.2.3", 40000))
    assert not any(adoption.may_probe(Address("44.1.2.3", port)) for port in (1720, 1723, 1900, 5060, 5061))
    side.close()


async def test_h3_no_word_of_the_other_side_is_kept_about_a_network_where_nobody_saw_it(
    tmp_path: Path,
) -> None:
    """Else it could spoil the order of plans towards others, or have all that is known of them forgotten."""
    server, profile = StunServer(), ("per_port", "per_port", "random")
    side, other = Side(leads=False, folder=tmp_path, server=server), Side(leads=True, folder=tmp_path)
    side.meet(other)
    await until(lambda: side.punching.profile, side)
    for number in range(1, 9):
        side.punching.hear(PunchProfile(*profile, host=f"198.51.{number}.7"))
        side.punching.hear(PunchCall(number, "spray", "callee"))
    assert side.punching._notes._memory is not None
    assert side.punching._notes._memory.dump() == b"{}"
    side.punching.vouched("198.51.8.7")
    side.punching.hear(PunchCall(9, "spray", "callee"))
    assert b'"spray/own":-1' in side.punching._notes._memory.dump()
    for each in (side, other):
        each.close()
    server.close()


async def test_h4_one_socket_keeps_one_packet_of_a_reasonable_size(tmp_path: Path) -> None:
    """All that authenticates is kept until a socket becomes a base: 256 giants would be 16 MB."""
    side, other = Side(leads=False, folder=tmp_path), Side(leads=True, folder=tmp_path)
    side.meet(other)
    other.meet(side)
    there = Address("44.1.2.3", 4000)
    first, second = (other.agent.probe(there, there) for _ in range(2))
    giant = memoryview(first + bytes(MAX_CHECK))
    side.agent.authenticates = lambda data: True  # type: ignore[method-assign]
    for data in (giant, memoryview(first), memoryview(second)):
        side.punching._on_datagram(7, data, there)
    assert side.punching._packets == {7: (first, there)}
    for each in (side, other):
        each.close()


async def test_h4_strangers_at_open_ports_become_nothing(tmp_path: Path) -> None:
    """Whatever they send to a socket of a plan, it is no base after it, and the plan goes on."""
    server = StunServer()
    side, other = Side(leads=False, folder=tmp_path, server=server), Side(leads=True, folder=tmp_path)
    side.meet(other)
    other.meet(side)
    await until(lambda: side.punching.profile, side)
    side.punching.hear(PunchCall(1, "low-ttl", "both"))
    await until(lambda: any(isinstance(each, PunchReady) for each in side.signals), side)
    [ready] = [each for each in side.signals if isinstance(each, PunchReady)]
    port = Address(HOST, ready.ports[0])
    stranger = UdpSocket.bind(Address(HOST, 0), lambda *_: None)
    impostor = IceAgent(True, entropy=os.urandom)
    impostor.set_remote(side.agent.ufrag, "a password that is a guess", 0.0)
    request = Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12)).encode()
    genuine = other.agent.probe(port, port)
    damaged = genuine[:-1] + bytes([genuine[-1] ^ 1])
    for data in (b"x", os.urandom(300), request, impostor.probe(port, port), damaged, genuine[:40]):
        stranger.send(Transmit(data, port))
    # What only the other side can have made comes last: all before it was heard and was nothing.
    stranger.send(Transmit(genuine, port))
    await until(lambda: side.gatherer.adopted(), side)
    assert side.gatherer.adopted() == {port}
    stranger.close()
    for each in (side, other):
        each.close()
    server.close()


async def test_h4_answers_that_the_server_did_not_give_are_none(tmp_path: Path) -> None:
    """Somebody else says under which port a socket is seen: the other side is told nothing of that."""
    server, liar = StunServer(), StunServer()
    server.delay = asyncio.Event()
    side, other = Side(leads=False, folder=tmp_path, server=server), Side(leads=True, folder=tmp_path)
    side.meet(other)
    await until(lambda: side.punching.profile, side)
    side.punching.hear(PunchCall(1, "low-ttl", "both"))
    await until(lambda: server.requests, side)
    for request, source in server.requests:
        liar.lie(request, source, Address("198.51.100.99", 4444))
    await asyncio.sleep(0)
    server.delay.set()
    await until(lambda: any(isinstance(each, PunchReady) for each in side.signals), side)
    [ready] = [each for each in side.signals if isinstance(each, PunchReady)]
    assert ready.host == HOST
    assert ready.ports[0] != 4444
    for each in (side, other):
        each.close()
    for each in (server, liar):
        each.close()
