"""`portmap/router_client.py` in an asyncio loop: its datagrams, its HTTP requests, its timer."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError
from crowline.base.machine import Transmit
from crowline.net.chores import Chores
from crowline.net.gateway import Gateway, is_same_station
from crowline.net.gateway_http import fetch
from crowline.net.multicast_ear import multicast_ear, speak_to_groups
from crowline.net.pump import Pump
from crowline.portmap.client import LIFETIME
from crowline.portmap.router_client import RouterClient
from crowline.portmap.router_events import Protocol, RouterEvent
from crowline.portmap.router_port import KnownRouter, OpenPort
from crowline.portmap.upnp.events import HttpRequest
from crowline.portmap.upnp.ssdp import GROUP_IPV4, GROUP_IPV6
from crowline.rendezvous.rate import Bucket

# Seconds to wait at the end until everything is closed.
CLOSE_LIMIT = 3.5
# Routers announce their restart here (RFC 6886 §3.2.1, RFC 6887 §14.1.1).
_ANNOUNCEMENTS = {False: Address("224.0.0.1", 5350), True: Address("ff02::1", 5350)}
# UPnP Device Architecture 1.1 §1.3.2 wants searches to stay near.
_HOPS = 2
# Bytes of a datagram that are worth reading.
_LARGEST = 2048
# Questions who is who on the network, at once and each second from then on: each costs a look at the system's
# table, and anybody can send datagrams.
_MOST_LOOKS, _LOOKS_EACH_SECOND = 32, 1.0
# Addresses of one router that are remembered.
_MOST_ADDRESSES = 16


class RouterDriver:
    """All that is asked of one router for `gateway.source`. Made in a running loop; `close` it.

    `on_event` gets the client's events.
    """

    def __init__(
        self,
        gateway: Gateway,
        on_event: Callable[[RouterEvent], None],
        *,
        lifetime: int = LIFETIME,
        known: KnownRouter | None = None,
    ) -> None:
        """Raises `OSError` where the address is none of this machine's, and `UsageError` for a lifetime that
        no router gives."""
        self.gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._chores = Chores()
        self._transports: list[asyncio.DatagramTransport] = []
        self._early: list[Transmit] = []
        self._socket: asyncio.DatagramTransport | None = None
        self._others: set[str] = set()
        self._looks = Bucket(_MOST_LOOKS, _LOOKS_EACH_SECOND, self._loop.time())
        self._is_closed = False
        self._idle = asyncio.Event()
        self._client = RouterClient(
            gateway.source,
            gateway.host,
            os.urandom,
            self._loop.time(),
            lifetime=lifetime,
            known=known,
            is_gateway=self._is_gateway if gateway.is_ipv6 else None,
        )
        # Nobody's until the loop has turned once.
        self._unheard: socket.socket | None = self._bind()
        self._on_event = on_event
        self._pump = Pump[Transmit, RouterEvent](self._client, self._send, on_event, on_timeout=self._flush)
        self._chores.beside(self._listen())
        self._flush()

    @property
    def client(self) -> RouterClient:
        """What is known of the router: its protocols, its outside address."""
        return self._client

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        return self._client.protocols

    def open(self, wanted: OpenPort) -> int:
        """As `RouterClient.open`; events of the port come after this call."""
        number = self._client.open(wanted, self._pump.now)
        self._loop.call_soon(self._flush)
        return number

    def list_ports(self) -> None:
        """As `RouterClient.list_ports`."""
        self._client.list_ports(self._pump.now)
        self._flush()

    def close_port(self, number: int) -> None:
        """As `RouterClient.close`."""
        self._client.close(number, self._pump.now)
        self._flush()

    async def aclose(self) -> None:
        """Close every port, as far as the router answers, and end."""
        if not self._is_closed:
            self._client.close_all(self._pump.now)
            self._flush()
        try:
            if not self._client.is_idle and not self._is_closed:
                self._idle.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), CLOSE_LIMIT)
        finally:
            self.close()
        await self._chores.close()

    def close(self) -> None:
        """End at once; what is open ends with its lifetime."""
        self._is_closed = True
        self._pump.close()
        self._chores.stop()
        for transport in self._transports:
            transport.abort()
        self._transports.clear()
        if self._unheard is not None:
            self._unheard.close()
            self._unheard = None

    # --- datagrams --------------------------------------------------------------------------------------

    def _bind(self) -> socket.socket:
        gateway = self.gateway
        sock = socket.socket(socket.AF_INET6 if gateway.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.bind((gateway.source, 0))
            with suppress(OSError):
                speak_to_groups(sock, gateway.source, gateway.index, _HOPS)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _listen(self) -> None:
        """Hear answers, and then what the router tells everybody where that is allowed."""
        sock, self._unheard = self._unheard, None
        assert sock is not None
        try:
            self._socket = await self._adopt(sock)
        except BaseException:
            sock.close()
            raise
        for transmit in self._early:
            self._send(transmit)
        self._early.clear()
        is_ipv6, source, index = self.gateway.is_ipv6, self.gateway.source, self.gateway.index
        for group in (_ANNOUNCEMENTS[is_ipv6], GROUP_IPV6 if is_ipv6 else GROUP_IPV4):
            with suppress(OSError):
                ear = multicast_ear(group, source, index)
                try:
                    await self._adopt(ear)
                except BaseException:
                    ear.close()
                    raise

    async def _adopt(self, sock: socket.socket) -> asyncio.DatagramTransport:
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Datagrams(self._received), sock=sock
        )
        self._transports.append(transport)
        return transport

    def _send(self, transmit: Transmit) -> None:
        if self._socket is None:
            self._early.append(transmit)
            return
        to = transmit.destination
        if to.is_ipv6:
            self._socket.sendto(bytes(transmit.data), (to.host, to.port, 0, self._scope(to.host)))
        else:
            self._socket.sendto(bytes(transmit.data), (to.host, to.port))

    def _received(self, data: bytes, name: Any) -> None:
        if self._is_closed or len(data) > _LARGEST:
            return
        host = str(name[0]).partition("%")[0]
        if len(name) == 4 and name[3] not in (0, self.gateway.index):
            return  # a link-local address of another network
        self._client.receive(data, Address(host, name[1]), self._pump.now)
        self._flush()

    def _scope(self, host: str) -> int:
        return self.gateway.index if host.startswith(("fe80:", "ff")) else 0

    def _is_gateway(self, host: str) -> bool:
        """Whether the router has that address too, as far as the network's addresses tell."""
        if host in self._others:
            return True
        # A no is not remembered: the table may learn of the address with the next packet.
        is_same = self._looks.take(1, self._loop.time()) and is_same_station(
            self.gateway.host, host, self.gateway.index
        )
        if is_same and len(self._others) < _MOST_ADDRESSES:
            self._others.add(host)
        return is_same

    # --- requests ---------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._pump.flush()
        while not self._is_closed and (request := self._client.next_request()) is not None:
            self._chores.beside(self._fetch(request))
        if self._client.is_idle:
            self._idle.set()

    async def _fetch(self, request: HttpRequest) -> None:
        try:
            answer = await fetch(request, self.gateway.source, self.gateway.index)
        except (OSError, CrowlineError):
            self._client.receive_failure(request.number, self._pump.now)
        else:
            self._client.receive_answer(request.number, answer.status, answer.body, self._pump.now)
        self._flush()


class _Datagrams(asyncio.DatagramProtocol):
    """Hands on what comes; that something could not be sent is no news, since requests are repeated."""

    def __init__(self, on_receive: Callable[[bytes, Any], None]) -> None:
        self._on_receive = on_receive

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._on_receive(data, addr)
