"""The client's WebSocket to a hub (RFC 6455), through the proxy that the environment names."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from crowline.base.errors import ServerUnreachable, UsageError
from crowline.net.dial import dial
from crowline.net.patience import within
from crowline.net.proxies import proxy_for, unusable

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

# The largest message of a hub: a session frame of 64 KiB with its seal.
MAX_MESSAGE = 80 * 1024
# Seconds for TCP, TLS and the upgrade together.
OPEN_LIMIT = 10.0
# Seconds for the last messages, and again for the closing handshake.
CLOSE_LIMIT = 1.0
# Bytes that may wait in the socket before bulk data pauses.
WRITE_LIMIT = 256 * 1024


class HubSocket:
    """One open WebSocket. Text is signalling, binary is link zero."""

    def __init__(self, connection: ClientConnection, url: str) -> None:
        self._connection = connection
        self._outgoing: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._queued = 0
        self._sender = asyncio.create_task(self._send_all(), name="hub sender")
        self.url = url

    @classmethod
    async def connect(cls, url: str) -> HubSocket:
        """Raises `UsageError` for a URL that is none, `ServerUnreachable` where no hub answers."""
        from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidProxy, InvalidURI

        target = hub_url(url)
        parts = urlsplit(target)
        secure = parts.scheme == "wss"
        proxy = proxy_for(parts.hostname or "", parts.port or (443 if secure else 80), secure=secure)
        try:
            async with asyncio.timeout(OPEN_LIMIT):
                connection = await _open(target, proxy)
        except (InvalidURI, UnicodeError) as error:
            # Unicode: a host whose parts are empty or too long for a name.
            raise UsageError(f"{url} is not a server's URL.", hint="Try ws://HOST:PORT.") from error
        except InvalidProxy:
            # Its words quote the URL, password and all.
            raise unusable(proxy or "") from None
        except (InvalidHandshake, InvalidMessage) as error:
            raise ServerUnreachable(
                f"What answers at {url} is not a Crowline server.",
                hint="Check the address, and the proxy if you use one.",
            ) from error
        except (OSError, TimeoutError, EOFError) as error:
            raise ServerUnreachable(
                f"The server at {url} cannot be reached.",
                hint="Is it running, and is the address right? Choose another with --server.",
            ) from error
        return cls(connection, target)

    @property
    def server_host(self) -> str:
        """The name or address of the server. Where the socket goes does not say: that may be a proxy."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, and so the other side may be too."""
        if self.server_host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.server_host).is_loopback
        except ValueError:
            return False

    @property
    def local_host(self) -> str:
        """This machine's address at which the connection ends, be it with a proxy."""
        name = self._connection.transport.get_extra_info("sockname")
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def queued(self) -> int:
        """Bytes that have not been handed to the kernel yet."""
        transport = self._connection.transport
        return self._queued + (transport.get_write_buffer_size() if transport else 0)

    def send(self, message: str | bytes) -> None:
        """Queue a message; order is kept."""
        self._queued += len(message)
        self._outgoing.put_nowait(message)

    async def messages(self) -> AsyncIterator[str | bytes]:
        """Every message until the connection ends, which is no error here."""
        from websockets.exceptions import ConnectionClosed

        try:
            async for message in self._connection:
                yield message
        except ConnectionClosed:
            return

    async def round_trip(self) -> float | None:
        """Seconds of one ping and its pong; ``None`` where the connection ends in between."""
        from websockets.exceptions import ConnectionClosed

        try:
            return await (await self._connection.ping())
        except ConnectionClosed:
            return None

    def abort(self) -> None:
        """Cut it: it leads nowhere. `messages` ends."""
        self._connection.transport.abort()

    async def close(self) -> None:
        """Send what is queued, as far as a second allows, and close. A cancelled close cuts."""
        from websockets.exceptions import ConnectionClosed

        try:
            await within(CLOSE_LIMIT, self._outgoing.join())
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
            with suppress(ConnectionClosed, OSError):
                await within(2 * CLOSE_LIMIT, self._connection.close())
        finally:
            self._sender.cancel()
            self._connection.transport.abort()

    async def _send_all(self) -> None:
        from websockets.exceptions import ConnectionClosed

        while True:
            message = await self._outgoing.get()
            try:
                await self._connection.send(message)
            except ConnectionClosed:
                pass
            finally:
                self._queued -= len(message)
                self._outgoing.task_done()


async def _open(target: str, proxy: str | None) -> ClientConnection:
    from websockets.asyncio.client import connect

    opening = partial(
        connect,
        target,
        compression=None,
        proxy=proxy,
        max_size=MAX_MESSAGE,
        open_timeout=None,
        close_timeout=CLOSE_LIMIT,
        ping_interval=20,
        ping_timeout=20,
        write_limit=WRITE_LIMIT,
    )
    if proxy is not None:
        return await opening()
    parts = urlsplit(target)
    sock = await dial(parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80))
    try:
        connecting = opening(sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        return await connecting
    except UnicodeError:
        raise
    except ValueError:
        # The server names another place, and there the library goes only by a connection of its own.
        return await opening()


def hub_url(url: str) -> str:
    """`url` with the hub's path, where it names none. Raises `UsageError` for other schemes."""
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
        usable = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{url} is not a server's URL.", hint="It looks like ws://HOST:PORT or wss://HOST.")
    if parts.path in ("", "/"):
        parts = parts._replace(path="/v1")
    return parts.geturl()
