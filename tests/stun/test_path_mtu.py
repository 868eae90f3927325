"""The largest packet that arrives, over paths that carry no more than so many bytes, in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.stun.attributes import ErrorCode, XorMappedAddress
from crowline.stun.message import Message, MessageClass, parse
from crowline.stun.nat_discovery import QUICK
from crowline.stun.path_mtu import SIZES, PathMeasured, PathMtu
from crowline.stun.responder import Responder

SERVER, SERVER6 = Address("192.0.2.1", 3478), Address("2001:db8::1", 3478)
OWN, OWN6 = Address("198.51.100.7", 40000), Address("2001:db8::7", 40000)


def machine(server: Address = SERVER) -> PathMtu:
    counter = itertools.count(1)
    return PathMtu(server, 0.0, entropy=lambda size: next(counter).to_bytes(size, "big"))


def size_of(transmit: Transmit) -> int:
    """Bytes of the whole IP packet."""
    return len(transmit.data) + (48 if transmit.destination.is_ipv6 else 28)


def measure(
    passes: Callable[[Transmit, int], bool], server: Address = SERVER
) -> tuple[PathMeasured, float, list[Transmit]]:
    """What is found, when, and everything that was sent; `passes` is told which attempt of a size it is."""
    own = OWN6 if server.is_ipv6 else OWN
    probe, responder, now = machine(server), Responder(), 0.0
    sent: list[Transmit] = []
    while True:
        while (transmit := probe.next_transmit()) is not None:
            attempt = sum(size_of(each) == size_of(transmit) for each in sent)
            sent.append(transmit)
            if passes(transmit, attempt):
                responder.receive(transmit.data, own, now, server)
                answer = responder.next_transmit()
                assert answer is not None
                probe.receive(answer.data, server, now)
        if (found := probe.next_event()) is not None:
            assert probe.next_timeout() is None
            return found, now, sent
        time = probe.next_timeout()
        assert time is not None
        now = time
        probe.handle_timeout(now)


@pytest.mark.parametrize("server", [SERVER, SERVER6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("limit", [576, 1000, 1228, 1279, 1280, 1400, 1499])
def test_the_limit_is_found_between_two_sizes(limit: int, server: Address) -> None:
    """The largest size below, and the smallest above."""
    found, _, _ = measure(lambda transmit, _: size_of(transmit) <= limit, server)
    assert found.passed == max(size for size in SIZES if size <= limit)
    assert found.lost == min(size for size in SIZES if size > limit)


def test_where_everything_arrives_it_is_over_at_once() -> None:
    """One packet of each size, and nothing is known to be lost."""
    found, seconds, sent = measure(lambda *_: True)
    assert (found, seconds, len(sent)) == (PathMeasured(1500, None), 0.0, len(SIZES))
    assert sorted(map(size_of, sent)) == list(SIZES)


def test_no_packet_may_be_fragmented() -> None:
    """Else it would arrive in pieces, and tell nothing."""
    _, _, sent = measure(lambda *_: True)
    assert all(transmit.dont_fragment for transmit in sent)


def test_a_mute_server_tells_nothing() -> None:
    """It is not the path that is to blame; after a second and a half it is over, and no more is sent."""
    found, seconds, sent = measure(lambda *_: False)
    assert found == PathMeasured(None, None)
    assert (seconds, len(sent)) == (QUICK.patience, 3 * len(SIZES))


def test_a_lost_packet_is_sent_again() -> None:
    """Loss is not a limit."""
    found, _, _ = measure(lambda _, attempt: attempt > 0)
    assert found == PathMeasured(1500, None)


def test_an_error_is_an_answer_too() -> None:
    """A server that wants another request has got this one whole."""
    probe = machine()
    for _ in SIZES:
        transmit = probe.next_transmit()
        assert transmit is not None
        request = parse(transmit.data).message
        probe.receive(request.answer(MessageClass.ERROR, ErrorCode(420)).encode(), SERVER, 0.0)
    assert probe.next_event() == PathMeasured(1500, None)


def test_strangers_answer_nothing() -> None:
    """Another source, another transaction, and what is no STUN are dropped and counted."""
    probe = machine()
    transmit = probe.next_transmit()
    assert transmit is not None
    request = parse(transmit.data).message
    answer = request.answer(MessageClass.SUCCESS, XorMappedAddress(OWN))
    probe.receive(answer.encode(), Address("192.0.2.9", 3478), 0.0)
    other = Message(request.method, MessageClass.SUCCESS, bytes(12), (XorMappedAddress(OWN),))
    probe.receive(other.encode(), SERVER, 0.0)
    probe.receive(transmit.data, SERVER, 0.0)
    probe.receive(b"nonsense", SERVER, 0.0)
    assert probe.counters == {"not_ours": 3, "malformed": 1}
    assert probe.next_event() is None
