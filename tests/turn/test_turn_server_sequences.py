"""Clients of every kind, peers, streams and time in any order: what the server machine holds adds up."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.budget import Allowance
from crowline.stun.message import MessageClass, Method, parse
from crowline.turn.quota import Limits
from crowline.turn.server_events import Dial, HangUp, Splice
from turn_pair import CLIENT, PEER, PEER_6, SERVER, Caller, World, dual_ports

PLACES = [
    (CLIENT, Transport.UDP), (Address("44.2.2.3", 5000), Transport.UDP), (CLIENT, Transport.TCP),
    (Address("44.2.2.3", 5000), Transport.TCP), (Address("2a01:4f8:2::2", 5000), Transport.TLS),
]  # fmt: skip
PEERS = [PEER, PEER_6, Address("44.9.9.8", 80)]

places = st.integers(0, len(PLACES) - 1)
numbers = st.integers(0, 3)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("allocate"),
            places,
            st.sampled_from([6, 17]),
            st.lists(
                st.sampled_from([
                    a.EvenPort(True), a.EvenPort(False), a.MobilityTicket(b""), a.AdditionalAddressFamily(2),
                    a.RequestedAddressFamily(2),
                ]),
                max_size=2,
                unique=True,
            ),
        ),
        st.tuples(st.just("claim"), places, numbers),
        st.tuples(st.just("move"), places, numbers),
        st.tuples(st.just("refresh"), places, st.sampled_from([None, 0]), st.sampled_from([None, 1, 2])),
        st.tuples(st.just("permit"), places, st.sampled_from(PEERS)),
        st.tuples(st.just("bind"), places, numbers, st.sampled_from(PEERS)),
        st.tuples(st.just("data"), places, numbers),
        st.tuples(st.just("connect"), places, st.sampled_from(PEERS)),
        st.tuples(st.just("join"), places, numbers),
        st.tuples(st.just("dialled"), numbers, st.booleans()),
        st.tuples(st.just("hang up"), numbers),
        st.tuples(st.just("peer"), st.sampled_from(PEERS)),
        st.tuples(st.just("disconnect"), places),
        st.tuples(st.just("time"), st.sampled_from([1.0, 29.0, 31.0, 290.0, 700.0])),
    ),
    max_size=30,
)  # fmt: skip


class Players:
    """Everybody who speaks to one server, and what they have learned from it."""

    def __init__(self) -> None:
        limits = Limits(allocations_per_user=6, allocations_per_source=5, connections=3)
        self.world = World(ports=dual_ports(), limits=limits, allowance=Allowance(1e9, 1e9))
        self.callers = [Caller(self.world, address, transport=by) for address, by in PLACES]
        self.tokens: list[bytes] = []
        self.tickets: list[bytes] = []
        self.connections: list[int] = []

    def ask(self, place: int, method: Method, *attributes: a.AnyAttribute) -> None:
        """A request of whoever is at `place`, with a fresh nonce."""
        caller = self.callers[place]
        server, is_spliced = self.world.server, self.world.server.counters["dropped_spliced"]
        caller.nonce = server._authenticator.challenge(caller.address, self.world.now)[1].value
        caller.give(caller.signed(method, *attributes))
        if server.counters["dropped_spliced"] == is_spliced:
            self.learn()

    def learn(self) -> None:
        """Take everything that the server says and wants done."""
        server, places = self.world.server, {(c.address, c.transport) for c in self.callers}
        while (transmit := server.next_transmit()) is not None:
            if transmit.local != SERVER:
                assert transmit.local in self.world.ports.opened
                assert transmit.destination in PEERS
                continue
            assert (transmit.destination, transmit.transport) in places
            data = bytes(transmit.data)
            if data[0] & 0xC0:
                continue
            message = parse(data).message
            if message.message_class is MessageClass.SUCCESS:
                self.tokens += [each.token for each in message.get_all(a.ReservationToken)]
                self.tickets += [each.value for each in message.get_all(a.MobilityTicket)]
        while (event := server.next_event()) is not None:
            assert isinstance(event, Dial | Splice | HangUp)
            if isinstance(event, Dial):
                assert event.relayed in self.world.ports.opened_tcp
                self.connections.append(event.connection)

    def check(self) -> None:
        """Ports, quotas, tickets and connections belong to what lives, each exactly once."""
        holdings, ports = self.world.server._holdings, self.world.ports
        relays = [(r.address, r.transport) for each in holdings.allocations for r in each.relays]
        reserved = [(r.address, Transport.UDP) for r in holdings.reservations._by_token.values()]
        opened = [(address, Transport.UDP) for address in ports.opened]
        opened += [(address, Transport.TCP) for address in ports.opened_tcp]
        assert sorted(relays + reserved, key=str) == sorted(opened, key=str)
        assert holdings.quota.held == len(opened)
        assert sum(holdings.quota._sources.values()) == len(opened)
        live = set(holdings.allocations)
        assert not any(each.is_over for each in live)
        assert set(holdings.tickets._values) <= live
        assert {used.allocation for used in holdings.tickets._used.values()} <= live
        assert set(holdings.connections._by_allocation) <= live
        table = holdings.allocations._by_client
        assert set(table.values()) <= live
        assert len(table) == sum(e.is_attached + (e.moving_to is not None) for e in live)
        by_user = {user: set(own) for user, own in holdings.allocations._by_user.items()}
        assert by_user == {user: {e for e in live if e.user == user} for user in {e.user for e in live}}
        assert all(set(holdings.allocations.of_user(user)) == own for user, own in by_user.items())


def pick(known: list[bytes], number: int, size: int) -> bytes:
    """One of the last things learned; nonsense where there are not so many."""
    return known[-1 - number] if number < len(known) else bytes(size)


def perform(players: Players, step: tuple[object, ...]) -> None:
    world, server = players.world, players.world.server
    match step:
        case ("allocate", int() as place, int() as protocol, list() as attributes):
            players.ask(place, Method.ALLOCATE, a.RequestedTransport(protocol), *attributes)
        case ("claim", int() as place, int() as number):
            token = a.ReservationToken(pick(players.tokens, number, 8))
            players.ask(place, Method.ALLOCATE, a.RequestedTransport(17), token)
        case ("move", int() as place, int() as number):
            players.ask(place, Method.REFRESH, a.MobilityTicket(pick(players.tickets, number, 16)))
        case ("refresh", int() as place, lifetime, family):
            wish = [] if lifetime is None else [a.Lifetime(0)]
            named = [a.RequestedAddressFamily(family)] if isinstance(family, int) else []
            players.ask(place, Method.REFRESH, *wish, *named)
        case ("permit", int() as place, Address() as peer):
            players.ask(place, Method.CREATE_PERMISSION, a.XorPeerAddress(peer))
        case ("bind", int() as place, int() as number, Address() as peer):
            channel = a.ChannelNumber(0x4000 + number)
            players.ask(place, Method.CHANNEL_BIND, channel, a.XorPeerAddress(peer))
        case ("data", int() as place, int() as number):
            players.callers[place].give(b"\x40" + bytes([number]) + b"\0\1x")
        case ("connect", int() as place, Address() as peer):
            players.ask(place, Method.CONNECT, a.XorPeerAddress(peer))
        case ("join", int() as place, int() as number) if number < len(players.connections):
            number = players.connections[-1 - number]
            players.ask(place, Method.CONNECTION_BIND, a.ConnectionId(number))
        case ("dialled", int() as number, bool() as is_open) if number < len(players.connections):
            told: Callable[[int, float], None] = server.dialled if is_open else server.dial_failed
            told(players.connections[-1 - number], world.now)
        case ("hang up", int() as number) if number < len(players.connections):
            server.connection_closed(players.connections[-1 - number], world.now)
        case ("peer", Address() as peer):
            for relayed in list(world.ports.opened):
                server.receive_from_peer(b"x", peer, world.now, relayed)
                server.receive_icmp(relayed, peer, 3, 1, 0, world.now)
            for relayed in list(world.ports.opened_tcp):
                number = server.peer_connected(relayed, peer, world.now)
                players.connections += [] if number is None else [number]
        case ("disconnect", int() as place):
            address, transport = PLACES[place]
            if transport.is_stream:
                server.disconnect(address, SERVER, transport, world.now)
        case ("time", float() as seconds):
            world.now += seconds
            server.handle_timeout(world.now)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_what_the_server_holds_adds_up(sequence: list[tuple[object, ...]]) -> None:
    """After each step every port, charge, ticket and connection has its owner; at the end nothing is left."""
    players = Players()
    for step in sequence:
        perform(players, step)
        players.learn()
        players.check()
    server = players.world.server
    for end in (4_000.0, 8_000.0):
        server.handle_timeout(players.world.now + end)
    players.learn()
    players.check()
    assert server.is_idle
    assert server.next_timeout() is None
    assert len(server._holdings.connections) == 0
    assert len(server._holdings.tickets) == 0


def test_the_sequences_reach_what_they_are_about() -> None:
    """The control of the test above: its steps do allocate, move, claim, dial, splice and meet peers."""
    players = Players()
    script: list[tuple[object, ...]] = [
        ("allocate", 0, 17, [a.EvenPort(True), a.MobilityTicket(b"")]), ("claim", 3, 0), ("move", 1, 0),
        ("permit", 0, PEER), ("bind", 0, 0, PEER), ("data", 1, 0), ("allocate", 2, 6, []),
        ("connect", 2, PEER), ("dialled", 0, True), ("join", 4, 0),
    ]  # fmt: skip
    for step in script:
        perform(players, step)
        players.learn()
        players.check()
    server = players.world.server
    assert len(server.allocations) == 3
    assert server.counters["moved"] == 1
    moved = server.allocations.of_client(*[PLACES[1][0], SERVER])
    assert moved is not None
    assert moved.client == PLACES[1][0]
    assert server.is_busy(PLACES[4][0], SERVER, Transport.TLS)
