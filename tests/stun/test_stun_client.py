"""The Binding client against the responder and against liars, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.client import BindingClient, Mapped, NoAnswer
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.stun.responder import Alternates, Responder
from crowline.stun.transaction import Schedule

SERVERS = [Address("192.0.2.1", 3478), Address("192.0.2.2", 3478), Address("2001:db8::1", 3478)]
LOCAL = Address("10.0.0.1", 5000)
OUTSIDE = Address("203.0.113.5", 61000)


def counting() -> Callable[[int], bytes]:
    numbers = count()
    return lambda size: next(numbers).to_bytes(size, "big")


def request_of(client: BindingClient) -> tuple[Message, Address]:
    transmit = client.next_transmit()
    assert transmit is not None
    assert transmit.local == LOCAL
    return parse(transmit.data).message, transmit.destination


def success(request: Message, *attributes: a.AnyAttribute) -> bytes:
    return request.answer(MessageClass.SUCCESS, *attributes).encode()


def test_mapped_from_many_servers() -> None:
    """Each server's answer is an event of its own; one that is mute delays nobody."""
    client = BindingClient(entropy=counting())
    responder = Responder(Alternates(SERVERS[0], Address("192.0.2.9", 3479)))
    for server in SERVERS:
        client.query(server, 0.0, LOCAL)
    requests = [client.next_transmit() for _ in SERVERS]
    assert client.next_transmit() is None
    for transmit in requests[:2]:
        assert transmit is not None
        responder.receive(transmit.data, OUTSIDE, 0.0, transmit.destination)
        answer = responder.next_transmit()
        assert answer is not None
        client.receive(answer.data, transmit.destination, 0.03, LOCAL)
    assert client.next_event() == Mapped(
        OUTSIDE, LOCAL, SERVERS[0], other=Address("192.0.2.9", 3479), round_trip=0.03
    )
    assert client.next_event() == Mapped(OUTSIDE, LOCAL, SERVERS[1], round_trip=0.03)
    assert client.next_event() is None
    assert client.next_timeout() == 0.5


def test_a_mute_server_is_asked_on_schedule_and_given_up() -> None:
    """Seven requests with one transaction id, then `NoAnswer`, at the times of RFC 8489."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL)
    sent: dict[float, bytes] = {}
    now = 0.0
    while client.next_timeout() is not None:
        client.handle_timeout(now)
        while (transmit := client.next_transmit()) is not None:
            sent[now] = bytes(transmit.data)
        now = client.next_timeout() or now
    assert list(sent) == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert len(set(sent.values())) == 1
    assert now == 39.5
    assert client.next_event() == NoAnswer(SERVERS[0], LOCAL)


def test_first_retransmission_is_a_parameter() -> None:
    """The schedule is the caller's."""
    client = BindingClient(entropy=counting(), schedule=Schedule(rto=0.1, rc=2, rm=2))
    client.query(SERVERS[0], 1.0)
    assert client.next_timeout() == 1.1


@pytest.mark.parametrize(
    ("source", "local", "change"),
    [
        (Address("192.0.2.1", 3479), LOCAL, 0),
        (Address("192.0.2.9", 3478), LOCAL, 0),
        (SERVERS[0], Address("10.0.0.1", 5001), 0),
        (SERVERS[0], LOCAL, 1),
    ],
)
def test_answers_from_elsewhere_are_discarded(source: Address, local: Address, change: int) -> None:
    """Wrong source, wrong socket or wrong transaction id never complete a question; the true answer does."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL)
    request, server = request_of(client)
    good = success(request, a.XorMappedAddress(OUTSIDE))
    forged = good[:8] + bytes([good[8] ^ change]) + good[9:]
    client.receive(forged, source, 0.01, local)
    assert client.next_event() is None
    client.receive(good, server, 0.02, LOCAL)
    assert isinstance(client.next_event(), Mapped)


def test_duplicate_and_late_answers_are_discarded() -> None:
    """Only the first answer in time makes an event."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL)
    request, server = request_of(client)
    answer = success(request, a.XorMappedAddress(OUTSIDE))
    client.receive(answer, server, 0.1, LOCAL)
    client.receive(answer, server, 60.0, LOCAL)
    assert isinstance(client.next_event(), Mapped)
    assert client.next_event() is None
    assert client.counters["not_ours"] == 1


