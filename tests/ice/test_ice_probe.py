"""Checks to guessed addresses, from sockets that are no bases yet, and what shows who answered."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.ice.candidate import CandidateType
from crowline.ice.events import PairValid
from crowline.stun.attributes import Priority, UnknownAttribute, UseCandidate, Username
from crowline.stun.message import Message, MessageClass, Method, parse
from puppet import BASE, STRANGER, Puppet, events, request, requests

SOCKET = Address("192.0.2.1", 4711)  # of the same host as BASE; no candidate
GUESSED = Address("198.51.100.9", 40_001)


def test_a_probe_is_a_check_of_the_session() -> None:
    """The other side verifies it like any other check, and it nominates nothing."""
    puppet = Puppet(True, renominate=True)
    puppet.meet()
    message = parse(puppet.agent.probe(BASE, GUESSED)).message
    assert message.get(Username) == Username(f"{puppet.ufrag}:{puppet.agent.ufrag}")
    assert message.get(Priority) == request(puppet.one()).message.get(Priority)
    assert message.get(UseCandidate) is None


def test_a_probe_may_leave_by_a_socket_that_is_no_base() -> None:
    """What it announces is a peer-reflexive priority all the same."""
    puppet = Puppet(True)
    puppet.meet()
    priority = parse(puppet.agent.probe(SOCKET, GUESSED)).message.get(Priority)
    assert priority is not None and priority.value >> 24 == 110


def test_a_probe_leaves_the_agent_as_it_was() -> None:
    """No pair comes of it, nothing is sent again, and its answer is nobody's."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.answer(puppet.one(), 0.01)
    puppet.sent()
    before = puppet.agent.next_timeout()
    data = puppet.agent.probe(BASE, GUESSED)
    assert puppet.sent() == []
    assert puppet.agent.next_timeout() == before
    puppet.receive(puppet.success(Transmit(data, GUESSED)), GUESSED, 0.02)
    assert puppet.agent.counters["answer to nothing"] == 1
    assert all(pair.remote.address != GUESSED for pair in puppet.agent.valid_pairs())


def test_nobody_can_be_probed_before_the_password_is_known() -> None:
    """Nor across address families."""
    puppet = Puppet(True)
    with pytest.raises(UsageError):
        puppet.agent.probe(BASE, GUESSED)
    puppet.meet()
    with pytest.raises(UsageError):
        puppet.agent.probe(BASE, Address("2001:db8::1", 1))


def test_checks_and_answers_of_the_other_side_authenticate() -> None:
    """Both show that whoever sent them knows a password of this session."""
    puppet = Puppet(True)
    puppet.meet()
    sent = Transmit(puppet.agent.probe(SOCKET, GUESSED), GUESSED)
    agent = puppet.agent
    assert agent.authenticates(puppet.check())
    assert agent.authenticates(puppet.success(sent))
    assert agent.authenticates(puppet.error(sent, 487))


def test_nothing_else_authenticates() -> None:
    """Neither what is forged, nor our own probe that came back, nor what says nothing."""
    puppet = Puppet(True)
    puppet.meet()
    agent = puppet.agent
    own = agent.probe(SOCKET, GUESSED)
    indication = Message(Method.BINDING, MessageClass.INDICATION, bytes(12)).encode(key=puppet.pwd.encode())
    refused = [
        puppet.check(signed=False),
        puppet.check(key="another password of 22 characters"),
        puppet.check(username=f"{agent.ufrag}:somebody"),
        puppet.check(priority=None),
        puppet.check(UnknownAttribute(0x7FFF, b"")),
        puppet.success(Transmit(own, GUESSED), signed=False),
        puppet.success(Transmit(own, GUESSED), key=agent.pwd),
        own,
        indication,
        b"",
        b"no STUN",
        puppet.check()[:-1],
    ]
    assert [agent.authenticates(data) for data in refused] == [False] * len(refused)
    assert agent.counters["check refused"] == 0 and puppet.sent() != []


def test_nothing_authenticates_before_the_other_side_is_known() -> None:
    """A check that knows our password may come first; the plans that listen for it have not begun."""
    puppet = Puppet(False)
    assert not puppet.agent.authenticates(puppet.check())


def test_a_socket_that_was_reached_becomes_a_base() -> None:
    """A new host candidate, the packet that came there, and ordinary ICE makes a pair of them."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.sent()
    packet = puppet.check()
    assert puppet.agent.authenticates(packet)
    puppet.agent.add_local_candidate(puppet.factory.host(SOCKET), 1.0)
    puppet.agent.receive(packet, STRANGER, 1.0, SOCKET)
    puppet.agent.handle_timeout(1.1)
    (check,) = [each for each in requests(puppet.sent()) if each.destination == STRANGER]
    assert check.local == SOCKET
    puppet.agent.receive(puppet.success(check), STRANGER, 1.2, SOCKET)
    (valid,) = [event.pair for event in events(puppet.agent) if isinstance(event, PairValid)]
    assert (valid.base, valid.remote.address) == (SOCKET, STRANGER)
    assert valid.remote.type is CandidateType.PEER_REFLEXIVE
