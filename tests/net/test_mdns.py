"""Names for addresses by multicast: the messages, who is answered, and what others can make this side do."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from crowline.base.addresses import Address
from crowline.base.mdns_name import is_mdns_name, mdns_name
from crowline.net import mdns
from crowline.net.dns_message import (
    AAAA,
    ANY,
    LEGACY_TTL,
    MAX_POINTERS,
    MAX_RECORDS,
    SRV,
    A,
    DnsMessage,
    MalformedDns,
    Question,
    parse,
    write_answer,
    write_legacy_answer,
    write_query,
    write_service_answer,
    write_service_query,
)
from crowline.net.mdns import MAX_QUESTIONS, MdnsNames

NAME = mdns_name(bytes(range(16)))
OTHER = mdns_name(bytes(16))


def test_a_query_asks_for_both_kinds_of_addresses() -> None:
    """By multicast, number zero (RFC 6762 §18.1)."""
    assert parse(write_query(NAME)) == DnsMessage(0, False, [Question(NAME, A), Question(NAME, AAAA)])


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_an_answer_has_the_address(host: str) -> None:
    """Of both families, with the bit that says that there is no other (RFC 6762 §10.2)."""
    data = write_answer(NAME, host)
    assert parse(data) == DnsMessage(0, True, [], [(NAME, host)])
    assert data[12 + len(NAME) + 2 :][2:4] == b"\x80\x01"


def test_a_legacy_answer_repeats_number_and_question() -> None:
    """As usual name servers do, and to be remembered for a short time (RFC 6762 §6.7)."""
    data = write_legacy_answer(Question(NAME, A), 4711, "192.0.2.7")
    assert parse(data) == DnsMessage(4711, True, [Question(NAME, A)], [(NAME, "192.0.2.7")])
    assert struct.pack("!I", LEGACY_TTL) in data


def test_names_may_be_compressed_and_in_capitals() -> None:
    """An answer that points back to its question (RFC 1035 §4.1.4), with another record before it."""
    record = struct.pack("!HHIH", 16, 1, 120, 3) + b"\x02hi"
    address = struct.pack("!HHIH", A, 1, 120, 4) + ipaddress.ip_address("192.0.2.7").packed
    name = b"\x05OTHER\x05LOCAL\0"
    data = struct.pack("!6H", 0, 0x8400, 1, 1, 0, 1) + name + struct.pack("!HH", A, 1)
    data += b"\xc0\x0c" + record + b"\xc0\x0c" + address
    assert parse(data).addresses == [("other.local", "192.0.2.7")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        write_query(NAME)[:-1],
        write_answer(NAME, "192.0.2.7")[:-1],
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\xc0\x0c" + bytes(4),
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\xc0\xff" + bytes(4),
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\x40" + bytes(80),
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + bytes(5),
        struct.pack("!6H", 0, 0x2800, 0, 0, 0, 0),
    ],
    ids=["empty", "cut query", "cut answer", "loop", "forward", "unknown label", "too long", "update"],
)
def test_broken_messages_are_refused(data: bytes) -> None:
    """None of them is read to an end that does not come."""
    with pytest.raises(MalformedDns):
        parse(data)


def chained(pointers: int) -> bytes:
    """An address whose name is so many pointers away from its only label; they lie in the record before."""
    head = struct.pack("!6H", 0, 0x8000, 0, 2, 0, 0)
    text = b"\x01a\0" + struct.pack("!HHIH", 16, 1, 0, 2 * (pointers - 1))
    start = len(head) + len(text)
    places = [len(head), *range(start, start + 2 * (pointers - 1), 2)]
    chain = b"".join(struct.pack("!H", 0xC000 | place) for place in places)
    return head + text + chain + struct.pack("!HHIH", A, 1, 0, 4) + bytes(4)


def test_a_name_of_many_pointers_is_refused() -> None:
    """Each record of a message could have one of thousands, all to be followed."""
    assert parse(chained(MAX_POINTERS)).addresses == [("a", "0.0.0.0")]
    with pytest.raises(MalformedDns):
        parse(chained(MAX_POINTERS + 1))


def test_a_message_of_thousands_of_records_is_read_to_a_bound() -> None:
    """What comes after is not looked at."""
    record = b"\x01a\0" + struct.pack("!HHIH", A, 1, 120, 4) + bytes(4)
    data = struct.pack("!6H", 0, 0x8400, 0, 5000, 0, 0) + record * 5000
    assert len(parse(data).addresses) == MAX_RECORDS


SERVICE = "11111111-2222._crowline._tcp.local"


def test_a_service_has_a_port() -> None:
    """Asked for by its name, and told with the name of the machine that has it (RFC 2782)."""
    assert parse(write_service_query(SERVICE)) == DnsMessage(0, False, [Question(SERVICE, SRV)])
    data = write_service_answer(SERVICE, 4711, NAME)
    assert parse(data) == DnsMessage(0, True, [], [], [(SERVICE, 4711)])
    with pytest.raises(MalformedDns):
        parse(data[:-1])


# --- sockets, on loopback alone -------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    """One that no other program uses, so that parallel runs do not hear each other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


