"""TCP through virtual translators: listening, refusal, simultaneous open, messages in order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import NatBehaviour, UnsolicitedSyn
from crowline.lab.impairment import Impairment
from crowline.lab.presets import HOME, SYMMETRIC
from crowline.lab.virtual import Internet
from crowline.lab.virtual_tcp import Connection, State, TcpHost

SERVER = Address("198.51.100.1", 443)
REFUSING = replace(HOME, unsolicited_syn=UnsolicitedSyn.RST)


@dataclass
class Told:
    """What a connection told its owner, with times."""

    internet: Internet
    opened: float | None = None
    messages: list[bytes] = field(default_factory=list)
    closed: str = ""
    closed_at: float | None = None

    def on_open(self) -> None:
        self.opened = self.internet.now

    def on_message(self, data: bytes) -> None:
        self.messages.append(data)

    def on_closed(self, reason: str) -> None:
        assert not self.closed
        self.closed, self.closed_at = reason, self.internet.now


def listener(internet: Internet) -> list[tuple[Connection, Told]]:
    """A server; the connections that it accepts."""
    accepted: list[tuple[Connection, Told]] = []
    host = internet.host(SERVER.host)

    def accept(connection: Connection) -> None:
        told = Told(internet)
        connection.stream = told
        accepted.append((connection, told))

    TcpHost(internet, host).listen(SERVER, accept)
    return accepted


def client(internet: Internet, number: int, behaviour: NatBehaviour | None = HOME) -> TcpHost:
    """A host, behind a translator with the outside address 203.0.113.NUMBER or with that address itself."""
    outside = f"203.0.113.{number}"
    if behaviour is None:
        return TcpHost(internet, internet.host(outside))
    return TcpHost(internet, internet.host(f"192.168.{number}.2", internet.site(behaviour, outside)))


def local(tcp: TcpHost, port: int = 0) -> Address:
    return Address(tcp.host.name, port)


def punch(
    internet: Internet, one: NatBehaviour, other: NatBehaviour, *, skew: float = 0.0, hops: int | None = None
) -> tuple[Told, Told]:
    """Both sides connect to each other's outside address, the second one `skew` seconds later."""
    sides = (client(internet, 1, one), client(internet, 2, other))
    told = (Told(internet), Told(internet))
    for index, tcp in enumerate(sides):
        remote = Address(f"203.0.113.{2 - index}", 5000)
        internet.call_at(index * skew, _connect, tcp, remote, told[index], hops)
    internet.run(limit=30.0)
    return told


def _connect(tcp: TcpHost, remote: Address, told: Told, hops: int | None) -> None:
    tcp.connect(remote, local(tcp, 5000), told, hops=hops)


def test_a_connection_stands_after_one_round_trip() -> None:
    """The client's end after a round trip, the server's half a one later; the server sees the outside."""
    internet = Internet(delay=0.03)
    accepted = listener(internet)
    told = Told(internet)
    client_tcp = client(internet, 1)
    connection = client_tcp.connect(SERVER, local(client_tcp, 40000), told)
    internet.run(limit=5.0)
    ((server_end, server_told),) = accepted
    assert (told.opened, server_told.opened) == (pytest.approx(0.06), pytest.approx(0.09))
    assert server_end.remote == Address("203.0.113.1", 40000)
    assert (connection.state, server_end.state) == (State.ESTABLISHED, State.ESTABLISHED)


def test_messages_arrive_in_order_and_apart_in_spite_of_loss() -> None:
    """A third of all packets lost, both ways, and some overtaken: everything comes once and in order."""
    internet = Internet(3, loss=0.3)
    accepted = listener(internet)
    told = Told(internet)
    tcp = client(internet, 1)
    bumpy = Impairment(reorder=0.3, reorder_delay=0.05, duplicate=0.2)
    internet.set_line(internet.root.sites["203.0.113.1"], up=bumpy, down=bumpy)
    connection = tcp.connect(SERVER, local(tcp), told)
    sent = [number.to_bytes(2, "big") for number in range(60)]
    for number, data in enumerate(sent):
        internet.call_at(number * 0.01, connection.send, data)
    internet.run(limit=120.0)
    ((server_end, server_told),) = accepted
    assert server_told.messages == sent
    for data in sent:
        server_end.send(data)
    internet.run(limit=120.0)
    assert told.messages == sent


