"""Clients of RFC 3489: what they are answered, and that the answer is no better weapon than others."""

from __future__ import annotations

import struct

import pytest

from crowline.base.addresses import Address
from crowline.stun.responder import Alternates, Responder

CLIENT = Address("203.0.113.5", 40000)
SERVER = Address("192.0.2.1", 3478)
OTHER = Address("192.0.2.2", 3479)
ID = bytes(range(16))
CHANGE_REQUEST, RESPONSE_ADDRESS, USERNAME = 0x0003, 0x0002, 0x0006
MAPPED, SOURCE, CHANGED, ERROR, UNKNOWN = 0x0001, 0x0004, 0x0005, 0x0009, 0x000A


def request(*attributes: tuple[int, bytes], transaction_id: bytes = ID) -> bytes:
    body = b"".join(struct.pack("!HH", number, len(value)) + value for number, value in attributes)
    return b"\x00\x01" + len(body).to_bytes(2, "big") + transaction_id + body


def ask(
    data: bytes, *, alternates: Alternates | None = None, source: Address = CLIENT, local: Address = SERVER
) -> tuple[bytes, Address | None] | None:
    """The bytes of the answer and where it leaves from; ``None`` for silence."""
    responder = Responder(alternates)
    responder.receive(data, source, 0.0, local)
    transmit = responder.next_transmit()
    assert responder.next_transmit() is None
    if transmit is None:
        return None
    assert transmit.destination == source
    return bytes(transmit.data), transmit.local


def read(answer: bytes) -> tuple[int, dict[int, bytes]]:
    kind, length = struct.unpack_from("!HH", answer)
    assert (answer[4:20], length) == (ID, len(answer) - 20)
    found, offset = {}, 20
    while offset < len(answer):
        number, size = struct.unpack_from("!HH", answer, offset)
        found[number] = answer[offset + 4 : offset + 4 + size]
        offset += 4 + size
    return kind, found


def plain(address: Address) -> bytes:
    return b"\0\1" + struct.pack("!H", address.port) + bytes(int(part) for part in address.host.split("."))


def test_one_address_tells_mapping_and_source() -> None:
    """A server with one address says how it sees the client and from where it answers: 44 bytes."""
    answer = ask(request())
    assert answer is not None
    assert read(answer[0]) == (0x0101, {MAPPED: plain(CLIENT), SOURCE: plain(SERVER)})
    assert (len(answer[0]), answer[1]) == (44, SERVER)


@pytest.mark.parametrize(
    ("flags", "origin"),
    [(0, SERVER), (2, Address(SERVER.host, 3479)), (4, Address(OTHER.host, 3478)), (6, OTHER)],
)
def test_two_addresses_honour_change_request(flags: int, origin: Address) -> None:
    """RFC 3489 §8.1: the answer leaves from where the flags say, and names that and the changed address."""
    data = request((CHANGE_REQUEST, flags.to_bytes(4, "big")))
    answer = ask(data, alternates=Alternates(SERVER, OTHER))
    assert answer is not None
    told = {MAPPED: plain(CLIENT), SOURCE: plain(origin), CHANGED: plain(OTHER)}
    assert read(answer[0]) == (0x0101, told)
    assert answer[1] == origin


@pytest.mark.parametrize("alternates", [None, Alternates(SERVER, OTHER)])
def test_answers_stay_below_three_times(alternates: Alternates | None) -> None:
    """No classic answer, an error with many types included, has more than three times the request's bytes."""
    for count in range(16):
        data = request(*((0x0100 + n, b"") for n in range(count)))
        answer = ask(data, alternates=alternates)
        assert answer is not None
        assert len(answer[0]) <= 3 * len(data)


@pytest.mark.parametrize(
    ("attribute", "alternates"),
    [
        ((RESPONSE_ADDRESS, plain(Address("198.51.100.1", 80))), Alternates(SERVER, OTHER)),
        ((CHANGE_REQUEST, b"\0\0\0\6"), None),
    ],
)
def test_what_is_not_done_is_listed(attribute: tuple[int, bytes], alternates: Alternates | None) -> None:
    """RESPONSE-ADDRESS always, CHANGE-REQUEST with one address: a 420 to the source itself."""
    answer = ask(request(attribute), alternates=alternates)
    assert answer is not None
    kind, found = read(answer[0])
    assert (kind, found[ERROR], answer[1]) == (0x0111, b"\0\0\4\x14", SERVER)
    assert set(struct.unpack("!2H", found[UNKNOWN])) == {attribute[0]}


def test_user_names_and_optional_types_are_ignored() -> None:
    """What asks for nothing changes nothing."""
    answer = ask(request((USERNAME, b"user"), (0x8020, bytes(8))))
    assert answer is not None
    assert read(answer[0])[0] == 0x0101


@pytest.mark.parametrize(
    "data",
    [
        request()[:19],
        request() + b"\0\0\0\0",
        b"\x00\x01\x00\x04" + ID,
        request((USERNAME, b"abc"))[:-3],
        b"\x00\x01\x00\x07" + ID + struct.pack("!HH", USERNAME, 3) + b"abc",
        b"\x00\x01\x00\x08" + ID + struct.pack("!HH", USERNAME, 400) + b"abcd",
        request((CHANGE_REQUEST, b"")),
        request(*[(0x8000, b"")] * 17),
        b"\x01\x01" + request()[2:],
        b"\x01\x11" + request()[2:],
        b"\x00\x02" + request()[2:],
    ],
)
def test_other_bytes_without_a_cookie_meet_silence(data: bytes) -> None:
    """Lying lengths, answers and other methods without the cookie are dropped."""
    assert ask(data) is None
    assert ask(data, alternates=Alternates(SERVER, OTHER)) is None


def test_ipv6_has_no_classic_form() -> None:
    """RFC 3489 cannot write an IPv6 address, so such a client gets no answer."""
    assert ask(request(), source=Address("2001:db8::5", 40000)) is None