@pytest.fixture
async def here(port: int) -> AsyncIterator[MdnsNames]:
    with closing(MdnsNames(["127.0.0.1"], port=port)) as names:
        yield names


@pytest.fixture
async def there(port: int) -> AsyncIterator[MdnsNames]:
    with closing(MdnsNames(["127.0.0.1"], port=port)) as names:
        yield names


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "RESOLVE_LIMIT", 30.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "REPEATS", ())
    monkeypatch.setattr(mdns, "RESOLVE_LIMIT", 0.2)


async def test_a_name_leads_to_its_address(here: MdnsNames, there: MdnsNames, patient: None) -> None:
    """And is the same for the same address, random for another."""
    name = here.name_of("192.0.2.7")
    assert is_mdns_name(name) and here.name_of("192.0.2.7") == name
    assert here.name_of("192.0.2.8") != name
    assert await there.resolve(name.upper()) == "192.0.2.7"


async def test_the_name_of_an_address_that_is_gone_leads_nowhere(
    here: MdnsNames, there: MdnsNames, impatient: None
) -> None:
    """Whoever has the address next is somebody else."""
    name = here.name_of("192.0.2.7")
    here.follow(["127.0.0.1"])
    assert await there.resolve(name) is None


async def test_a_name_that_nobody_has_is_given_up(here: MdnsNames, impatient: None) -> None:
    """In time, and another question can be asked then."""
    assert await here.resolve(NAME) is None
    assert not here._searches


async def test_only_random_names_are_looked_for(here: MdnsNames) -> None:
    """Others would tell the other side who else is on this network."""
    assert await here.resolve("printer.local") is None
    assert await here.resolve("example.org") is None


async def test_questions_at_a_time_are_bounded(here: MdnsNames, impatient: None) -> None:
    """The one too many is not asked at all."""
    waiting = [asyncio.create_task(here.resolve(mdns_name(bytes([n] * 16)))) for n in range(MAX_QUESTIONS)]
    await asyncio.sleep(0)
    assert len(here._searches) == MAX_QUESTIONS
    assert await here.resolve(NAME) is None
    assert len(here._searches) == MAX_QUESTIONS
    assert await asyncio.gather(*waiting) == [None] * MAX_QUESTIONS


async def test_a_service_is_found_where_the_answer_came_from(
    here: MdnsNames, there: MdnsNames, patient: None
) -> None:
    """In any case of letters; the one that was announced and no other."""
    here.announce(SERVICE, 4711)
    assert await there.find(SERVICE.upper()) == Address("127.0.0.1", 4711)


async def test_a_service_that_nobody_has_is_given_up(
    here: MdnsNames, there: MdnsNames, impatient: None
) -> None:
    """Whoever has another one says nothing."""
    here.announce(SERVICE, 4711)
    assert await there.find("2" + SERVICE[1:]) is None
    assert not there._finds


@pytest.mark.parametrize("port", [0, 80, 1023])
async def test_a_service_is_not_at_a_port_of_well_known_ones(
    here: MdnsNames, there: MdnsNames, impatient: None, port: int
) -> None:
    """Whoever forges the address of a neighbour has nobody connect to its printer."""
    here.announce(SERVICE, port)
    assert await there.find(SERVICE) is None


async def test_closing_ends_the_search(here: MdnsNames, patient: None) -> None:
    """Whoever waits gets nothing."""
    waiting = asyncio.create_task(here.resolve(NAME))
    await asyncio.sleep(0)
    here.close()
    assert await waiting is None


async def search(names: MdnsNames) -> asyncio.Task[str | None]:
    """Looking for `NAME`, and begun."""
    waiting = asyncio.create_task(names.resolve(NAME))
    await asyncio.sleep(0)
    return waiting


