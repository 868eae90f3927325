"""The server's STUN and TURN front: its sockets, and the machines behind them.

UDP, TCP and TLS all bring Binding and TURN. Everything that decides is in `stun/` and `turn/`; here they are
put together with the sockets of `udp_front`, `stream_front` and `turn_driver`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.errors import LocalProblem, UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.server.descriptors import default_limits
from crowline.server.fast_path import quicken
from crowline.server.relay_ports import SocketRelayPorts
from crowline.server.relay_socket import SharedRelaySocket
from crowline.server.shared_front import SharedFront
from crowline.server.stream_client import StreamClient, StreamKey
from crowline.server.stream_front import StreamFront
from crowline.server.turn_driver import TurnDriver
from crowline.server.udp_front import BIND_ATTEMPTS, UdpFront, hosts_of
from crowline.server.worker_pool import WorkerPool
from crowline.stun.budget import BINDING, CHALLENGE, Allowance, ReplyBudget
from crowline.turn.auth import DEFAULT_REALM, Authenticator
from crowline.turn.quota import Limits
from crowline.turn.server import TurnServer


class TlsIdentity(Protocol):
    """Implemented by `certificate.Certificate`."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        ...


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
        tls_listen: Sequence[Address] = (),
        tls: TlsIdentity | None = None,
        http: Callable[[], asyncio.Protocol | None] = lambda: None,
        workers: int = 1,
        on_failure: Callable[[LocalProblem], None] = lambda problem: None,
    ) -> None:
        """`listen` addresses may be wildcards (`::` is IPv4 too), their port 0.

        `public_address` is what clients see of a server behind a 1:1 NAT. `relay_ports` is an inclusive
        range. With `alternate_address`, a second address of this machine, RFC 5780 works. With `tls`, the
        addresses `tls_listen` serve TLS, and `http()` makes the protocol of each HTTP connection there.
        More than one of `workers` are processes that carry UDP; `on_failure` hears when they cannot go on.
        """
        if not listen:
            raise UsageError("A STUN and TURN server needs an address to listen on.")
        self._listen = [listen] if isinstance(listen, Address) else list(listen)
        self._wants_tcp = tcp
        self._tls_listen = list(tls_listen)
        self._tls = tls
        self._driver = TurnDriver(self._send, self._find_stream)
        self._streams = StreamFront(self._driver, http)
        limits = limits or default_limits()
        self._pool = None
        if workers > 1:
            self._pool = WorkerPool(
                workers, bytes_per_second=limits.bytes_per_second, binding=binding, on_failure=on_failure
            )
        ports = SocketRelayPorts(
            [host for address in self._listen for host in hosts_of(address, self._listen)],
            self._driver.from_peer if self._pool is None else self._pool.from_peer,
            clock=time.monotonic,
            public_address=public_address,
            port_range=relay_ports,
            on_connect=self._driver.peer_connected,
            on_icmp=self._driver.from_router,
            make_socket=None if self._pool is None else SharedRelaySocket.bind,
        )
        machine = TurnServer(
            Authenticator(
                secret,
                entropy=os.urandom,
                epoch=time.time() - time.monotonic(),
                realm=realm,
                users=users,
                is_current=is_current,
            ),
            ports,
            permits=permits,
            policy=policy or AddressPolicy(),
            entropy=os.urandom,
            limits=limits,
            budget=ReplyBudget(challenge),
        )
        self._driver.start(machine, ports)
        self._ports = ports
        make_front: Callable[..., UdpFront] = UdpFront
        if self._pool is not None:
            make_front = partial(SharedFront, workers=workers, send=self._pool.send)
        self._udp = make_front(
            self._listen,
            receive=self._driver.receive,
            flush=self._driver.flush,
            drop=self._driver.drop,
            outgoing_host=ports.outgoing_host,
            alternate_address=alternate_address,
            binding=binding,
        )
        if self._pool is not None and isinstance(self._udp, SharedFront):
            self._pool.attach(self._driver, self._udp)

    @property
    def udp_addresses(self) -> list[Address]:
        return self._udp.addresses

    @property
    def tcp_addresses(self) -> list[Address]:
        return self._streams.tcp_addresses

    @property
    def tls_addresses(self) -> list[Address]:
        return self._streams.tls_addresses

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
                await self._bind()
                break
            except BaseException as error:
                await self.close()
                if not isinstance(error, LocalProblem) or attempt + 1 == attempts:
                    raise
        if self._pool is not None:
            try:
                await self._pool.start()
            except BaseException:
                await self.close()
                raise

    @property
    def worker_pids(self) -> list[int]:
        """The processes that carry UDP, if it is not this one."""
        return self._pool.pids if self._pool is not None else []

    def drain(self, alternate: Address | None) -> None:
        """Make no new allocations; those that are there go on. Clients are sent to `alternate`."""
        self._driver.machine.drain(alternate, time.monotonic())

    @property
    def is_idle(self) -> bool:
        """Whether nobody has an allocation."""
        return self._driver.machine.is_idle

    def has_client(self, user: str, host: str) -> bool:
        """Whether that user has an allocation for a client at that IP address."""
        own = self._driver.machine.allocations.of_user(user)
        return any(each.five_tuple.client.host == host for each in own)

    async def close(self) -> None:
        """End all allocations and close every socket."""
        if self._pool is not None:
            await self._pool.close()
        # What streams say when they end is still for the machine.
        await self._streams.close()
        await self._driver.close()
        self._udp.close()

    @property
    def counters(self) -> dict[str, int]:
        """What happened, by name; `allocations` is how many there are now."""
        turn = self._driver.machine
        merged: Counter[str] = Counter()
        for own in (self._udp.counters, self._driver.counters, self._streams.counters):
            merged.update(own)
        if self._pool is not None:
            merged.update(self._pool.all_counters())
        merged.update({f"stun_{name}": count for name, count in self._udp.responder.counters.items()})
        merged.update({f"tcp_{name}": count for name, count in self._streams.responder.counters.items()})
        merged.update({f"turn_{name}": count for name, count in turn.counters.items()})
        merged["allocations"] = len(turn.allocations)
        return dict(merged)

    async def _bind(self) -> None:
        self._udp.bind()
        quicken(self._udp, self._ports, self._driver.machine)
        if self._wants_tcp:
            self._streams.responder.alternates = self._udp.responder.alternates
            for address in self.udp_addresses:
                await self._streams.listen(address)
            for address in self._udp.further_addresses:
                await self._streams.listen_beside(address)
        for address in self._tls_listen:
            for host in hosts_of(address, self._tls_listen):
                await self._streams.listen_tls(Address(host, address.port), self._tls_context)

    def _tls_context(self) -> ssl.SSLContext:
        assert self._tls is not None, "TLS needs a certificate"
        return self._tls.context

    def _send(self, transmit: Transmit) -> None:
        if transmit.transport.is_stream:
            self._streams.send(transmit)
        else:
            self._udp.send(transmit)

    def _find_stream(self, key: StreamKey) -> StreamClient | None:
        return self._streams.find(key)
