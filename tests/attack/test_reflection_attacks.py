"""Attacks that use our servers as mirrors, rows S: many answers, large ones, loops, and sources that lie."""

from __future__ import annotations

import ipaddress
import sys

import pytest

from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun.budget import BINDING, CHALLENGE, SLOTS, ReplyBudget
from crowline.stun.message import Message, MessageClass, Method
from crowline.stun.responder import Responder
from crowline.stun.sources import ANSWERING_PORTS, is_plausible_source
from turn_attackers import allocated
from turn_pair import (
    CLIENT,
    SERVER,
    Caller,
    World,
)

TRANSPORT = a.RequestedTransport(17)
UNSIGNED = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (TRANSPORT,)).encode()


def test_s1_reflection_stays_within_the_budget() -> None:
    """A thousand Bindings a second from one source for ten seconds get the burst and the rate, no more."""
    budget = ReplyBudget(BINDING)
    answers = sum(budget.take(Address("44.6.6.6", port), port / 1000) for port in range(1, 10_001))
    assert answers <= BINDING.burst + BINDING.rate * 10


def test_s1_challenges_have_a_tight_budget_of_their_own() -> None:
    """A thousand unsigned Allocates a second for ten seconds get twenty answers, and ten more a second."""
    world = World()
    answers = 0
    for n in range(10_000):
        world.now = n / 1000
        caller = Caller(world, Address("44.6.6.6", 20_000 + n))
        answers += caller.send(UNSIGNED) is not None
    assert CHALLENGE.burst <= answers <= CHALLENGE.burst + CHALLENGE.rate * 10
    assert world.server.counters["over_budget"] == 10_000 - answers


def test_s1_neighbours_of_a_victim_are_answered() -> None:
    """The budget of one address, or of one /64, does not touch the next one."""
    budget = ReplyBudget(CHALLENGE)
    for source in (Address("44.6.6.6", 1), Address("2a01:4f8:1:1::6", 1)):
        while budget.take(source, 0.0):
            pass
    assert not budget.take(Address("2a01:4f8:1:1:ffff::1", 9), 0.0)
    neighbours = [Address(f"44.6.7.{n}", 1) for n in range(20)]
    neighbours += [Address(f"2a01:4f8:1:{n}::6", 1) for n in range(2, 20)]
    # Two sources may share a slot of the table; that nearly all share one would be the fault.
    assert sum(budget.take(neighbour, 0.0) for neighbour in neighbours) >= len(neighbours) - 2


def test_s1_one_site_of_many_clients_is_served() -> None:
    """A hundred clients behind one NAT that ask five times each, all at once, are all answered."""
    budget = ReplyBudget(BINDING)
    assert all(budget.take(Address("44.6.6.6", 1024 + n), n / 1000) for n in range(500))


def test_s1_the_budget_has_a_fixed_size() -> None:
    """A flood from a hundred thousand sources leaves the table as large as it was."""
    budget = ReplyBudget(CHALLENGE)
    before = sum(sys.getsizeof(value) for value in vars(budget).values())
    for n in range(100_000):
        budget.take(Address(str(ipaddress.IPv4Address(0x2C000000 + n)), 1), n / 10_000)
    assert sum(sys.getsizeof(value) for value in vars(budget).values()) == before
    assert before < 3 * 8 * SLOTS


@pytest.mark.parametrize(("client", "limit"), [(CLIENT, 32), (Address("2a01:4f8::5", 4000), 44)])
def test_s2_binding_amplification(client: Address, limit: int) -> None:
    """A bare Binding of 20 bytes gets at most 32 bytes over IPv4, 44 over IPv6."""
    responder = Responder()
    responder.receive(Message(Method.BINDING, MessageClass.REQUEST, b"t" * 12).encode(), client, 0.0, SERVER)
    transmit = responder.next_transmit()
    assert transmit is not None
    assert len(transmit.data) <= limit


@pytest.mark.parametrize(
    "method", [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]
)
@pytest.mark.parametrize("proof", ["none", "junk", "short"])
def test_s2_every_unauthenticated_answer_is_below_three_times(method: Method, proof: str) -> None:
    """No answer to an unauthenticated request is longer than three times that; a bare one gets none."""
    caller = Caller(World())
    request = Message(method, MessageClass.REQUEST, b"t" * 12)
    data = {
        "none": request.encode(),
        "junk": request.encode(key=b"junk"),
        "short": Message(method, MessageClass.REQUEST, b"t" * 12, (a.Username("u"),)).encode(key=b"junk"),
    }[proof]
    raw = caller.send_raw(data)
    assert (raw is None) == (proof == "none")
    assert raw is None or len(raw) <= 3 * len(data)
    assert caller.world.server.counters["too_small"] == (proof == "none")


def test_s3_answers_carry_no_decoration() -> None:
    """No SOFTWARE, no reason phrase, no plain MAPPED-ADDRESS in any answer."""
    caller = Caller(World())
    answers = [
        caller.send(UNSIGNED),
        caller.allocate(),
        caller.allocate(),
        caller.call(Method.REFRESH),
        caller.call(Method.CREATE_PERMISSION),
    ]
    for answer in answers:
        assert answer is not None
        assert answer.get(a.Software) is None
        assert answer.get(a.MappedAddress) is None
        error = answer.get(a.ErrorCode)
        assert error is None or error.reason == ""


@pytest.mark.parametrize("cls", [MessageClass.SUCCESS, MessageClass.ERROR, MessageClass.INDICATION])
@pytest.mark.parametrize("method", list(Method))
def test_s4_nothing_but_requests_is_answered(cls: MessageClass, method: Method) -> None:
    """Success, error and indication of every method meet silence, with and without an allocation."""
    for caller in (Caller(World()), allocated()):
        data = Message(method, cls, b"t" * 12, (a.ErrorCode(401), a.Realm("r"), a.Nonce("n"))).encode()
        assert caller.send_raw(data) is None
        responder = Responder()
        responder.receive(data, CLIENT, 0.0, SERVER)
        assert responder.next_transmit() is None


def test_s4_two_servers_set_on_each_other_fall_silent() -> None:
    """A forged 401 with the other server as its source is not answered, so no loop begins."""
    first, second = World(), World()
    forged = Message(Method.ALLOCATE, MessageClass.ERROR, b"t" * 12, (a.ErrorCode(401),)).encode()
    packets = 1
    for world in (first, second):
        world.server.receive(forged, Address("44.7.7.7", 3478), 0.0, SERVER)
        packets += world.server.next_transmit() is not None
    assert packets == 1


@pytest.mark.parametrize("method", [0x00A, 0x0FF, 0xFFF])
def test_s4_unknown_methods_meet_silence(method: int) -> None:
    """A request of a method that does not exist gets neither 401 nor 400."""
    woven = (method & 0xF) | (method & 0x70) << 1 | (method & 0xF80) << 2
    data = woven.to_bytes(2, "big") + b"\0\0\x21\x12\xa4\x42" + b"t" * 12
    assert Caller(World()).send_raw(data) is None


@pytest.mark.parametrize(
    "source",
    [
        Address("0.0.0.0", 1000),
        Address("255.255.255.255", 1000),
        Address("224.0.0.1", 1000),
        Address("ff02::1", 1000),
        Address("::", 1000),
        *(Address("44.6.6.6", port) for port in sorted(ANSWERING_PORTS)),
    ],
)
def test_s7_impossible_and_answering_sources_meet_silence(source: Address) -> None:
    """Sources that no client has, and ports that would answer our answer, get nothing."""
    assert not is_plausible_source(source)
    assert Caller(World(), source).send_raw(UNSIGNED) is None