def test_what_is_sent_before_the_connection_stands_waits() -> None:
    """The client's first message goes right behind its acknowledgement."""
    internet = Internet(delay=0.01)
    accepted = listener(internet)
    tcp = client(internet, 1)
    tcp.connect(SERVER, local(tcp), Told(internet)).send(b"first")
    internet.run(limit=1.0)
    assert accepted[0][1].messages == [b"first"]


def test_closing_tells_the_other_end_after_the_messages() -> None:
    """Everything that was sent before arrives before the end does."""
    internet = Internet()
    accepted = listener(internet)
    tcp = client(internet, 1)
    connection = tcp.connect(SERVER, local(tcp), Told(internet))
    internet.run(limit=1.0)
    connection.send(b"last words")
    connection.close()
    internet.run(limit=1.0)
    assert (accepted[0][1].messages, accepted[0][1].closed) == ([b"last words"], "closed")


def test_a_port_without_a_listener_refuses() -> None:
    """RST after one round trip (RFC 9293 §3.10.7.1)."""
    internet = Internet(delay=0.02)
    listener(internet)
    told, tcp = Told(internet), client(internet, 1)
    tcp.connect(Address(SERVER.host, 80), local(tcp), told)
    internet.run(limit=5.0)
    assert (told.closed, told.closed_at) == ("refused", pytest.approx(0.04))


def test_an_address_where_nobody_is_times_out() -> None:
    """The SYN is repeated as Linux does it, and then given up."""
    internet = Internet()
    told, tcp = Told(internet), client(internet, 1)
    syns: list[float] = []
    internet.observe = lambda now, packet: syns.append(now)
    tcp.connect(Address("198.51.100.99", 80), local(tcp), told)
    internet.run(limit=60.0)
    assert told.closed == "timed out"
    assert syns == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 11.0]


@pytest.mark.parametrize(
    ("how", "closed"),
    [
        (UnsolicitedSyn.DROP, "timed out"),
        (UnsolicitedSyn.RST, "refused"),
        (UnsolicitedSyn.ICMP, "unreachable"),
    ],
)
def test_an_unsolicited_syn_is_answered_as_the_translator_does(how: UnsolicitedSyn, closed: str) -> None:
    """RFC 5382 REQ-4 and its two violations, told to the sender through its own translator."""
    internet = Internet()
    client(internet, 2, replace(HOME, unsolicited_syn=how))
    told, tcp = Told(internet), client(internet, 1)
    tcp.connect(Address("203.0.113.2", 5000), local(tcp), told)
    internet.run(limit=60.0)
    assert told.closed == closed
    if closed != "timed out":
        assert told.closed_at == pytest.approx(0.04)


@pytest.mark.parametrize("skew", [0.0, 0.015, 0.1, 0.5])
def test_simultaneous_open_works_where_unsolicited_syns_are_dropped(skew: float) -> None:
    """One round trip after the later side, or at the first repeat of the earlier one's SYN."""
    one, other = punch(Internet(delay=0.02), HOME, HOME, skew=skew)
    assert one.opened is not None and other.opened is not None
    assert max(one.opened, other.opened) == pytest.approx(skew + 0.04, abs=0.0211)


@pytest.mark.parametrize(("skew", "works"), [(0.0, True), (0.015, True), (0.025, False), (0.1, False)])
def test_simultaneous_open_against_rst_needs_a_skew_below_the_delay(skew: float, works: bool) -> None:
    """A SYN that arrives before the other side's has left is refused, and that ends the first side."""
    one, other = punch(Internet(delay=0.02), REFUSING, REFUSING, skew=skew)
    assert (one.opened is not None) is works
    assert one.closed == ("" if works else "refused")
    assert (other.opened is not None) is works


