"""HTTP CONNECT to a proxy that itself is reached by TLS (its URL begins with https://)."""

from __future__ import annotations

import asyncio
import base64
import ssl
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

from crowline.net.proxies import closed, unusable

MAX_HEAD = 16 * 1024
"""Bytes of a proxy's answer, which says little more than yes or no."""
_SHOWN = 100  # characters of a refusal that a person gets to see


async def open_by_tls(url: str, host: str, port: int) -> asyncio.Transport:
    """A connection to `host` through the proxy; whoever gets it gives it a protocol of their own.

    The proxy's certificate has to be good for its name by the system's authorities, and only such a proxy
    learns the password in `url`. Raises `ServerUnreachable`.
    """
    loop = asyncio.get_running_loop()
    try:
        parts = urlsplit(url)
        name, place = parts.hostname, parts.port
    except ValueError:
        raise unusable(url) from None
    if not name or not place:
        raise unusable(url)
    context = await asyncio.to_thread(_context)
    try:
        transport, asking = await loop.create_connection(_Asking, name, place, ssl=context)
    except OSError as error:
        raise closed(url, host, port, str(error)) from error
    try:
        transport.write(_request(parts, host, port))
        reason = _refusal(await asking.answer)
        if reason is not None:
            raise closed(url, host, port, reason)
    except BaseException:
        transport.abort()
        raise
    return transport


class _Asking(asyncio.Protocol):
    """`answer` is what the proxy says before it steps aside, or nothing where it hangs up."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        self._head += data
        if (b"\r\n\r\n" in self._head or len(self._head) > MAX_HEAD) and not self.answer.done():
            self.answer.set_result(bytes(self._head))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(b"")


def _request(proxy: SplitResult, host: str, port: int) -> bytes:
    """RFC 9110 §9.3.6."""
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    target = f"{name}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


def _refusal(head: bytes) -> str | None:
    """Why the answer is none to go on with."""
    if not head:
        return "it closed the connection"
    status = head.partition(b"\r\n")[0].decode("ascii", "replace").split(maxsplit=1)
    if len(status) < 2 or not status[0].startswith("HTTP/1."):
        return "it does not speak HTTP"
    if not status[1].startswith("2"):
        return "".join(filter(str.isprintable, status[1]))[:_SHOWN]
    # A server speaks second, so nothing can follow the yes.
    return None if head.endswith(b"\r\n\r\n") else "it says more than it was asked"


@lru_cache(maxsize=1)
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()