def test_plain_mapped_address_is_the_fallback() -> None:
    """Old servers send only MAPPED-ADDRESS; with both, the XOR form counts."""
    for attributes in (
        (a.MappedAddress(OUTSIDE),),
        (a.MappedAddress(Address("192.0.2.66", 1)), a.XorMappedAddress(OUTSIDE)),
    ):
        client = BindingClient(entropy=counting())
        client.query(SERVERS[0], 0.0, LOCAL)
        request, server = request_of(client)
        client.receive(success(request, *attributes), server, 0.1, LOCAL)
        event = client.next_event()
        assert isinstance(event, Mapped)
        assert event.address == OUTSIDE


def test_answers_without_an_address_are_waited_past() -> None:
    """A success without an address, an error without a code, a request and garbage complete nothing."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL)
    request, server = request_of(client)
    for data in (
        success(request),
        success(request, a.XorMappedAddress(Address("192.0.2.5", 0))),
        request.answer(MessageClass.ERROR).encode(),
        request.encode(),
        b"garbage",
    ):
        client.receive(data, server, 0.1, LOCAL)
    assert client.next_event() is None
    assert client.next_timeout() == 0.5


def test_error_response_ends_the_question() -> None:
    """An error response is a `NoAnswer` with its code."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL)
    request, server = request_of(client)
    client.receive(request.answer(MessageClass.ERROR, a.ErrorCode(500)).encode(), server, 0.1, LOCAL)
    assert client.next_event() == NoAnswer(SERVERS[0], LOCAL, 500)


def test_unknown_required_attribute_in_a_success_fails_it() -> None:
    """A success response with an unknown comprehension-required attribute is no success."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL)
    request, server = request_of(client)
    data = success(request, a.XorMappedAddress(OUTSIDE), a.UnknownAttribute(0x7F01, b""))
    client.receive(data, server, 0.1, LOCAL)
    assert client.next_event() == NoAnswer(SERVERS[0], LOCAL)


def test_a_classic_answer_counts() -> None:
    """A server of RFC 3489 says in plain where we are, and two addresses that STUN does not have any more."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL)
    request, server = request_of(client)
    retired = (a.UnknownAttribute(number, b"\0\1\x0d\x96\xc0\0\2\1") for number in (0x0004, 0x0005))
    client.receive(success(request, a.MappedAddress(OUTSIDE), *retired), server, 0.1, LOCAL)
    event = client.next_event()
    assert isinstance(event, Mapped)
    assert event.address == OUTSIDE


def test_owns_tells_its_answers_from_others() -> None:
    """On a shared socket the client recognises answers to its own questions only."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL)
    request, _ = request_of(client)
    assert client.owns(success(request, a.XorMappedAddress(OUTSIDE)))
    assert not client.owns(Message(Method.BINDING, MessageClass.SUCCESS, b"x" * 12).encode())


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
def test_a_stream_is_asked_once(transport: Transport) -> None:
    """Over TCP and TLS the request goes once and waits as long as over UDP; the event says by what."""
    client = BindingClient(entropy=counting())
    client.query(SERVERS[0], 0.0, LOCAL, transport)
    client.query(SERVERS[1], 0.0, LOCAL, transport)
    transmit, _ = client.next_transmit(), client.next_transmit()
    assert transmit is not None
    assert transmit.transport is transport
    client.handle_timeout(30.0)
    assert client.next_transmit() is None
    request = parse(transmit.data).message
    client.receive(success(request, a.XorMappedAddress(OUTSIDE)), SERVERS[0], 30.0, LOCAL)
    assert client.next_event() == Mapped(OUTSIDE, LOCAL, SERVERS[0], None, 30.0, transport)
    client.handle_timeout(39.5)
    assert client.next_event() == NoAnswer(SERVERS[1], LOCAL, 0, transport)
