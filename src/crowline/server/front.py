"""The server's STUN and TURN front: its sockets, and the machines behind them.

UDP brings Binding and TURN, TCP brings Binding. Everything that decides is in `stun/` and `turn/`; here they
are put together with the sockets of `udp_front` and `stun_tcp`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.errors import LocalProblem, UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.server.relay_ports import SocketRelayPorts
from crowline.server.stun_tcp import BindingServer
from crowline.server.turn_driver import TurnDriver
from crowline.server.udp_front import BIND_ATTEMPTS, UdpFront, hosts_of
from crowline.stun.budget import BINDING, CHALLENGE, Allowance, ReplyBudget
from crowline.stun.responder import Responder
from crowline.turn.auth import DEFAULT_REALM, Authenticator
from crowline.turn.quota import Limits
from crowline.turn.server import TurnServer

if sys.platform != "win32":
    import resource


class StunTurnFront:
    """STUN and TURN on the given addresses. After `start`, `udp_addresses` and `tcp_addresses` are bound.

    `permits(user, peer)` says whether the user that `turn.auth.issue_credentials` was called with may
    exchange datagrams with `peer`; `policy` must agree. Relayed addresses of this server are always allowed.
    `is_current(user)` says whether that user may still make new allocations.
    """

    def __init__(
        self,
        listen: Address | Sequence[Address],
        *,
        secret: Secret,
        permits: Callable[[str, Address], bool],
        is_current: Callable[[str], bool] = lambda user: True,
        policy: AddressPolicy | None = None,
        public_address: str | None = None,
        relay_ports: tuple[int, int] | None = None,
        alternate_address: str | None = None,
        realm: str = DEFAULT_REALM,
        users: Mapping[str, Secret] | None = None,
        limits: Limits | None = None,
        binding: Allowance = BINDING,
        challenge: Allowance = CHALLENGE,
        tcp: bool = True,
    ) -> None:
        """`listen` addresses may be wildcards (`::` is IPv4 too), their port 0.

        `public_address` is what clients see of a server behind a 1:1 NAT. `relay_ports` is an inclusive
        range. With `alternate_address`, a second address of this machine, RFC 5780 works.
        """
        if not listen:
            raise UsageError("A STUN and TURN server needs an address to listen on.")
        self.tcp_addresses: list[Address] = []
        self._listen = [listen] if isinstance(listen, Address) else list(listen)
        self._wants_tcp = tcp
        self._own: Counter[str] = Counter()
        self._tcp_servers: list[asyncio.Server] = []
        # A TCP connection cannot be answered from another address, so RFC 5780 stays out of it.
        self._tcp_responder = Responder()
        self._driver = TurnDriver(self._send)
        self._driver.ports = SocketRelayPorts(
            [host for address in self._listen for host in hosts_of(address, self._listen)],
            self._driver.from_peer,
            clock=time.monotonic,
            public_address=public_address,
            port_range=relay_ports,
        )
        self._driver.machine = TurnServer(
            Authenticator(
                secret,
                entropy=os.urandom,
                epoch=time.time() - time.monotonic(),
                realm=realm,
                users=users,
                is_current=is_current,
            ),
            self._driver.ports,
            permits=permits,
            policy=policy or AddressPolicy(),
            entropy=os.urandom,
            limits=limits or _default_limits(),
            budget=ReplyBudget(challenge),
        )
        self._udp = UdpFront(
            self._listen,
            receive=self._driver.receive,
            flush=self._driver.flush,
            drop=self._driver.drop,
            outgoing_host=self._driver.ports.outgoing_host,
            alternate_address=alternate_address,
            binding=binding,
        )

    @property
    def udp_addresses(self) -> list[Address]:
        return self._udp.addresses

    @property
    def address(self) -> Address:
        """The first UDP address."""
        return self.udp_addresses[0]

    async def start(self) -> None:
        """Bind everything. Raises `LocalProblem` and leaves nothing open when an address cannot be used."""
        # A port that the kernel chose for UDP may be taken for TCP: then another one is tried.
        attempts = BIND_ATTEMPTS if any(address.port == 0 for address in self._listen) else 1
        for attempt in range(attempts):
            try:
                await self._start_once()
                return
            except BaseException as error:
                await self.close()
                if not isinstance(error, LocalProblem) or attempt + 1 == attempts:
                    raise

    async def close(self) -> None:
        """End all allocations and close every socket."""
        self._driver.close()
        self._udp.close()
        for server in self._tcp_servers:
            server.close()
            if hasattr(server, "abort_clients"):
                server.abort_clients()
        self._tcp_servers.clear()
        self.tcp_addresses.clear()

    @property
    def counters(self) -> dict[str, int]:
        """What happened, by name; `allocations` is how many there are now."""
        turn = self._driver.machine
        merged: Counter[str] = Counter()
        for own in (self._own, self._udp.counters, self._driver.counters):
            merged.update(own)
        merged.update({f"stun_{name}": count for name, count in self._udp.responder.counters.items()})
        merged.update({f"tcp_{name}": count for name, count in self._tcp_responder.counters.items()})
        merged.update({f"turn_{name}": count for name, count in turn.counters.items()})
        merged["allocations"] = len(turn.allocations)
        return dict(merged)

    async def _start_once(self) -> None:
        self._udp.bind()
        if self._wants_tcp:
            for address in self.udp_addresses:
                await self._start_tcp(address)

    async def _start_tcp(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        server = BindingServer(self._tcp_responder, self._own)
        try:
            listener = await loop.create_server(server.connection, address.host, address.port)
        except OSError as error:
            raise LocalProblem(
                f"TCP {address} cannot be used: {error.strerror}.",
                hint="Another program may have the port; choose another one.",
            ) from error
        self._tcp_servers.append(listener)
        self.tcp_addresses.append(address)

    def _send(self, transmit: Transmit) -> None:
        self._udp.send(transmit)


def _default_limits() -> Limits:
    """Each allocation is a descriptor; half of them stay for clients of the hub and everything else."""
    if sys.platform == "win32":
        return Limits()
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return Limits()
    return Limits(allocations=min(Limits().allocations, descriptors // 2))