class Desk:
    """Names with what they would send."""

    def __init__(self, names: MdnsNames, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[bytes] = []
        self.answers: list[tuple[Question, int, str]] = []
        self.names = names
        self.name = names.name_of("192.0.2.7")
        monkeypatch.setattr(names, "_to_all", self._tell)
        monkeypatch.setattr(names, "_answer_one", lambda sock, *said: self.answers.append(said[:3]))

    def _tell(self, data: bytes, interfaces: set[int]) -> None:
        if interfaces:
            self.told.append(data)

    def receive(self, message: DnsMessage, port: int) -> None:
        source = ("127.0.0.1", port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            self.names._on_message(sock, message, source, self.names._near(source))


async def test_questions_are_answered_once_a_second_to_all(
    here: MdnsNames, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the kind of address that there is; a flood of questions makes no flood of answers."""
    desk = Desk(here, monkeypatch)
    desk.receive(DnsMessage(questions=[Question(desk.name, AAAA), Question(OTHER, A)]), port)
    assert desk.told == []
    for kind in (A, ANY, A):
        desk.receive(DnsMessage(questions=[Question(desk.name, kind)]), port)
    assert desk.told == [write_answer(desk.name, "192.0.2.7")]


async def test_who_asks_from_another_port_is_answered_alone(
    here: MdnsNames, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 6762 §6.7: a program that knows of no multicast DNS."""
    desk = Desk(here, monkeypatch)
    asked = Question(desk.name, A)
    desk.receive(DnsMessage(4711, questions=[asked]), port ^ 1)
    assert (desk.told, desk.answers) == ([], [(asked, 4711, "192.0.2.7")])


async def test_answers_come_from_the_port_and_from_nearby(here: MdnsNames, port: int, patient: None) -> None:
    """RFC 6762 §11: neither a program without rights nor a host elsewhere may say where a name leads."""
    waiting = await search(here)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        here._on_message(sock, parse(write_answer(NAME, "192.0.2.9")), ("127.0.0.1", port ^ 1), {1})
        here._on_message(sock, parse(write_answer(NAME, "192.0.2.7")), ("127.0.0.1", port), {1})
    assert await waiting == "192.0.2.7"
    assert here._near(("127.0.0.2", port))
    assert not here._near(("8.8.8.8", port))


async def test_ipv6_comes_first_where_an_answer_has_both(here: MdnsNames, patient: None) -> None:
    """And of an address that comes later nothing is taken."""
    waiting = await search(here)
    here._on_addresses(DnsMessage(0, True, [], [(NAME, "192.0.2.7"), (NAME, "2001:db8::7")]))
    here._on_addresses(DnsMessage(0, True, [], [(NAME, "192.0.2.8")]))
    assert await waiting == "2001:db8::7"


async def test_who_asks_for_many_names_at_once_is_answered_for_one(
    here: MdnsNames, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose address was forged is not flooded with an answer for each of 64 short questions."""
    desk = Desk(here, monkeypatch)
    desk.receive(DnsMessage(4711, questions=[Question(desk.name, A)] * MAX_RECORDS), port ^ 1)
    assert len(desk.answers) == 1


async def test_an_answer_goes_to_the_network_that_asked(
    here: MdnsNames, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody on another one is told the address, and who asks there next is not kept waiting."""
    sent: list[tuple[int, bytes]] = []

    class Way:
        def __init__(self, index: int) -> None:
            self.index = index

        def send(self, data: bytes, port: int) -> None:
            sent.append((self.index, data))

    name = here.name_of("192.0.2.7")
    networks = [("192.0.2.0/24", 2), ("fe80::/64", 2), ("fe80::/64", 3)]
    monkeypatch.setattr(here, "_networks", [(ipaddress.ip_network(text), index) for text, index in networks])
    monkeypatch.setattr(here, "_ways", [Way(2), Way(3)])
    answer = write_answer(name, "192.0.2.7")
    sources = [("192.0.2.9", port), ("fe80::9%eth1", port, 0, 3), ("fe80::9%eth1", port, 0, 3)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for source in sources:
            here._on_message(sock, parse(write_query(name)), source, here._near(source))
    assert sent == [(2, answer), (3, answer)]


async def test_who_begins_to_look_for_a_name_later_goes_on_longer(
    here: MdnsNames, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller's end is not that of another one's search."""
    first, second = await search(here), await search(here)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    here._on_addresses(DnsMessage(0, True, [], [(NAME, "192.0.2.7")]))
    assert await second == "192.0.2.7"
    assert not here._searches
