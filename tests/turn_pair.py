"""A TURN server, its clients and their peers, joined by function calls in virtual time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.budget import Allowance, ReplyBudget
from crowline.stun.integrity import long_term_key
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.auth import Authenticator, issue_credentials
from crowline.turn.client import TurnClient, TurnEvent
from crowline.turn.quota import Limits
from crowline.turn.server import TurnServer

SERVER = Address("44.1.1.1", 3478)
RELAY_HOST = "44.1.1.1"
RELAY_HOST_6 = "2a01:4f8:1::1"
OWN_ASIDE = "44.1.1.2"
CLIENT = Address("44.2.2.2", 5000)
OTHER_CLIENT = Address("44.3.3.3", 6000)
PEER = Address("44.9.9.9", 7000)
PEER_6 = Address("2a01:4f8:9::9", 7000)
SECRET = Secret(b"a secret of the server")
EPOCH = 1_800_000_000.0
EXPIRES = int(EPOCH) + 86_400
RELAY_TO_CLIENT = "client"


def entropy(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


class FakePorts:
    """Relay ports without sockets."""

    def __init__(self, size: int = 100) -> None:
        self.free = [Address(RELAY_HOST, 50_001 + n) for n in range(size)]
        self.opened: list[Address] = []
        self.opened_tcp: list[Address] = []
        self.can_set_dont_fragment = False
        self.families = {a.FAMILY_IPV4}
        self.relay_hosts = {RELAY_HOST}

    def open(
        self,
        family: int,
        local: Address | None,
        *,
        even: bool = False,
        reserve: bool = False,
        transport: Transport = Transport.UDP,
    ) -> Address | None:
        """TCP and UDP addresses come from the same list."""
        opened = self.opened_tcp if transport.is_stream else self.opened
        for address in self.free:
            beside = Address(address.host, address.port + 1)
            if address.is_ipv6 != (family == a.FAMILY_IPV6) or (even and address.port % 2):
                continue
            if reserve and beside not in self.free:
                continue
            wanted = [address, beside] if reserve else [address]
            for each in wanted:
                self.free.remove(each)
                opened.append(each)
            return address
        return None

    def close(self, relayed: Address, transport: Transport = Transport.UDP) -> None:
        (self.opened_tcp if transport.is_stream else self.opened).remove(relayed)
        self.free.append(relayed)

    def has_family(self, family: int, local: Address | None) -> bool:
        return family in self.families

    def is_relay_host(self, host: str) -> bool:
        return host in self.relay_hosts

    def is_own_host(self, host: str) -> bool:
        return host in self.relay_hosts or host == OWN_ASIDE


class World:
    """One server. `sent` holds what left its relayed addresses for peers outside."""

    def __init__(
        self,
        *,
        permits: Callable[[str, Address], bool] = lambda user, peer: True,
        policy: AddressPolicy | None = None,
        limits: Limits | None = None,
        allowance: Allowance | None = None,
        ports: FakePorts | None = None,
        users: dict[str, Secret] | None = None,
        is_current: Callable[[str], bool] = lambda user: True,
        mobility: bool = True,
        seed: int = 1,
    ) -> None:
        """`seed` makes the keys of the server's process."""
        self.now = 0.0
        self.ports = ports or FakePorts()
        self.permits = permits
        self.server = TurnServer(
            Authenticator(SECRET, entropy=entropy(seed), epoch=EPOCH, users=users, is_current=is_current),
            self.ports,
            permits=lambda user, peer: self.permits(user, peer),
            policy=policy or AddressPolicy(),
            entropy=entropy(2),
            limits=limits,
            budget=ReplyBudget(allowance) if allowance else None,
            mobility=mobility,
        )
        self.clients: dict[Address, TurnClient] = {}
        self.sent: list[tuple[Address, bytes, Address]] = []
        self.lose: Callable[[Transmit, bool], bool] = lambda transmit, to_server: False
        self.to_server = 0
        self._seeds = itertools.count(10)

    def client(self, address: Address = CLIENT, user: str = "mailbox", **options: object) -> TurnClient:
        username, password = issue_credentials(SECRET, user, EXPIRES)
        client = TurnClient(
            SERVER,
            username,
            Secret(password.encode()),
            entropy=entropy(next(self._seeds)),
            **options,  # type: ignore[arg-type]
        )
        self.clients[address] = client
        return client

    def allocated(self, address: Address = CLIENT, user: str = "mailbox") -> TurnClient:
        """A client with an allocation; its events so far are taken."""
        client = self.client(address, user)
        client.allocate(self.now)
        self.settle()
        assert client.relayed is not None
        while client.next_event() is not None:
            pass
        return client

    def settle(self) -> None:
        """Carry everything that is under way, in no time."""
        moved = True
        while moved:
            moved = False
            for address, client in self.clients.items():
                while (transmit := client.next_transmit()) is not None:
                    moved = True
                    self.give_server(transmit, address)
            while (transmit := self.server.next_transmit()) is not None:
                moved = True
                self._give_away(transmit)

    def give_server(self, transmit: Transmit, source: Address) -> None:
        self.to_server += 1
        if not self.lose(transmit, True):
            self.server.receive(bytes(transmit.data), source, self.now, SERVER, transmit.segment_size)

    def run_until(self, end: float) -> None:
        """Let time pass, from deadline to deadline."""
        while True:
            self.settle()
            deadlines = [c.next_timeout() for c in self.clients.values()] + [self.server.next_timeout()]
            soonest = min((d for d in deadlines if d is not None), default=None)
            if soonest is None or soonest > end:
                self.now = end
                return
            self.now = max(self.now, soonest)
            for client in self.clients.values():
                client.handle_timeout(self.now)
            self.server.handle_timeout(self.now)

    def peer_sends(
        self, relayed: Address, data: bytes, peer: Address = PEER, size: int | None = None
    ) -> None:
        self.server.receive_from_peer(data, peer, self.now, relayed, size)
        self.settle()

    def _give_away(self, transmit: Transmit) -> None:
        client = self.clients.get(transmit.destination)
        if client is None or transmit.local != SERVER:
            assert transmit.local is not None
            self.sent += [(transmit.local, piece, transmit.destination) for piece in segments(transmit)]
        elif not self.lose(transmit, False):
            for piece in segments(transmit):
                client.receive(piece, SERVER, self.now)


