"""The TURN client beyond one address over UDP: streams, two families, tickets, redirections, lost servers."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import MalformedStun, Message, MessageClass, Method, parse
from crowline.turn.alternates import MAX_REDIRECTIONS, Alternates
from crowline.turn.auth import issue_credentials
from crowline.turn.client import TurnClient
from crowline.turn.events import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    ChannelBound,
    DataReceived,
    Moved,
    PermissionCreated,
    PermissionRefused,
    TurnEvent,
)
from crowline.turn.framing import StreamFramer
from turn_pair import CLIENT, EXPIRES, PEER, RELAY_HOST, SECRET, SERVER, FakePorts, World, entropy, segments

ELSEWHERE = Address("44.7.7.7", 5100)
RELAY_IPV6 = "2600:1::1"
PEER_IPV6 = Address("2600:9::9", 7000)


def events(client: TurnClient) -> list[TurnEvent]:
    found = []
    while (event := client.next_event()) is not None:
        found.append(event)
    return found


class StreamWorld(World):
    """Clients on streams: what they write is cut by a framer, as drivers do, in pieces of seven bytes."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.written = bytearray()
        self._framers = (StreamFramer(), StreamFramer())

    def give_server(self, transmit: Transmit, source: Address) -> None:
        assert transmit.transport is Transport.TCP and transmit.segment_size is None
        self.to_server += 1
        self.written += transmit.data
        for message in self._cut(self._framers[0], bytes(transmit.data)):
            self.server.receive(message, source, self.now, SERVER, None, Transport.TCP)

    def _give_away(self, transmit: Transmit) -> None:
        client = self.clients.get(transmit.destination)
        if client is None:
            super()._give_away(transmit)
            return
        assert transmit.transport is Transport.TCP
        for message in self._cut(self._framers[1], bytes(transmit.data)):
            client.receive(message, SERVER, self.now)

    @staticmethod
    def _cut(framer: StreamFramer, data: bytes) -> list[bytes]:
        found = []
        for start in range(0, len(data), 7):
            framer.feed(data[start : start + 7])
            while (message := framer.next_message()) is not None:
                found.append(message)
        return found


# --- streams --------------------------------------------------------------------------------------------


def test_data_travels_both_ways_on_a_stream() -> None:
    """Indications first, then ChannelData padded to four bytes, cut and padded alike on the way back."""
    world = StreamWorld()
    client = world.client(transport=Transport.TCP)
    client.create_permission([PEER], 0.0)
    client.allocate(0.0)
    world.settle()
    relayed = world.ports.opened[0]
    world.give_server(client.wrap(b"one", PEER), CLIENT)
    client.bind_channel(PEER, 0.0)
    world.settle()
    wrapped = client.wrap(b"two!!", PEER)
    assert bytes(wrapped.data) == b"\x40\x00\x00\x05two!!\0\0\0"
    world.give_server(wrapped, CLIENT)
    world.settle()
    assert [data for _, data, _ in world.sent] == [b"one", b"two!!"]
    world.peer_sends(relayed, b"back!")
    assert DataReceived(b"back!", PEER) in events(client)


def test_a_run_is_one_write_on_a_stream() -> None:
    """Datagrams of one run stay datagrams at the peer, also where their sizes need padding."""
    world = StreamWorld()
    client = world.client(transport=Transport.TCP)
    client.bind_channel(PEER, 0.0)
    client.allocate(0.0)
    before = client.wrap_run(b"aaaaabbbbbcc", 5, PEER)
    world.settle()
    after = client.wrap_run(b"aaaaabbbbbcc", 5, PEER)
    assert (len(before), len(after)) == (1, 1)
    world.give_server(before[0], CLIENT)
    world.give_server(after[0], CLIENT)
    world.settle()
    assert [data for _, data, _ in world.sent] == [b"aaaaa", b"bbbbb", b"cc"] * 2


def test_a_request_on_a_stream_is_sent_once_and_waited_for() -> None:
    """Nothing is repeated on a stream; after 39.5 s the server counts as mute (RFC 8489 §6.2.2)."""
    client = World().client(transport=Transport.TCP)
    client.allocate(0.0)
    assert client.next_transmit() is not None
    assert client.next_timeout() == 39.5
    client.handle_timeout(39.0)
    assert client.next_transmit() is None
    client.handle_timeout(39.5)
    assert events(client) == [AllocationFailed(408, "the server does not answer")]


# --- two families ---------------------------------------------------------------------------------------


