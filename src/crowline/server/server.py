"""The whole server: rendezvous hub, STUN and TURN in one event loop; workers may carry UDP beside it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.errors import LocalProblem
from crowline.base.secrets import Secret
from crowline.net.interfaces import local_addresses
from crowline.rendezvous.hub import Hub
from crowline.rendezvous.wire import ServerAddress, TurnGrant
from crowline.server.certificate import Certificate
from crowline.server.config import TLS_PORT, TURN_LIFETIME, ServerConfig
from crowline.server.front import StunTurnFront
from crowline.server.gate import Gate
from crowline.server.http import HttpServer
from crowline.server.hub import HubFront
from crowline.server.listener import bound_address, listen, stun_addresses
from crowline.server.relay_ports import is_wildcard
from crowline.server.turn_settings import HUB_PREFIX
from crowline.turn.auth import issue_credentials

DRAIN_STEP = 0.1  # seconds between looks at what is still in use
# Entries of a list of services: what a client reads at most.
MAX_SERVICES = 8


class Server:
    """`async with Server(config) as server:` listens inside the block, or raises `LocalProblem`."""

    def __init__(self, config: ServerConfig | None = None) -> None:
        self.config = config or ServerConfig()
        self.on_failure: Callable[[LocalProblem], None] = lambda problem: None
        """Called when the server cannot go on; whoever runs it should end it then."""
        self._secret = self.config.auth_secret or Secret(os.urandom(32))
        self._front: StunTurnFront | None = None
        self._hub_front: HubFront | None = None
        self._http: HttpServer | None = None
        self._hub_address: Address | None = None
        self._certificate: Certificate | None = None

    @property
    def address(self) -> Address:
        """Where the hub listens."""
        assert self._hub_address is not None, "the server is not running"
        return self._hub_address

    @property
    def url(self) -> str:
        """What a client on this machine gives to ``--server``."""
        return f"ws://{_reachable(self.address)}"

    @property
    def outside_url(self) -> str:
        """What a client elsewhere gives to ``--server``, as far as this machine can tell."""
        secure = self.tls_addresses
        scheme, bound = ("wss", secure[0]) if secure else ("ws", self.address)
        host = "" if is_wildcard(bound.host) else bound.host
        host = host or self.config.public_address or next(iter(local_addresses()), "")
        if self._certificate is not None and self._certificate.name:
            return f"wss://{self._certificate.name}" + ("" if bound.port == TLS_PORT else f":{bound.port}")
        return f"{scheme}://{Address(host, bound.port)}" if host else self.url

    @property
    def stun(self) -> Address:
        """Where STUN and TURN listen, the first address."""
        return self.stun_addresses[0]

    @property
    def stun_addresses(self) -> tuple[Address, ...]:
        """Where STUN and TURN listen."""
        assert self._front is not None, "the server is not running"
        return tuple(self._front.udp_addresses)

    @property
    def tls_addresses(self) -> tuple[Address, ...]:
        """Where all of it listens over TLS."""
        assert self._front is not None, "the server is not running"
        return tuple(self._front.tls_addresses)

    @property
    def hub(self) -> Hub:
        """The machine behind the WebSockets."""
        assert self._hub_front is not None, "the server is not running"
        return self._hub_front.hub

    async def __aenter__(self) -> Self:
        if self.config.tls is not None:
            self._certificate = Certificate(self.config.tls.cert, self.config.tls.key)
        sock = listen(self.config.listen)
        try:
            self._hub_address = bound_address(sock)
            self._front = self._make_front()
            await self._front.start()
            self._hub_front = HubFront(self._make_hub(), self.config.origins, self.config.trusted_proxies)
            gate = Gate(proxies=self.config.trusted_proxies)
            self._http = HttpServer(self._hub_front.app, sock, gate)
            await self._http.start()
        except BaseException:
            sock.close()
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def permits(self, user: str, peer: Address) -> bool:
        """Whether a TURN user may reach `peer`: of the hub its meeting, of others what the policy allows."""
        return not user.startswith(HUB_PREFIX) or self.hub.permits(user.removeprefix(HUB_PREFIX), peer)

    async def drain(self) -> None:
        """Take nothing new; returns when nothing is in use any more, or after `config.drain` seconds."""
        assert self._http is not None and self._front is not None
        self._front.drain(self.config.alternate_server)
        await self._http.stop_listening()
        for _ in range(int(self.config.drain / DRAIN_STEP)):
            if self._is_idle:
                return
            await asyncio.sleep(DRAIN_STEP)

    def reload(self) -> None:
        """Read the certificate again. Raises `LocalProblem`; then the old one stays."""
        if self._certificate is not None:
            self._certificate.reload()

    async def close(self) -> None:
        """End every connection and give the ports back."""
        if self._hub_front is not None:
            self._hub_front.close()
        try:
            if self._http is not None:
                await self._http.close()
        finally:
            if self._front is not None:
                await self._front.close()

    def _make_front(self) -> StunTurnFront:
        config = self.config
        return StunTurnFront(
            stun_addresses(config.stun_listen),
            alternate_address=config.alternate_address,
            public_address=config.public_address,
            relay_ports=config.relay_ports,
            secret=self._secret,
            permits=self.permits,
            is_current=self._is_current,
            policy=AddressPolicy(config.allow_peers, config.allow_loopback),
            realm=config.realm,
            users=config.users,
            limits=config.turn_limits,
            binding=config.binding,
            workers=config.workers,
            on_failure=lambda problem: self.on_failure(problem),
            tls_listen=stun_addresses(config.tls.listen) if config.tls else (),
            tls=self._certificate,
            http=lambda: self._http.connection() if self._http is not None else None,
        )

    def _make_hub(self) -> Hub:
        return Hub(
            entropy=os.urandom,
            limits=self.config.limits,
            grant=self._grant,
            has_relay_client=self._has_relay_client,
            stun=self._stun_services(),
            motd=self.config.motd,
        )

    def _grant(self, user: str) -> TurnGrant:
        expires = int(time.time()) + TURN_LIFETIME
        username, password = issue_credentials(self._secret, HUB_PREFIX + user, expires)
        return TurnGrant(self._services(), username, password, TURN_LIFETIME)

    def _is_current(self, user: str) -> bool:
        return not user.startswith(HUB_PREFIX) or self.hub.knows(user.removeprefix(HUB_PREFIX))

    def _has_relay_client(self, user: str, host: str) -> bool:
        return self._front is not None and self._front.has_client(HUB_PREFIX + user, host)

    @property
    def _is_idle(self) -> bool:
        return self._front is None or (self._front.is_idle and not self.hub.is_in_use)

    def _stun_services(self) -> tuple[ServerAddress, ...]:
        """STUN as clients reach it: where the hub is, unless it listens or is seen elsewhere."""
        assert self._front is not None
        datagrams = dict.fromkeys(self._service(address, "udp") for address in self._front.udp_addresses)
        streams = dict.fromkeys(self._service(address, "tcp") for address in self._front.tcp_addresses)
        return (*datagrams, *streams)[:MAX_SERVICES]

    def _services(self) -> tuple[ServerAddress, ...]:
        """The same for TURN, which TLS leads to as well."""
        assert self._front is not None
        secure = dict.fromkeys(self._tls_service(address) for address in self._front.tls_addresses)
        return (*self._stun_services(), *secure)[:MAX_SERVICES]

    def _service(self, bound: Address, transport: Literal["udp", "tcp"]) -> ServerAddress:
        own = "" if is_wildcard(bound.host) else bound.host
        return ServerAddress(self.config.public_address or own, bound.port, transport)

    def _tls_service(self, bound: Address) -> ServerAddress:
        """A certificate that nobody else vouches for is pinned; others are for the name of the hub."""
        assert self._certificate is not None
        if not self._certificate.is_self_signed:
            return ServerAddress("", bound.port, "tls")
        own = "" if is_wildcard(bound.host) else bound.host
        return ServerAddress(
            self.config.public_address or own, bound.port, "tls", self._certificate.fingerprint
        )


def _reachable(address: Address) -> Address:
    return Address("127.0.0.1", address.port) if is_wildcard(address.host) else address
