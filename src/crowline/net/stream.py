"""One TCP or TLS connection to a STUN or TURN server, directly or through the proxy of the environment."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.errors import ServerUnreachable
from crowline.base.machine import Buffer
from crowline.base.transport import Transport
from crowline.net.proxies import open_through, proxy_for
from crowline.net.tls_proxy import open_by_tls

# Seconds for name, TCP, proxy and TLS together; whoever waits longer is better off with link zero.
OPEN_LIMIT = 10.0
# Seconds in which what was written before the end may still leave.
CLOSE_LIMIT = 5.0
# Seconds after which the next address of a name is tried beside the first (RFC 8305 §5).
ATTEMPT_DELAY = 0.25
# Bytes that wait for the kernel before a bulk sender should pause, and before datagrams are lost: a hundred
# milliseconds of 20 Mbit/s. What waits longer is late for the connection inside, which repeats it then.
PAUSE_AT = 256 * 1024
LOSE_AT = 512 * 1024
# Bytes that the kernel keeps beyond those on the wire: a queue there could not be measured here.
_UNSENT_LIMIT = 128 * 1024
# RFC 7443 §2: tells TURN from whatever else a server may serve on the port.
_ALPN = "stun.turn"


class StreamTarget(Struct, frozen=True):
    """Where to connect. `host` is an address or a name; a TLS certificate has to be the one with the SHA-256
    `fingerprint` (hexadecimal), or without one, good for `name` or else `host` by the system's authorities.
    """

    host: str
    port: int
    transport: Transport = Transport.TCP
    fingerprint: str = ""
    name: str = ""


class StreamSocket(asyncio.Protocol):
    """An open connection. `on_receive` gets bytes as they come, `on_closed` once the reason for the end.

    `local` and `remote` are the ends of the TCP connection; with a proxy, `remote` is the proxy.
    """

    def __init__(
        self, on_receive: Callable[[bytes], None], on_closed: Callable[[str], None], fingerprint: str = ""
    ) -> None:
        self.local = self.remote = Address("0.0.0.0", 0)
        self.lost = 0
        self.connect_time = 0.0  # seconds from the first packet until it was open
        self._on_receive = on_receive
        self._on_closed = on_closed
        self._fingerprint = fingerprint
        self._is_impostor = False
        self._transport: asyncio.Transport | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    async def connect(
        cls,
        target: StreamTarget,
        on_receive: Callable[[bytes], None],
        on_closed: Callable[[str], None],
    ) -> StreamSocket:
        """Raises `ServerUnreachable` when nobody answers, or with the wrong certificate."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        secure = target.transport is Transport.TLS
        stream = cls(on_receive, on_closed, target.fingerprint if secure else "")
        try:
            async with asyncio.timeout(OPEN_LIMIT):
                await stream._open(target)
        except (OSError, TimeoutError, ValueError) as error:
            # ValueError: a host that cannot be a name, for the resolver, for TLS or for a proxy.
            stream.close()
            why = str(error) or ("no answer" if isinstance(error, TimeoutError) else "it hung up")
            raise ServerUnreachable(f"{target.host} port {target.port}: {why}.") from error
        except BaseException:
            stream.close()
            raise
        stream.connect_time = loop.time() - started
        return stream

    @property
    def congested(self) -> bool:
        """Whether bytes wait for the kernel; a bulk sender should pause."""
        return self._waiting >= PAUSE_AT

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._closed

    def send(self, data: Buffer) -> None:
        """Write bytes that must arrive."""
        if self._transport is not None and not self._closed:
            self._transport.write(data)

    def offer(self, data: Buffer) -> None:
        """Write whole messages that a network may lose: they are lost when too much waits already."""
        if self._waiting >= LOSE_AT:
            self.lost += 1
        else:
            self.send(data)

    def close(self) -> None:
        """End the connection after what was written; `on_closed` is not called for it."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            self._abort_timer = asyncio.get_running_loop().call_later(CLOSE_LIMIT, transport.abort)

    # --- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._is_impostor = bool(self._fingerprint) and not self._shows_pinned(transport)
        if self._closed or self._is_impostor:
            self._closed = True
            transport.abort()
            return
        self.local = _address(transport.get_extra_info("sockname"))
        self.remote = _address(transport.get_extra_info("peername"))
        _prepare(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if not self._closed:
            self._on_receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None  # one of TLS does not even say what waits in it any more
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if not self._closed:
            self._closed = True
            self._on_closed(str(exc) if exc is not None else "the server closed the connection")

    # ----------------------------------------------------------------------------------------------------

    @property
    def _waiting(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    async def _open(self, target: StreamTarget) -> None:
        loop = asyncio.get_running_loop()
        secure = target.transport is Transport.TLS
        options: dict[str, Any] = {}
        if secure:
            options = {"ssl": await _context(target), "server_hostname": target.name or target.host}
        proxy = proxy_for(target.host, target.port, secure=secure)
        if proxy is not None and proxy.startswith("https://"):
            await self._open_in_tls(proxy, target, options)
        elif proxy is not None:
            sock = await open_through(proxy, target.host, target.port, OPEN_LIMIT)
            try:
                await loop.create_connection(lambda: self, sock=sock, **options)
            except BaseException:
                sock.close()
                raise
        else:
            options |= {"happy_eyeballs_delay": ATTEMPT_DELAY, "interleave": 1}
            await loop.create_connection(lambda: self, target.host, target.port, **options)
        if self._is_impostor:
            raise ServerUnreachable(
                f"{target.host} port {target.port} shows another certificate than the one announced.",
                hint="Somebody may be in between, or the server has a new certificate: try again.",
            )

    async def _open_in_tls(self, proxy: str, target: StreamTarget, options: dict[str, Any]) -> None:
        """Through a proxy that is reached by TLS: TLS to the server is made inside of that."""
        loop = asyncio.get_running_loop()
        outer = await open_by_tls(proxy, target.host, target.port)
        if not options:
            outer.set_protocol(self)
            self.connection_made(outer)
            return
        try:
            inner = await loop.start_tls(
                outer, self, options["ssl"], server_hostname=options["server_hostname"]
            )
        except BaseException:
            outer.abort()
            raise
        assert inner is not None, "asyncio gives none for a transport without a protocol"
        self.connection_made(inner)

    def _shows_pinned(self, transport: asyncio.BaseTransport) -> bool:
        """Nothing has been sent yet but the handshake."""
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        return hmac.compare_digest(hashlib.sha256(shown).hexdigest(), self._fingerprint)


async def _context(target: StreamTarget) -> ssl.SSLContext:
    """Loading the system's authorities takes tens of milliseconds, which the loop has no time for."""
    if target.fingerprint:
        return _pinned_context()
    return await asyncio.to_thread(_system_context)


@lru_cache(maxsize=1)
def _pinned_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the pin is checked instead, which trusts nobody else
    return _hardened(context)


@lru_cache(maxsize=1)
def _system_context() -> ssl.SSLContext:
    return _hardened(ssl.create_default_context())


def _hardened(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([_ALPN])
    return context


def _prepare(sock: Any) -> None:
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", _UNSENT_LIMIT),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(level, option, value)


def _address(name: Any) -> Address:
    return Address.parse(str(name[0]).partition("%")[0], int(name[1]))
