"""A TURN server without sockets, and clients that keep what they were given."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import MalformedStun, Message, MessageClass, Method, parse
from crowline.turn.auth import Authenticator, issue_credentials
from crowline.turn.codes import STALE_NONCE, UNAUTHORIZED
from crowline.turn.credentials import LongTermCredentials
from crowline.turn.quota import Limits
from crowline.turn.server import TurnServer

SERVER = Address("44.1.1.1", 3478)
HOSTS = {a.FAMILY_IPV4: "44.1.1.1", a.FAMILY_IPV6: "2a01:4f8:1::1"}
SECRET = Secret(b"a secret of the server")
EPOCH = 1_800_000_000.0
PORTS = 12
LIMITS = Limits(
    allocations_per_user=6, allocations=12, permissions=3, channels=3, connections=3, bytes_per_second=1e6
)


class Ports:
    """A few ports of both families; UDP and TCP each have their own."""

    can_set_dont_fragment = True

    def __init__(self) -> None:
        self.opened: set[tuple[Address, Transport]] = set()
        self._dice = random.Random(5)

    def open(
        self,
        family: int,
        local: Address | None,
        *,
        even: bool = False,
        reserve: bool = False,
        transport: Transport = Transport.UDP,
    ) -> Address | None:
        free = [port for port in range(50_000, 50_000 + PORTS) if self._is_free(family, port, transport)]
        fitting = [
            port
            for port in free
            if not (even and port % 2) and (not reserve or self._is_free(family, port + 1, transport))
        ]
        if not fitting:
            return None
        address = Address(HOSTS[family], self._dice.choice(fitting))
        self.opened.add((address, transport))
        if reserve:
            self.opened.add((Address(address.host, address.port + 1), transport))
        return address

    def close(self, relayed: Address, transport: Transport = Transport.UDP) -> None:
        self.opened.remove((relayed, transport))

    def has_family(self, family: int, local: Address | None) -> bool:
        return family in HOSTS

    def is_relay_host(self, host: str) -> bool:
        return host in HOSTS.values()

    def is_own_host(self, host: str) -> bool:
        return host in HOSTS.values()

    def _is_free(self, family: int, port: int, transport: Transport) -> bool:
        return (Address(HOSTS[family], port), transport) not in self.opened


@dataclass(slots=True)
class Client:
    """One 5-tuple with its credentials, its last request, and the ticket and token that it was given."""

    address: Address
    transport: Transport
    credentials: LongTermCredentials
    last: bytes = b""
    ticket: bytes = b""
    token: bytes = bytes(8)


@dataclass(slots=True)
class Sent:
    """What left the server in one step."""

    to_clients: list[tuple[Address, bytes]] = field(default_factory=list)
    to_peers: list[tuple[Address, Address, bytes]] = field(default_factory=list)


def make_server(ports: Ports) -> TurnServer:
    """A server that permits every peer which the address policy permits."""
    return TurnServer(
        Authenticator(SECRET, entropy=random.Random(1).randbytes, epoch=EPOCH),
        ports,
        permits=lambda user, peer: True,
        policy=AddressPolicy(),
        entropy=random.Random(2).randbytes,
        limits=LIMITS,
    )


def make_clients() -> list[Client]:
    """Two users; each has clients on UDP, TCP and TLS, so that it can move and bind connections."""
    made = []
    for number, user in enumerate(("one", "two"), 2):
        username, password = issue_credentials(SECRET, user, int(EPOCH) + 86_400)
        for port, transport in enumerate((Transport.UDP, Transport.UDP, Transport.TCP, Transport.TLS), 5000):
            credentials = LongTermCredentials(username, Secret(password.encode()))
            made.append(Client(Address(f"44.{number}.2.2", port), transport, credentials))
    return made


def error_of(answer: Message) -> int:
    """The code of an error, 0 for a success."""
    error = answer.get(a.ErrorCode)
    return error.code if error is not None and answer.message_class is MessageClass.ERROR else 0


def is_error(data: bytes) -> bool:
    """Whether that is an error response."""
    try:
        return error_of(parse(data).message) != 0
    except MalformedStun:
        return False


def take_challenge(client: Client, data: bytes, used: str | None) -> bool:
    """Whether `data` is a challenge that makes another try worth while."""
    received = parse(data)
    code = error_of(received.message)
    return code in (UNAUTHORIZED, STALE_NONCE) and client.credentials.take_challenge(code, received, used)


def request(method: Method, identifier: bytes, *attributes: a.AnyAttribute) -> Message:
    return Message(method, MessageClass.REQUEST, identifier, attributes)
