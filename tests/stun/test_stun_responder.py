"""The Binding responder: what it answers, and the long list of what it does not."""

from __future__ import annotations

import pytest

import stun_vectors as vectors
from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.stun.responder import BEHAVIOUR, Alternates, Responder

CLIENT = Address("203.0.113.5", 40000)
CLIENT6 = Address("2001:db8::5", 40000)
SERVER = Address("192.0.2.1", 3478)
OTHER = Address("192.0.2.2", 3479)
SERVER6 = Address("2001:db8:1::1", 3478)
OTHER6 = Address("2001:db8:1::2", 3479)
ID = b"transaction!"


def binding(*attributes: a.AnyAttribute, cls: MessageClass = MessageClass.REQUEST) -> bytes:
    return Message(Method.BINDING, cls, ID, attributes).encode()


def ask(
    data: bytes, source: Address = CLIENT, local: Address = SERVER, responder: Responder | None = None
) -> tuple[Message, Address | None, int] | None:
    """The answer, where it leaves from and its size; ``None`` for silence."""
    responder = responder or Responder()
    responder.receive(data, source, 0.0, local)
    transmit = responder.next_transmit()
    assert responder.next_transmit() is None
    if transmit is None:
        return None
    assert transmit.destination == source
    return parse(transmit.data).message, transmit.local, len(transmit.data)


@pytest.mark.parametrize(("client", "size"), [(CLIENT, 32), (CLIENT6, 44)])
def test_binding_tells_the_source_and_nothing_else(client: Address, size: int) -> None:
    """The answer is XOR-MAPPED-ADDRESS only, in the smallest possible message."""
    answer = ask(binding(), client)
    assert answer is not None
    message, local, length = answer
    assert message == Message(Method.BINDING, MessageClass.SUCCESS, ID, (a.XorMappedAddress(client),))
    assert (local, length) == (SERVER, size)


def test_signed_request_is_answered_alike() -> None:
    """Credentials and optional attributes in a Binding request change nothing."""
    answer = ask(vectors.REQUEST)
    assert answer is not None
    assert answer[2] == 32


@pytest.mark.parametrize("cls", [MessageClass.INDICATION, MessageClass.SUCCESS, MessageClass.ERROR])
def test_only_requests_are_answered(cls: MessageClass) -> None:
    """Indications and responses meet silence, so that no two servers can be set on each other."""
    assert ask(binding(cls=cls)) is None


@pytest.mark.parametrize("method", [m for m in Method if m is not Method.BINDING])
def test_only_binding_is_answered(method: Method) -> None:
    """Requests of other methods meet silence here."""
    assert ask(Message(method, MessageClass.REQUEST, ID).encode()) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        binding()[:19],
        binding() + b"\0",
        b"\1\1\0\0" + b"\x21\x12\xa4\x43" + ID,
        b"\x3f\xff\0\0" + binding()[4:],
        b"\x00\x0f\0\0" + binding()[4:],
        b"\x00\x01\0\4" + binding()[4:] + b"\0\x06\0\5",
    ],
)
def test_malformed_and_unknown_meet_silence(data: bytes) -> None:
    """Truncated, cookie-less, of an unknown method or with lying lengths: no answer."""
    responder = Responder()
    assert ask(data, responder=responder) is None
    assert responder.counters["malformed"] == 1


def test_unknown_required_attributes_get_420() -> None:
    """Unknown comprehension-required attributes are listed in a 420; unknown optional ones are nothing."""
    answer = ask(binding(a.UnknownAttribute(0x7F01, b""), a.UnknownAttribute(0x8055, b"")))
    assert answer is not None
    assert answer[0].message_class is MessageClass.ERROR
    assert answer[0].attributes == (a.ErrorCode(420), a.UnknownAttributes((0x7F01,)))


def test_420_stays_small() -> None:
    """However many unknown attributes come, the answer never exceeds three times the request."""
    for count in range(1, 60):
        request = binding(*(a.UnknownAttribute(0x7F00 + n, b"") for n in range(count)))
        answer = ask(request)
        assert answer is not None
        assert answer[2] <= 3 * len(request)


@pytest.mark.parametrize("attribute", [a.ResponsePort(53), a.Padding(bytes(64)), a.ChangeRequest(True, True)])
def test_tools_of_reflection_are_refused_without_an_alternate(attribute: a.Attribute) -> None:
    """Without a second address CHANGE-REQUEST, RESPONSE-PORT and PADDING get a 420 to the source itself."""
    answer = ask(binding(attribute))
    assert answer is not None
    assert answer[0].attributes == (a.ErrorCode(420), a.UnknownAttributes((attribute.type,)))
    assert answer[1] == SERVER


def test_response_port_goes_to_the_same_host() -> None:
    """RESPONSE-PORT sends the answer to another port of its asker, telling the port it asked from."""
    responder = Responder(Alternates(SERVER, OTHER))
    responder.receive(binding(a.ResponsePort(40001)), CLIENT, 0.0, SERVER)
    transmit = responder.next_transmit()
    assert transmit is not None
    assert transmit.destination == Address(CLIENT.host, 40001)
    assert parse(transmit.data).message.get(a.XorMappedAddress) == a.XorMappedAddress(CLIENT)