def dual_ports() -> FakePorts:
    ports = FakePorts()
    ports.families = {a.FAMILY_IPV4, a.FAMILY_IPV6}
    ports.relay_hosts.add(RELAY_IPV6)
    ports.free += [Address(RELAY_IPV6, 50_001 + n) for n in range(10)]
    return ports


def test_both_families_come_from_one_allocation() -> None:
    """One event for each relayed address, one refresh for both, and each peer by its own family."""
    world = World(ports=dual_ports())
    client = world.client(families=(a.FAMILY_IPV4, a.FAMILY_IPV6))
    client.create_permission([PEER, PEER_IPV6], 0.0)
    client.allocate(0.0)
    world.settle()
    found = events(client)
    relayed = [event.relayed for event in found if isinstance(event, Allocated)]
    assert [address.is_ipv6 for address in relayed] == [False, True]
    assert len([event for event in found if isinstance(event, PermissionCreated)]) == 2
    world.run_until(3000.0)
    for peer, address in zip((PEER, PEER_IPV6), relayed, strict=True):
        world.give_server(client.wrap(b"x", peer), CLIENT)
        world.settle()
        assert world.sent[-1] == (address, b"x", peer)
        world.peer_sends(address, b"y", peer)
        assert events(client)[-1] == DataReceived(b"y", peer)
    client.close(world.now)
    world.settle()
    assert world.ports.opened == []


def test_one_family_of_two_is_better_than_none() -> None:
    """A server without IPv6 relays gives what it has."""
    world = World()
    client = world.client(families=(a.FAMILY_IPV4, a.FAMILY_IPV6))
    client.allocate(0.0)
    world.settle()
    assert [event.relayed.host for event in events(client) if isinstance(event, Allocated)] == [RELAY_HOST]


# --- moving by ticket (RFC 8016) ------------------------------------------------------------------------


def mover(world: World) -> TurnClient:
    """A client with a ticket and a channel to `PEER`."""
    client = world.client(mobility=True)
    client.bind_channel(PEER, 0.0)
    client.allocate(0.0)
    world.settle()
    assert client.ticket is not None and ChannelBound(PEER, 0x4000) in events(client)
    return client


def test_an_allocation_moves_to_another_address() -> None:
    """The relayed address stays, data flows from the new 5-tuple, and the next move has its own ticket."""
    world = World()
    client = mover(world)
    first, relayed = client.ticket, client.relayed
    del world.clients[CLIENT]
    world.clients[ELSEWHERE] = client
    client.move(world.now)
    assert client.is_moving
    world.settle()
    assert not client.is_moving and Moved() in events(client)
    assert client.ticket not in (None, first)
    world.give_server(client.wrap(b"from elsewhere", PEER), ELSEWHERE)
    world.settle()
    assert relayed is not None and world.sent == [(relayed, b"from elsewhere", PEER)]
    world.peer_sends(relayed, b"to elsewhere")
    assert DataReceived(b"to elsewhere", PEER) in events(client)
    world.run_until(4000.0)
    world.give_server(client.wrap(b"still", PEER), ELSEWHERE)
    world.settle()
    assert world.sent[-1] == (relayed, b"still", PEER)
    assert AllocationLost not in [type(event) for event in events(client)]


def test_a_move_to_a_server_that_forgot_is_a_loss() -> None:
    """437: the driver begins again with an allocation of its own."""
    world = World()
    client = mover(world)
    world.server.close()
    del world.clients[CLIENT]
    world.clients[ELSEWHERE] = client
    client.move(world.now)
    world.settle()
    assert [type(event) for event in events(client)] == [AllocationLost]
    assert client.is_closed


def test_a_server_that_forbids_moving_still_relays() -> None:
    """405 to the wish for a ticket: asked again without one, and `move` is misuse."""
    world = World(mobility=False)
    client = world.client(mobility=True)
    client.allocate(0.0)
    world.settle()
    assert [type(event) for event in events(client)] == [Allocated]
    with pytest.raises(UsageError):
        client.move(world.now)


def test_what_was_asked_before_a_move_is_asked_again_after_it() -> None:
    """A permission whose answer went to the old address is not forgotten."""
    world = World()
    client = mover(world)
    other = Address("44.9.9.10", 1)
    world.lose = lambda transmit, to_server: True
    client.create_permission([other], world.now)
    world.settle()
    world.lose = lambda transmit, to_server: False
    del world.clients[CLIENT]
    world.clients[ELSEWHERE] = client
    client.move(world.now)
    world.settle()
    assert PermissionCreated(other) in events(client)