class Caller:
    """Speaks to the server by hand: builds requests field by field, reads the answers."""

    def __init__(
        self,
        world: World,
        address: Address = CLIENT,
        user: str = "mailbox",
        transport: Transport = Transport.UDP,
    ) -> None:
        self.world = world
        self.address = address
        self.transport = transport
        self.username, self.password = issue_credentials(SECRET, user, EXPIRES)
        self.realm = "crowline"
        self.nonce = ""
        self._ids = entropy(address.port)

    @property
    def key(self) -> bytes:
        return long_term_key(self.username, self.realm, self.password)

    def challenge(self) -> None:
        """Learn a fresh nonce."""
        first = Message(Method.ALLOCATE, MessageClass.REQUEST, self._ids(12), (a.RequestedTransport(17),))
        answer = self.send(first.encode())
        assert answer is not None
        nonce = answer.get(a.Nonce)
        assert nonce is not None
        self.nonce = nonce.value

    def signed(
        self, method: Method, *attributes: a.AnyAttribute, transaction_id: bytes | None = None
    ) -> bytes:
        """A request with our credentials."""
        if not self.nonce:
            self.challenge()
        proof = (a.Username(self.username), a.Realm(self.realm), a.Nonce(self.nonce))
        message = Message(
            method, MessageClass.REQUEST, transaction_id or self._ids(12), (*attributes, *proof)
        )
        return message.encode(key=self.key)

    def call(self, method: Method, *attributes: a.AnyAttribute) -> Message:
        """The answer to a signed request."""
        answer = self.send(self.signed(method, *attributes))
        assert answer is not None
        return answer

    def code(self, method: Method, *attributes: a.AnyAttribute) -> int:
        """The error code of the answer to a signed request; 0 for success."""
        return error_code(self.call(method, *attributes))

    def allocate(self, *attributes: a.AnyAttribute) -> Message:
        return self.call(Method.ALLOCATE, a.RequestedTransport(17), *attributes)

    def send(self, data: bytes) -> Message | None:
        """The server's answer, or ``None`` for silence."""
        raw = self.send_raw(data)
        return parse(raw).message if raw is not None else None

    def give(self, data: bytes) -> None:
        """Bytes for the server; what it sends is taken by somebody else."""
        self.world.server.receive(data, self.address, self.world.now, SERVER, transport=self.transport)

    def send_raw(self, data: bytes) -> bytes | None:
        self.give(data)
        answers = []
        while (transmit := self.world.server.next_transmit()) is not None:
            assert (transmit.destination, transmit.local) == (self.address, SERVER)
            assert transmit.transport is self.transport
            answers.append(bytes(transmit.data))
        assert len(answers) <= 1
        return answers[0] if answers else None


def dual_ports() -> FakePorts:
    """Relay ports of both families."""
    ports = FakePorts()
    ports.families.add(a.FAMILY_IPV6)
    ports.free += [Address(RELAY_HOST_6, 50_001 + n) for n in range(100)]
    ports.relay_hosts.add(RELAY_HOST_6)
    return ports


def error_code(message: Message) -> int:
    if message.message_class is MessageClass.SUCCESS:
        return 0
    error = message.get(a.ErrorCode)
    assert error is not None
    return error.code


def segments(transmit: Transmit) -> list[bytes]:
    data = bytes(transmit.data)
    size = transmit.segment_size or len(data) or 1
    return [data[start : start + size] for start in range(0, len(data) or 1, size)]


def events(client: TurnClient) -> list[TurnEvent]:
    """What a client has said since it was last asked."""
    found = []
    while (event := client.next_event()) is not None:
        found.append(event)
    return found


def methods(world: World) -> list[Method]:
    """Count what the clients send from here on, by method."""
    seen: list[Method] = []

    def note(transmit: Transmit, to_server: bool) -> bool:
        if to_server and transmit.data[0] < 0x40:
            seen.append(parse(transmit.data).message.method)
        return False

    world.lose = note
    return seen