@pytest.mark.parametrize(
    "attributes",
    [
        (a.ResponsePort(0),),
        (a.ResponsePort(53),),
        (a.ResponsePort(443),),
        (a.ResponsePort(11211),),
        (a.ResponsePort(40001), a.Padding(bytes(64))),
        (a.ResponsePort(CLIENT.port), a.Padding(bytes(64))),
    ],
)
def test_response_port_is_refused_where_it_aims(attributes: tuple[a.AnyAttribute, ...]) -> None:
    """Ports of services, and RESPONSE-PORT together with PADDING, get a 400 to the asker itself."""
    answer = ask(binding(*attributes), responder=Responder(Alternates(SERVER, OTHER)))
    assert answer is not None
    assert answer[0].attributes == (a.ErrorCode(400),)


@pytest.mark.parametrize("size", [0, 4, 64, 1500])
@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
def test_padding_is_answered_with_no_more(size: int, client: Address) -> None:
    """Padding comes back, and never makes an answer longer than its request."""
    request = binding(a.Padding(bytes(size)))
    server, other = (SERVER, OTHER) if client is CLIENT else (SERVER6, OTHER6)
    answer = ask(request, client, server, Responder(Alternates(server, other)))
    assert answer is not None
    padding = answer[0].get(a.Padding)
    assert padding is not None
    assert answer[2] <= 3 * len(request)
    assert padding.value == b"" or answer[2] == len(request)
    assert size < 1500 or padding.value != b""


def test_aiming_and_inflating_have_a_budget_of_their_own() -> None:
    """A source gets a few of them, and one more every half second; plain questions are not touched."""
    responder = Responder(Alternates(SERVER, OTHER))
    for attribute in (a.ResponsePort(40001), a.Padding(bytes(1400))):
        for _ in range(100):
            responder.receive(binding(attribute), CLIENT, 10.0, SERVER)
    answers = 0
    while responder.next_transmit() is not None:
        answers += 1
    assert answers == BEHAVIOUR.burst
    assert ask(binding(), responder=responder) is not None


@pytest.mark.parametrize(
    "asked", [SERVER, OTHER, Address(SERVER.host, OTHER.port), Address(OTHER.host, SERVER.port)]
)
@pytest.mark.parametrize("change_ip", [False, True])
@pytest.mark.parametrize("change_port", [False, True])
def test_change_request_table(asked: Address, change_ip: bool, change_port: bool) -> None:
    """RFC 5780 table 1: the source of the answer, RESPONSE-ORIGIN and OTHER-ADDRESS in all combinations."""
    answer = ask(
        binding(a.ChangeRequest(change_ip, change_port)),
        local=asked,
        responder=Responder(Alternates(SERVER, OTHER)),
    )
    other_host = OTHER.host if asked.host == SERVER.host else SERVER.host
    other_port = OTHER.port if asked.port == SERVER.port else SERVER.port
    origin = Address(other_host if change_ip else asked.host, other_port if change_port else asked.port)
    assert answer is not None
    assert answer[0].attributes == (
        a.XorMappedAddress(CLIENT),
        a.OtherAddress(Address(other_host, other_port)),
        a.ResponseOrigin(origin),
        a.MappedAddress(CLIENT),
    )
    assert answer[1] == origin


def test_plain_request_learns_the_alternate() -> None:
    """With a second address every answer carries OTHER-ADDRESS and RESPONSE-ORIGIN, within three times."""
    answer = ask(binding(), responder=Responder(Alternates(SERVER, OTHER)))
    assert answer is not None
    assert answer[0].get(a.OtherAddress) == a.OtherAddress(OTHER)
    assert answer[0].get(a.ResponseOrigin) == a.ResponseOrigin(SERVER)
    assert answer[2] <= 3 * len(binding())


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
def test_behaviour_answers_stay_below_three_times(client: Address, count: int) -> None:
    """What fits is told, the other address first; nothing goes beyond three times the request."""
    request = binding(*(a.UnknownAttribute(0x8055, b"") for _ in range(count)))
    server, other = (SERVER, OTHER) if client is CLIENT else (SERVER6, OTHER6)
    answer = ask(request, client, server, Responder(Alternates(server, other)))
    assert answer is not None
    assert answer[2] <= 3 * len(request)
    assert answer[0].get(a.OtherAddress) is not None or (client is CLIENT6 and count == 0)


def test_an_address_beside_the_four_has_no_alternate() -> None:
    """Asked on an address that is not one of the four, the server behaves as without an alternate."""
    aside = Address("192.0.2.9", 3478)
    answer = ask(binding(), local=aside, responder=Responder(Alternates(SERVER, OTHER)))
    assert answer is not None
    assert (answer[0].attributes, answer[1]) == ((a.XorMappedAddress(CLIENT),), aside)
