"""Sequences of operations on the TURN server machine: whatever clients, peers, strangers and time do.

After each step the server's books must agree with what its driver and its clients were told, and at the end,
when every lifetime has passed, nothing may be left.
"""

from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import HEADER_SIZE, Message, MessageClass, Method, parse
from crowline.turn import channel_data
from crowline.turn.allocation import CHANNEL_LIFETIME, PERMISSION_LIFETIME
from crowline.turn.server_events import Dial, HangUp, Splice
from fuzz.turn_world import (
    HOSTS,
    LIMITS,
    SERVER,
    Client,
    Ports,
    Sent,
    is_error,
    make_clients,
    make_server,
    request,
    take_challenge,
)

_PEER_HOSTS = (
    "44.9.9.9",
    "44.9.9.10",
    "2a01:4f8:9::9",
    "127.0.0.1",
    "10.0.0.1",
    "64:ff9b::7f00:1",
    *HOSTS.values(),
)
_STRANGER = Address("44.66.66.66", 6666)
clients = st.sampled_from((0, 2, 4, 7)) | st.integers(0, 7)
_FRIEND = Address("44.9.9.9", 7000)
odd_peers = st.builds(
    Address, st.sampled_from(_PEER_HOSTS), st.sampled_from((0, 7000, 7001, *range(50_000, 50_004)))
)
peers = st.just(_FRIEND) | st.just(Address(_FRIEND.host, 7001)) | odd_peers
lifetimes = st.sampled_from((600, 3600, 2**32 - 1, 1, 0))
blobs = st.binary(max_size=40)
numbers = st.sampled_from((0x4000, 0x3FFF, 0x4001, 0x4002, 0x4003, 0x4FFF, 0x5000))
flags = st.booleans()