def test_simultaneous_open_fails_through_a_symmetric_translator() -> None:
    """Its port towards the other side is another one than anybody could name."""
    one, other = punch(Internet(delay=0.02), SYMMETRIC, HOME)
    assert one.opened is None and other.opened is None


def test_a_syn_with_few_hops_opens_its_own_translator_and_dies_on_the_way() -> None:
    """The router that drops it says so by ICMP; the other side hears nothing."""
    internet = Internet(delay=0.02)
    accepted = listener(internet)
    told, tcp = Told(internet), client(internet, 1)
    tcp.connect(SERVER, local(tcp, 5000), told, hops=4)
    internet.run(limit=30.0)
    assert told.closed == "time exceeded"
    assert accepted == []
    assert internet.counters["expired"] == 1
    # The hole is open: what comes from the server's address to the mapping is let in.
    site = internet.root.sites["203.0.113.1"]
    assert site.boundary is not None
    assert site.boundary.inbound(6, SERVER, Address("203.0.113.1", 5000), internet.now) is not None


def test_an_established_connection_shrugs_off_icmp() -> None:
    """Hard errors end only what is being opened (RFC 1122 §4.2.3.9), and RST ends anything."""
    from crowline.lab.segment import Flag, Segment

    internet = Internet()
    accepted = listener(internet)
    tcp = client(internet, 1)
    connection = tcp.connect(SERVER, local(tcp), Told(internet))
    internet.run(limit=1.0)
    connection.receive(Segment(Flag.UNREACHABLE))
    assert connection.state is State.ESTABLISHED
    accepted[0][0].receive(Segment(Flag.RST))
    assert accepted[0][1].closed == "reset"


def test_a_lost_syn_ack_is_sent_again() -> None:
    """The server repeats it by itself; the client needs no second SYN for that."""
    internet = Internet(delay=0.02)
    accepted = listener(internet)
    told, tcp = Told(internet), client(internet, 1)
    place = internet.root.sites["203.0.113.1"]
    internet.set_line(place, up=Impairment(), down=Impairment(loss=1.0))
    tcp.connect(SERVER, local(tcp), told)
    internet.run(limit=0.5)
    internet.set_line(place, up=Impairment(), down=Impairment())
    internet.run(limit=5.0)
    assert told.opened is not None and accepted[0][1].opened is not None


def test_a_way_that_dies_ends_the_connection_in_the_end() -> None:
    """Messages that are lost again and again are given up, and the sender is told."""
    internet = Internet()
    listener(internet)
    told, tcp = Told(internet), client(internet, 1)
    connection = tcp.connect(SERVER, local(tcp), told)
    internet.run(limit=1.0)
    internet.loss = 1.0
    connection.send(b"anybody there?")
    internet.run(limit=600.0)
    assert (told.closed, connection.state) == ("timed out", State.CLOSED)


def test_a_pair_of_addresses_is_used_once() -> None:
    """EADDRNOTAVAIL, and nobody listens twice or on an address of somebody else."""
    internet = Internet()
    listener(internet)
    tcp = client(internet, 1)
    tcp.connect(SERVER, local(tcp, 5000), Told(internet))
    with pytest.raises(UsageError):
        tcp.connect(SERVER, local(tcp, 5000), Told(internet))
    with pytest.raises(UsageError):
        tcp.connect(SERVER, Address("203.0.113.77", 1), Told(internet))
    tcp.listen(local(tcp, 80), lambda connection: None)
    with pytest.raises(UsageError):
        tcp.listen(local(tcp, 80), lambda connection: None)


def test_what_is_sent_at_one_time_fits_into_segments() -> None:
    """A line for small packets lets it through, in order."""
    internet = Internet(1, delay=0.01)
    accepted = listener(internet)
    tcp = client(internet, 1, None)
    internet.set_line(tcp.host, up=Impairment(mtu=1300), down=Impairment())
    told = Told(internet)
    connection = tcp.connect(SERVER, local(tcp), told)
    messages = [bytes([number]) * 300 for number in range(20)]
    for message in messages:
        connection.send(message)
    internet.run(limit=1.0)
    assert accepted[0][1].messages == messages