@pytest.mark.parametrize("arrives", [True, False])
def test_closing_in_the_middle_of_a_move_leaves_nothing(arrives: bool) -> None:
    """Whether the server has heard of the move or not, it is asked to delete where the allocation is."""
    world = World()
    client = mover(world)
    del world.clients[CLIENT]
    world.clients[ELSEWHERE] = client
    world.lose = lambda transmit, to_server: to_server is not arrives
    client.move(world.now)
    world.settle()
    assert client.is_moving
    client.close(world.now)
    world.lose = lambda transmit, to_server: False
    world.run_until(world.now + 5.0)
    assert client.is_closed
    assert world.ports.opened == []
    assert Moved() not in events(client)


# --- broken servers -------------------------------------------------------------------------------------


def test_a_server_on_a_stream_that_signs_wrongly_is_not_asked_for_ever() -> None:
    """Its answers come at once, so a request that is repeated for them would be repeated without a pause."""
    world = StreamWorld()
    client = world.client(transport=Transport.TCP)
    client.allocate(0.0)
    world.settle()
    events(client)
    client.create_permission([PEER], 0.0)
    client.bind_channel(PEER, 0.0)
    for _ in range(2):
        transmit = client.next_transmit()
        assert transmit is not None
        request = parse(transmit.data).message
        client.receive(request.answer(MessageClass.SUCCESS).encode(key=b"another"), SERVER, 0.0)
    assert client.next_transmit() is None
    assert [type(event) for event in events(client)] == [PermissionRefused]
    assert client.counters["channel_refused"] == 1


# --- redirections ---------------------------------------------------------------------------------------


def test_a_drained_server_names_another() -> None:
    """300 with an address, which was signed, since the request was."""
    world = World()
    other = Address("44.1.1.9", 3478)
    world.server.drain(other, 0.0)
    client = world.client()
    client.allocate(0.0)
    world.settle()
    [event] = events(client)
    assert isinstance(event, AllocationFailed) and (event.code, event.alternate) == (300, other)


@pytest.mark.parametrize("signed", [False, True])
def test_s6_a_forged_redirection_is_not_believed(signed: bool) -> None:
    """Unsigned, before or after the challenge: dropped, and the true answer still counts."""
    world = World()
    client = world.client()
    client.allocate(0.0)
    first = client.next_transmit()
    assert first is not None
    request = first
    if signed:
        world.give_server(first, CLIENT)
        challenge = world.server.next_transmit()
        assert challenge is not None
        client.receive(bytes(challenge.data), SERVER, 0.0)
        second = client.next_transmit()
        assert second is not None
        request = second
    forged = parse(request.data).message.answer(
        MessageClass.ERROR, a.ErrorCode(300), a.AlternateServer(Address("44.66.6.6", 3478))
    )
    client.receive(forged.encode(), SERVER, 0.0)
    assert events(client) == []
    world.give_server(request, CLIENT)
    world.settle()
    assert [type(event) for event in events(client)] == [Allocated]


@pytest.mark.parametrize(
    "alternate", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1"]
)
def test_s6_a_public_server_cannot_point_inside(alternate: str) -> None:
    """The policy for targets that strangers name holds for alternates too."""
    assert not Alternates(SERVER).follow(Address(alternate, 3478))


def test_redirections_end() -> None:
    """Never the same server twice, and not more than a few in a row."""
    alternates = Alternates(SERVER)
    assert not alternates.follow(None)
    assert not alternates.follow(SERVER)
    followed = [alternates.follow(Address(f"44.1.2.{n}", 3478)) for n in range(1, 10)]
    assert followed == [True] * MAX_REDIRECTIONS + [False] * (9 - MAX_REDIRECTIONS)
    assert not alternates.follow(Address("44.1.2.1", 3478))


def test_a_server_inside_may_point_to_its_neighbours() -> None:
    """Who chose a private server lives in its network; who is on loopback stays on that host."""
    assert Alternates(Address("10.0.0.1", 3478)).follow(Address("10.0.0.2", 3478))
    assert not Alternates(Address("10.0.0.1", 3478)).follow(Address("127.0.0.1", 3478))
    assert Alternates(Address("127.0.0.1", 3478)).follow(Address("127.0.0.1", 3479))
    assert not Alternates(Address("127.0.0.1", 3478)).follow(Address("127.0.0.2", 3478))
    assert not Alternates(Address("10.0.0.1", 3478)).follow(Address("10.0.0.2", 0))


# --- a server that was restarted ------------------------------------------------------------------------


