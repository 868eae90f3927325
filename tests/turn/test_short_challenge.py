"""The short way of challenges says what the long way says."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.stun.attributes import RequestedTransport
from crowline.stun.budget import Allowance, ReplyBudget
from crowline.stun.message import HEADER_SIZE, Message, MessageClass, Method
from crowline.turn.auth import Authenticator
from crowline.turn.short_challenge import (
    PLAIN_ALLOCATE_END,
    PLAIN_ALLOCATE_SIZE,
    PLAIN_ALLOCATE_START,
    ShortChallenge,
)
from turn_pair import CLIENT, OTHER_CLIENT, Caller, World

ID = b"transaction."
REQUEST = Message(Method.ALLOCATE, MessageClass.REQUEST, ID, (RequestedTransport(17),)).encode()


def test_the_plainest_request_is_recognised_by_its_bytes() -> None:
    """A start, the transaction and an end."""
    assert PLAIN_ALLOCATE_START + ID + PLAIN_ALLOCATE_END == REQUEST
    assert len(PLAIN_ALLOCATE_START) + len(ID) == HEADER_SIZE
    assert len(REQUEST) == PLAIN_ALLOCATE_SIZE


@pytest.mark.parametrize("client", [CLIENT, OTHER_CLIENT, Address("2001:db8::7", 40000)], ids=str)
@pytest.mark.parametrize("now", [0.0, 1234.5, 2.0**25])
def test_both_ways_give_the_same_bytes(client: Address, now: float) -> None:
    """And count the same."""
    long, short = World(), World()
    long.now = now
    said = Caller(long, client).send_raw(REQUEST)
    assert said is not None
    assert short.server.short_challenge.answer(ID, client, now) == said
    assert short.server.counters == long.server.counters


def test_both_ways_share_one_budget() -> None:
    """What is beyond it is left to the long way, which counts it and says nothing."""
    world = World(allowance=Allowance(rate=0.0, burst=3.0))
    caller = Caller(world)
    assert caller.send_raw(REQUEST) is not None
    short = world.server.short_challenge
    assert [short.answer(ID, CLIENT, 0.0) is None for _ in range(3)] == [False, False, True]
    assert caller.send_raw(REQUEST) is None
    assert world.server.counters == {"rejected_401": 3, "over_budget": 1}


def test_what_no_client_sends_is_left_to_the_long_way() -> None:
    """A source that answers whatever comes in; and a realm with which the answer is more than three times
    the request."""
    world = World()
    assert world.server.short_challenge.answer(ID, Address(CLIENT.host, 53), 0.0) is None
    wordy = Authenticator(Secret(b"s" * 32), entropy=bytes, epoch=0.0, realm="a realm of many words")
    short = ShortChallenge(wordy, ReplyBudget(Allowance(1.0, 1.0)), world.server.counters)
    assert short.answer(ID, CLIENT, 0.0) is None
    assert not world.server.counters
