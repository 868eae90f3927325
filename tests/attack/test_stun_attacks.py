"""Attacks on the STUN server and on the Binding client, named after the rows of the threat list."""

from __future__ import annotations

import secrets
import struct

import pytest

from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun.client import BindingClient, Mapped, NoAnswer
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.stun.responder import BEHAVIOUR, Alternates, Responder
from crowline.stun.sources import ANSWERING_PORTS

VICTIM = Address("44.6.6.6", 5000)
VICTIM6 = Address("2a01:4f8::6", 5000)
SERVER = Address("44.1.1.1", 3478)
OTHER = Address("44.1.1.2", 3479)
LOCAL = Address("10.0.0.1", 5000)
OUTSIDE = Address("44.2.2.2", 61000)
BOTH = pytest.mark.parametrize("alternates", [None, Alternates(SERVER, OTHER)], ids=["one", "two"])
BEHAVIOUR_REQUESTS = [
    (a.ChangeRequest(True, True),),
    (a.ChangeRequest(False, True), a.Padding(bytes(600))),
    (a.ResponsePort(40001),),
    (a.Padding(bytes(1400)),),
    (a.Padding(b""),),
    (a.ResponsePort(40001), a.Padding(bytes(1400))),
]


def binding(*attributes: a.AnyAttribute) -> bytes:
    return Message(Method.BINDING, MessageClass.REQUEST, b"transaction!", attributes).encode()


def classic(*attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("!HH", number, len(value)) + value for number, value in attributes)
    return b"\x00\x01" + len(body).to_bytes(2, "big") + bytes(16) + body


def answers(
    data: bytes, source: Address, alternates: Alternates | None, *, times: int = 1
) -> list[tuple[bytes, Address]]:
    responder = Responder(alternates)
    for _ in range(times):
        responder.receive(data, source, 0.0, SERVER)
    found = []
    while (transmit := responder.next_transmit()) is not None:
        found.append((bytes(transmit.data), transmit.destination))
    return found


# --- the server -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("source", [VICTIM, VICTIM6])
@pytest.mark.parametrize(
    "data",
    [
        binding(),
        *(binding(*attributes) for attributes in BEHAVIOUR_REQUESTS),
        classic(),
        classic((3, b"\0\0\0\6")),
        classic((2, bytes(8))),
    ],
)
def test_s2_no_binding_answer_is_beyond_three_times(
    data: bytes, source: Address, alternates: Alternates | None
) -> None:
    """With one address or two, of today or of RFC 3489: at most three times the bytes, to the same host."""
    for answer, destination in answers(data, source, alternates):
        assert len(answer) <= 3 * len(data)
        assert destination.host == source.host


@BOTH
def test_s3_no_answer_is_decorated(alternates: Alternates | None) -> None:
    """No SOFTWARE and no reason phrase; MAPPED-ADDRESS only where RFC 5780 was configured and asks for it."""
    unknown = ((a.UnknownAttribute(0x7F01, b""),), (a.UnknownAttribute(0x8055, b""),))
    for attributes in ((), *BEHAVIOUR_REQUESTS, *unknown):
        for raw, _ in answers(binding(*attributes), VICTIM, alternates):
            message = parse(raw).message
            error = message.get(a.ErrorCode)
            assert message.get(a.Software) is None
            assert error is None or error.reason == ""
            assert message.get(a.MappedAddress) is None or (alternates is not None and attributes)


@BOTH
@pytest.mark.parametrize("kind", [0x0101, 0x0111, 0x0002, 0x0102, 0x0112, 0x0011])
def test_s4_classic_answers_and_secrets_meet_silence(kind: int, alternates: Alternates | None) -> None:
    """Nothing but a classic Binding request is answered: no loop begins without the cookie either."""
    assert answers(kind.to_bytes(2, "big") + classic()[2:], VICTIM, alternates) == []


@BOTH
def test_s4_two_responders_set_on_each_other_fall_silent(alternates: Alternates | None) -> None:
    """The answer to a request whose source is forged as another server ends there, the classic too."""
    for data in (binding(), classic()):
        [(answer, _)] = answers(data, OTHER, alternates)
        assert answers(answer, SERVER, alternates) == []


@pytest.mark.parametrize("attributes", BEHAVIOUR_REQUESTS)
def test_s5_off_by_default(attributes: tuple[a.AnyAttribute, ...]) -> None:
    """Without a second address CHANGE-REQUEST, RESPONSE-PORT and PADDING get a small 420 to their source."""
    [(answer, destination)] = answers(binding(*attributes), VICTIM, None)
    assert parse(answer).message.get(a.ErrorCode) == a.ErrorCode(420)
    assert destination == VICTIM
    assert len(answer) < 44


@pytest.mark.parametrize("attribute", [a.ResponsePort(40001), a.Padding(bytes(1400))])
def test_s5_on_it_has_a_budget_of_its_own(attribute: a.AnyAttribute) -> None:
    """A thousand requests in the name of a victim bring it ten answers: fewer than plain ones do."""
    found = answers(binding(attribute), VICTIM, Alternates(SERVER, OTHER), times=1000)
    assert len(found) == BEHAVIOUR.burst