def restarted(world: World) -> World:
    """A new server at the same place: other nonces, no allocations, the same users."""
    fresh = World()
    world.server = fresh.server
    world.ports = fresh.ports
    return world


def test_q11_a_restarted_server_is_noticed_by_the_next_refresh() -> None:
    """A stale nonce, then 437: lost without any waiting."""
    world = World()
    client = world.allocated()
    restarted(world)
    client.verify(world.now)
    world.settle()
    assert [type(event) for event in events(client)] == [AllocationLost]
    assert world.now == 0.0


def test_q11_a_server_with_another_realm_and_secret_is_noticed() -> None:
    """401 to a signed refresh is the end of that allocation, not the beginning of a loop."""
    world = World()
    client = world.allocated()
    client.verify(0.0)
    transmit = client.next_transmit()
    assert transmit is not None
    answer = parse(transmit.data).message.answer(
        MessageClass.ERROR, a.ErrorCode(401), a.Realm("other"), a.Nonce("other")
    )
    client.receive(answer.encode(), SERVER, 0.0)
    assert [type(event) for event in events(client)] == [AllocationLost]
    assert client.next_transmit() is None and client.next_timeout() is None


def test_verifying_what_is_being_verified_asks_once() -> None:
    """However many pairs fail at once, one refresh is under way."""
    world = World()
    client = world.allocated()
    for _ in range(5):
        client.verify(0.0)
    sent = []
    while (transmit := client.next_transmit()) is not None:
        sent.append(parse(transmit.data).message.method)
    assert sent == [Method.REFRESH]


# --- answers that are none ------------------------------------------------------------------------------


def test_s8_only_the_true_answer_at_the_true_time_completes() -> None:
    """From another port, with another id, late by a minute, twice: none of it makes an allocation."""
    world = World()
    client = world.client()
    client.allocate(0.0)
    world.lose = lambda transmit, to_server: not to_server and keep(transmit)
    kept: list[bytes] = []

    def keep(transmit: Transmit) -> bool:
        kept.extend(segments(transmit))
        return parse(transmit.data).message.message_class is MessageClass.SUCCESS

    world.settle()
    success = kept[-1]
    client.receive(success, Address(SERVER.host, SERVER.port + 1), 0.0)
    client.receive(success, Address("44.1.1.3", SERVER.port), 0.0)
    client.receive(success[:8] + bytes(12) + success[20:], SERVER, 0.0)
    assert events(client) == []
    late = world.client(ELSEWHERE)
    late.allocate(0.0)
    world.settle()
    late_success = kept[-1]
    late.handle_timeout(39.5)
    late.receive(late_success, SERVER, 60.0)
    assert [type(event) for event in events(late)] == [AllocationFailed]
    client.receive(success, SERVER, 0.1)
    client.receive(success, SERVER, 0.2)
    assert [type(event) for event in events(client)] == [Allocated]


def test_s8_a_stream_that_is_not_stun_is_given_up_at_once() -> None:
    """TLS, zeros or a message that claims too much: the framer says so before anything is kept."""
    for noise in (b"\x15\x03\x01\0\2\2\x28", bytes(20), b"\x01\x01\xff\xfc\x21\x12\xa4\x43"):
        framer = StreamFramer(max_stun=4096)
        framer.feed(noise)
        with pytest.raises(MalformedStun):
            while framer.next_message() is not None:
                pass


def test_the_password_of_a_moved_client_is_the_same() -> None:
    """Another 5-tuple gets another nonce; the stale one costs one round trip and no more."""
    world = World()
    username, password = issue_credentials(SECRET, "mailbox", EXPIRES)
    client = TurnClient(SERVER, username, Secret(password.encode()), entropy=entropy(77), mobility=True)
    world.clients[CLIENT] = client
    client.allocate(0.0)
    world.settle()
    world.to_server = 0
    world.clients = {ELSEWHERE: client}
    client.move(0.0)
    world.settle()
    assert world.to_server == 2


def test_an_attempt_to_connect_means_nothing_to_an_allocation_of_datagrams() -> None:
    """Indications of another kind of allocation are counted and dropped."""
    client = World().allocated()
    attempt = Message(
        Method.CONNECTION_ATTEMPT,
        MessageClass.INDICATION,
        bytes(12),
        (a.ConnectionId(1), a.XorPeerAddress(PEER)),
    )
    client.receive(attempt.encode(), SERVER, 0.0)
    assert events(client) == [] and client.counters["unexpected"] == 1