class TurnServerOperations(RuleBasedStateMachine):
    """One server, eight clients of two users, a few peers and a stranger."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.ports = Ports()
        self.server = make_server(self.ports)
        self.clients = make_clients()
        self.connections: dict[int, str] = {}
        self.spliced: dict[int, Address] = {}
        # What clients may do by the answers they got: from relayed address, to host, until when.
        self.permitted: dict[tuple[Address, str], float] = {}
        self._dice = random.Random(3)
        self._policy = AddressPolicy()

    @initialize(spread=flags)
    def begin(self, spread: bool) -> None:
        """Deep states are rare by chance: the first client of each kind has an allocation and a friend."""
        for who, protocol in ((0, 17), (2, 6), (4, 17), (7, 17)):
            self._allocate(who, a.RequestedTransport(protocol), *([a.MobilityTicket(b"")] * spread))
            self.permit(who, [_FRIEND])
            self.bind_channel(who, 0x4000, _FRIEND)

    # --- what clients ask -------------------------------------------------------------------------------

    @rule(who=clients, tcp=flags, even=flags, reserve=flags, dual=flags, mobile=flags, lifetime=lifetimes)
    def allocate(
        self, who: int, tcp: bool, even: bool, reserve: bool, dual: bool, mobile: bool, lifetime: int
    ) -> None:
        """Every combination of what may be asked for; many are refused."""
        wanted: list[a.AnyAttribute] = [a.RequestedTransport(6 if tcp else 17), a.Lifetime(lifetime)]
        wanted += [a.EvenPort(reserve)] * even
        wanted += [a.AdditionalAddressFamily(a.FAMILY_IPV6)] * dual
        wanted += [a.MobilityTicket(b"")] * mobile
        self._allocate(who, *wanted)

    @rule(who=clients)
    def allocate_reserved(self, who: int) -> None:
        """Claim the port beside an even one, or one that never was."""
        self._allocate(who, a.RequestedTransport(17), a.ReservationToken(self.clients[who].token))

    @rule(thief=flags)
    def allocate_both(self, thief: bool) -> None:
        """An even port and, by another client of the same user or of the other one, the port beside it."""
        self._allocate(1, a.RequestedTransport(17), a.EvenPort(True))
        claimer = 5 if thief else 3
        self.clients[claimer].token = self.clients[1].token
        self.allocate_reserved(claimer)

    @rule(who=clients, lifetime=lifetimes, family=st.sampled_from((0, 1, 2)))
    def refresh(self, who: int, lifetime: int, family: int) -> None:
        """Prolong or end an allocation, or one half of it."""
        families = [a.RequestedAddressFamily(family)] * bool(family)
        self._ask(who, Method.REFRESH, a.Lifetime(lifetime), *families)

    @rule(who=clients, whose=clients, lifetime=lifetimes)
    def move(self, who: int, whose: int, lifetime: int) -> None:
        """Come back from another address with a ticket, one's own or a stolen one."""
        ticket = a.MobilityTicket(self.clients[whose].ticket)
        answer = self._ask(who, Method.REFRESH, a.Lifetime(lifetime), ticket)
        self._keep_ticket(who, answer)

    @rule(who=clients, named=st.lists(peers, min_size=1, max_size=4))
    def permit(self, who: int, named: list[Address]) -> None:
        """Permissions for several peers come all or none."""
        answer = self._ask(who, Method.CREATE_PERMISSION, *map(a.XorPeerAddress, named))
        self._note(who, answer, named, PERMISSION_LIFETIME)

    @rule(who=clients, number=numbers, peer=peers)
    def bind_channel(self, who: int, number: int, peer: Address) -> None:
        """A channel brings a permission."""
        answer = self._ask(who, Method.CHANNEL_BIND, a.ChannelNumber(number), a.XorPeerAddress(peer))
        self._note(who, answer, [peer], PERMISSION_LIFETIME)

    @rule(who=clients, peer=peers)
    def connect(self, who: int, peer: Address) -> None:
        """RFC 6062: the answer may come later."""
        self._ask(who, Method.CONNECT, a.XorPeerAddress(peer))

    @rule(who=clients, pick=st.integers(0, 5))
    def bind_connection(self, who: int, pick: int) -> None:
        """A stream asks for a connection that is there, or for none."""
        known = sorted(self.connections)
        number = known[pick % len(known)] if known and pick else 7
        self._ask(who, Method.CONNECTION_BIND, a.ConnectionId(number))

    @rule(peer=peers, who=st.sampled_from((1, 2, 3, 6)), closes=flags)
    def converse(self, peer: Address, who: int, closes: bool) -> None:
        """A connection from the wish to its end, as far as the server goes along."""
        before = set(self.connections)
        self.connect(2, peer)
        for number in set(self.connections) - before:
            self.server.dialled(number, self.now)
            self.connections[number] = "waiting"
            self._take(None, 0)
            self._ask(who, Method.CONNECTION_BIND, a.ConnectionId(number))
            if closes:
                self.server.connection_closed(number, self.now)
                del self.connections[number]
                self._take(None, 0)

    # --- data -------------------------------------------------------------------------------------------

    @rule(who=clients, peer=peers, data=blobs, whole=flags)
    def send(self, who: int, peer: Address, data: bytes, whole: bool) -> None:
        """A Send indication."""
        attributes = (a.XorPeerAddress(peer), a.Data(data), *([a.DontFragment()] * whole))
        message = Message(Method.SEND, MessageClass.INDICATION, self._identifier(), attributes)
        self._receive(self.clients[who], message.encode())

    @rule(who=clients, number=numbers, data=st.binary(min_size=1, max_size=40), size=st.integers(5, 30))
    def send_channel(self, who: int, number: int, data: bytes, size: int) -> None:
        """ChannelData, alone or as a run."""
        client = self.clients[who]
        if client.transport.is_stream:
            self._receive(client, channel_data.wrap(number, data))
        else:
            self._receive(client, channel_data.wrap_run(number, data, size - 4), size)

    @rule(pick=st.integers(0, 20), peer=peers, data=blobs, size=st.integers(1, 30))
    def send_back(self, pick: int, peer: Address, data: bytes, size: int) -> None:
        """A peer, or anybody, sends to a relayed address."""
        relayed = self._relayed(pick, Transport.UDP)
        self.server.receive_from_peer(data, peer, self.now, relayed, size if size < len(data) else None)
        self._take(None, 0)

    @rule(pick=st.integers(0, 20), peer=peers, kind=st.integers(0, 255), code=st.integers(0, 255))
    def tell_icmp(self, pick: int, peer: Address, kind: int, code: int) -> None:
        """An ICMP error for a datagram that may never have been sent."""
        self.server.receive_icmp(self._relayed(pick, Transport.UDP), peer, kind, code, 1400, self.now)
        self._take(None, 0)

    # --- what the driver reports ------------------------------------------------------------------------

    @rule(pick=st.integers(0, 20), peer=peers)
    def dial_in(self, pick: int, peer: Address) -> None:
        """A peer connects to a relayed TCP address."""
        relayed = self._relayed(pick, Transport.TCP)
        number = self.server.peer_connected(relayed, peer, self.now)
        if number is not None:
            assert self._may_reach(relayed, peer.host)
            assert number not in self.connections
            self.connections[number] = "waiting"
        self._take(None, 0)

    @precondition(lambda self: self.connections)
    @rule(pick=st.integers(0, 20), ending=st.sampled_from(("dialled", "failed", "closed", "taken")))
    def report(self, pick: int, ending: str) -> None:
        """A connection opens, fails, ends or moves bytes, whatever it was doing."""
        number = sorted(self.connections)[pick % len(self.connections)]
        if ending == "dialled":
            self.server.dialled(number, self.now)
        elif ending == "failed":
            self.server.dial_failed(number, self.now)
            if self.connections[number] == "dialling":
                del self.connections[number]
        elif ending == "closed":
            self.server.connection_closed(number, self.now)
            del self.connections[number]
        else:
            assert self.server.take(number, 1000, self.now) >= 0.0
        if ending == "dialled" and self.connections[number] == "dialling":
            self.connections[number] = "waiting"
        self._take(None, 0)

    @rule(who=clients)
    def disconnect(self, who: int) -> None:
        """A stream breaks; only clients on streams have one."""
        client = self.clients[who]
        if not client.transport.is_stream:
            return
        self.server.disconnect(client.address, SERVER, client.transport, self.now)
        for number in [each for each, stream in self.spliced.items() if stream == client.address]:
            # The driver has both halves of what is spliced, and closes the other one itself.
            del self.spliced[number]
            self.connections.pop(number, None)
        busy = self.server.is_busy(client.address, SERVER, client.transport)
        assert not busy
        self._take(None, 0)

    @rule(seconds=st.sampled_from((0.0, 0.5, 5.0, 29.0, 31.0, 299.0, 301.0, 601.0, 3601.0)), late=flags)
    def wait(self, seconds: float, late: bool) -> None:
        """Time passes, and the timer may be late."""
        self.now += seconds
        if not late:
            self.server.handle_timeout(self.now)
            self._take(None, 0)

    # --- strangers --------------------------------------------------------------------------------------

    @rule(data=st.binary(max_size=80), method=st.sampled_from(Method), kind=st.sampled_from(MessageClass))
    def babble(self, data: bytes, method: Method, kind: MessageClass) -> None:
        """Somebody without credentials: over UDP whatever he says costs at most three times its bytes."""
        for message in (data, Message(method, kind, self._identifier(), (a.Data(data),)).encode()):
            for transport in (Transport.UDP, Transport.TCP):
                self.server.receive(message, _STRANGER, self.now, SERVER, None, transport)
                self._take(_STRANGER, len(message), transport)

    @rule(who=clients, as_whom=clients, at=st.integers(0, 500), change=st.integers(0, 255), run=flags)
    def replay(self, who: int, as_whom: int, at: int, change: int, run: bool) -> None:
        """A request that was heard, again, damaged, or from somewhere else."""
        data = bytearray(self.clients[who].last)
        if data:
            data[at % len(data)] ^= change
            self._receive(self.clients[as_whom], bytes(data), 1 + at if run else None)

    # --- what must always hold --------------------------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        """Ports that are open are those of allocations and reservations, and each is counted once."""
        held = [(relay.address, relay.transport) for each in self.server.allocations for relay in each.relays]
        reserved = self.server._holdings.reservations
        assert len(held) == len(set(held)) and set(held) <= self.ports.opened
        assert len(self.ports.opened) == len(held) + len(reserved)
        assert self.server._holdings.quota.held == len(self.ports.opened) <= LIMITS.allocations
        assert set(self.connections) == set(self.server._holdings.connections._by_number)
        for allocation in self.server.allocations:
            assert len(allocation.permissions) <= LIMITS.permissions + LIMITS.channels
            assert len(allocation.channels) == len(allocation.channels_by_peer) <= LIMITS.channels
            assert not allocation.is_over

    def teardown(self) -> None:
        """When everybody has gone away and every lifetime has passed, nothing is left."""
        self.now += max(LIMITS.max_lifetime, CHANNEL_LIFETIME, LIMITS.memory) + 1
        for _ in range(20):
            self.server.handle_timeout(self.now)
            self._take(None, 0)
            self.now += 60
        assert not self.ports.opened and not self.connections
        assert self.server.is_idle and self.server.next_timeout() is None
        assert self.server._holdings.quota.held == 0

    # --- how it is done ---------------------------------------------------------------------------------

    def _identifier(self) -> bytes:
        return self._dice.randbytes(12)

    def _relayed(self, pick: int, transport: Transport) -> Address:
        """One of the open addresses, or one that is not."""
        opened = sorted(address for address, kind in self.ports.opened if kind is transport)
        return opened[pick % len(opened)] if opened else Address(HOSTS[a.FAMILY_IPV4], 50_099)

    def _allocate(self, who: int, *wanted: a.AnyAttribute) -> None:
        answer = self._ask(who, Method.ALLOCATE, *wanted)
        self._keep_ticket(who, answer)
        if answer is not None and (token := answer.get(a.ReservationToken)) is not None:
            self.clients[who].token = token.token

    def _keep_ticket(self, who: int, answer: Message | None) -> None:
        if answer is not None and (ticket := answer.get(a.MobilityTicket)) is not None:
            self.clients[who].ticket = ticket.value

    def _ask(self, who: int, method: Method, *attributes: a.AnyAttribute) -> Message | None:
        """The answer to a signed request, after as many challenges as it takes; ``None``: none came yet."""
        client = self.clients[who]
        for _ in range(3):
            used = client.credentials.nonce
            message = request(method, self._identifier(), *attributes)
            client.last = client.credentials.sign(message)
            answers = [
                data
                for address, data in self._receive(client, client.last).to_clients
                if address == client.address and data[8:HEADER_SIZE] == message.transaction_id
            ]
            assert len(answers) <= 1
            if not answers:
                return None
            if not take_challenge(client, answers[0], used):
                return parse(answers[0]).message
        raise AssertionError("a challenge after a challenge")

    def _receive(self, client: Client, data: bytes, size: int | None = None) -> Sent:
        held = self.server.allocations.of_client(client.address, SERVER, client.transport)
        self.server.receive(data, client.address, self.now, SERVER, size, client.transport)
        unproven = client.address if held is None and size is None else None
        return self._take(unproven, len(data), client.transport)

    def _note(self, who: int, answer: Message | None, named: list[Address], lifetime: float) -> None:
        """Remember what a success lets a client do."""
        client = self.clients[who]
        if answer is None or answer.message_class is not MessageClass.SUCCESS:
            return
        held = self.server.allocations.of_client(client.address, SERVER, client.transport)
        assert held is not None
        for peer in named:
            assert peer.host in HOSTS.values() or self._policy.permits(Address(peer.host, 7000))
            for relay in held.relays:
                self.permitted[relay.address, peer.host] = self.now + lifetime

    def _may_reach(self, relayed: Address, host: str) -> bool:
        return self.permitted.get((relayed, host), 0.0) > self.now

    def _take(self, unproven: Address | None, size: int, transport: Transport = Transport.UDP) -> Sent:
        """All that the server has to say, judged. `unproven` has sent `size` bytes and shown nothing, but on
        a stream that it is where it says it is."""
        sent = Sent()
        known = {(each.address, each.transport) for each in self.clients}
        while (transmit := self.server.next_transmit()) is not None:
            data = bytes(transmit.data)
            if transmit.local == SERVER:
                is_known = (transmit.destination, transmit.transport) in known
                assert is_known or transmit.destination == _STRANGER
                sent.to_clients.append((transmit.destination, data))
                continue
            assert transmit.local is not None and (transmit.local, Transport.UDP) in self.ports.opened
            assert self._may_reach(transmit.local, transmit.destination.host)
            assert transmit.destination.host not in HOSTS.values()
            sent.to_peers.append((transmit.local, transmit.destination, data))
        while (event := self.server.next_event()) is not None:
            self._on_event(event)
        if unproven is not None:
            self._check_ratio(sent, unproven, None if transport.is_stream else 3 * size)
        return sent

    def _check_ratio(self, sent: Sent, unproven: Address, most: int | None) -> None:
        """Errors are what an unproven source can cause; a success was signed for."""
        mine = [data for address, data in sent.to_clients if address == unproven]
        errors = [data for data in mine if is_error(data)]
        assert most is None or sum(map(len, errors)) <= most
        if unproven == _STRANGER:
            assert mine == errors and not sent.to_peers

    def _on_event(self, event: Dial | Splice | HangUp) -> None:
        if isinstance(event, Dial):
            assert (event.relayed, Transport.TCP) in self.ports.opened
            is_inside = event.peer.host in HOSTS.values()
            assert is_inside or self._policy.permits(event.peer)
            self.connections[event.connection] = "dialling"
            # RFC 6062 §5.2: a Connect brings a permission for what the peer sends.
        elif isinstance(event, Splice):
            assert self.connections[event.connection] == "waiting"
            assert event.transport.is_stream
            self.connections[event.connection] = "bound"
            self.spliced[event.connection] = event.client
        else:
            del self.connections[event.connection]