@pytest.mark.parametrize("port", sorted({*ANSWERING_PORTS, 22, 80, 443, 1023}))
def test_s5_response_port_reaches_no_service(port: int) -> None:
    """Ports that answer, and all of those below 1024, are not aimed at: a 400 goes to the asker instead."""
    [(answer, destination)] = answers(binding(a.ResponsePort(port)), VICTIM, Alternates(SERVER, OTHER))
    assert parse(answer).message.get(a.ErrorCode) == a.ErrorCode(400)
    assert destination == VICTIM


def test_s5_classic_response_address_aims_at_nobody() -> None:
    """RFC 3489 let a request name any address for its answer: it gets an error at its own."""
    target = b"\0\1" + (80).to_bytes(2, "big") + bytes([198, 51, 100, 1])
    [(answer, destination)] = answers(classic((2, target)), VICTIM, Alternates(SERVER, OTHER))
    assert (answer[:2], destination) == (b"\x01\x11", VICTIM)


# --- the client -----------------------------------------------------------------------------------------


def asked() -> tuple[BindingClient, Message]:
    client = BindingClient(entropy=secrets.token_bytes)
    client.query(SERVER, 0.0, LOCAL)
    transmit = client.next_transmit()
    assert transmit is not None
    return client, parse(transmit.data).message


@pytest.mark.parametrize("target", [Address("44.7.7.7", 3478), Address("192.168.1.1", 80)])
def test_s6_an_unsigned_redirection_changes_nothing(target: Address) -> None:
    """A 300 without integrity is dropped: nothing goes elsewhere, and the true answer still counts."""
    client, request = asked()
    forged = request.answer(MessageClass.ERROR, a.ErrorCode(300), a.AlternateServer(target))
    client.receive(forged.encode(), SERVER, 0.1, LOCAL)
    client.receive(forged.encode(key=b"a key that nobody agreed on"), SERVER, 0.1, LOCAL)
    assert client.counters["unsigned_redirection"] == 2
    assert client.next_event() is None
    client.handle_timeout(0.5)
    again = client.next_transmit()
    assert again is not None
    assert again.destination == SERVER
    true = request.answer(MessageClass.SUCCESS, a.XorMappedAddress(OUTSIDE))
    client.receive(true.encode(), SERVER, 0.6, LOCAL)
    assert client.next_event() == Mapped(OUTSIDE, LOCAL, SERVER)


@pytest.mark.parametrize(
    "case", ["address", "port", "socket", "transaction id", "method", "request", "indication", "truncated"]
)
def test_s8_what_does_not_answer_our_question_is_dropped(case: str) -> None:
    """From elsewhere, to elsewhere, to another question or of another kind: counted, and nothing happens."""
    client, request = asked()
    source, local, method, cls, id_ = (
        SERVER,
        LOCAL,
        Method.BINDING,
        MessageClass.SUCCESS,
        request.transaction_id,
    )
    if case == "address":
        source = Address("44.1.1.9", SERVER.port)
    elif case == "port":
        source = Address(SERVER.host, 3479)
    elif case == "socket":
        local = Address(LOCAL.host, 5001)
    elif case == "transaction id":
        id_ = bytes(12)
    elif case == "method":
        method = Method.ALLOCATE
    elif case == "request":
        cls = MessageClass.REQUEST
    elif case == "indication":
        cls = MessageClass.INDICATION
    data = Message(method, cls, id_, (a.XorMappedAddress(OUTSIDE),)).encode()
    client.receive(data[:-1] if case == "truncated" else data, source, 0.1, local)
    assert client.next_event() is None
    assert sum(client.counters.values()) == 1


def test_s8_late_and_repeated_answers_are_dropped() -> None:
    """One answer counts; a second one and one after a minute are nobody's."""
    client, request = asked()
    answer = request.answer(MessageClass.SUCCESS, a.XorMappedAddress(OUTSIDE)).encode()
    for now in (0.1, 0.2, 60.0):
        client.receive(answer, SERVER, now, LOCAL)
    assert client.next_event() == Mapped(OUTSIDE, LOCAL, SERVER, round_trip=0.1)
    assert client.next_event() is None
    late, request = asked()
    late.handle_timeout(60.0)
    assert late.next_event() == NoAnswer(SERVER, LOCAL)
    late.receive(
        request.answer(MessageClass.SUCCESS, a.XorMappedAddress(OUTSIDE)).encode(), SERVER, 60.0, LOCAL
    )
    assert late.next_event() is None


def test_s9_transaction_ids_are_the_entropys_and_never_repeat() -> None:
    """Each question takes 96 fresh bits; only the repetition of one question has its id again."""
    taken: list[bytes] = []

    def entropy(size: int) -> bytes:
        taken.append(secrets.token_bytes(size))
        return taken[-1]

    client = BindingClient(entropy=entropy)
    seen: list[bytes] = []
    for n in range(2000):
        client.query(Address(f"44.1.{n >> 8}.{n & 255}", 3478), 0.0, LOCAL)
    client.handle_timeout(0.5)
    while (transmit := client.next_transmit()) is not None:
        seen.append(parse(transmit.data).message.transaction_id)
    assert len(seen) == 4000
    assert len(set(seen)) == 2000
    assert set(seen) == set(taken)
    assert {len(id_) for id_ in taken} == {12}
