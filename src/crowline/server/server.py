"""The whole server: rendezvous hub, STUN and TURN in one process and one event loop."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Self

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.secrets import Secret
from crowline.net.interfaces import local_addresses
from crowline.rendezvous.hub import Hub
from crowline.rendezvous.wire import ServerAddress, TurnGrant
from crowline.server.config import TURN_LIFETIME, ServerConfig
from crowline.server.front import StunTurnFront
from crowline.server.gate import Gate
from crowline.server.http import HttpServer
from crowline.server.hub import HubFront
from crowline.server.listener import bound_address, listen, stun_addresses
from crowline.server.relay_ports import is_wildcard
from crowline.turn.auth import issue_credentials


class Server:
    """`async with Server(config) as server:` listens inside the block, or raises `LocalProblem`."""

    def __init__(self, config: ServerConfig | None = None) -> None:
        self.config = config or ServerConfig()
        self._secret = Secret(os.urandom(32))
        self._front: StunTurnFront | None = None
        self._hub_front: HubFront | None = None
        self._http: HttpServer | None = None
        self._hub_address: Address | None = None

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
        if not is_wildcard(self.address.host):
            return self.url
        host = self.config.public_address or next(iter(local_addresses()), None)
        return self.url if host is None else f"ws://{Address(host, self.address.port)}"

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
    def hub(self) -> Hub:
        """The machine behind the WebSockets."""
        assert self._hub_front is not None, "the server is not running"
        return self._hub_front.hub

    async def __aenter__(self) -> Self:
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

    async def close(self) -> None:
        """End every connection and give the ports back."""
        if self._hub_front is not None:
            self._hub_front.close()
        if self._http is not None:
            await self._http.close()
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
            permits=lambda user, peer: self.hub.permits(user, peer),
            is_current=lambda user: self.hub.knows(user),
            policy=AddressPolicy(config.allow_peers, config.allow_loopback),
        )

    def _make_hub(self) -> Hub:
        return Hub(
            entropy=os.urandom,
            limits=self.config.limits,
            grant=self._grant,
            stun=self._services(),
            motd=self.config.motd,
        )

    def _grant(self, user: str) -> TurnGrant:
        username, password = issue_credentials(self._secret, user, int(time.time()) + TURN_LIFETIME)
        return TurnGrant(self._services(), username, password, TURN_LIFETIME)

    def _services(self) -> tuple[ServerAddress, ...]:
        """STUN and TURN as clients reach them: where the hub is, unless they listen or are seen elsewhere."""
        assert self._front is not None
        found = dict.fromkeys(self._service(address) for address in self._front.udp_addresses)
        return tuple(found)

    def _service(self, bound: Address) -> ServerAddress:
        own = "" if is_wildcard(bound.host) else bound.host
        return ServerAddress(self.config.public_address or own, bound.port)


def _reachable(address: Address) -> Address:
    return Address("127.0.0.1", address.port) if is_wildcard(address.host) else address
