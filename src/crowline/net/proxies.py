"""The proxy that the environment names, and connections through it: HTTP CONNECT, SOCKS4 and SOCKS5.

One rule for the hub's WebSocket and for TURN streams: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SOCKS_PROXY and
NO_PROXY, in capitals or not; on macOS and Windows what the system's settings say where there are none.
"""

from __future__ import annotations

import socket
import urllib.request

from crowline.base.errors import ServerUnreachable

_DEFAULT_PORTS = {"http": 80, "socks4": 1080, "socks5": 1080}
# Whether the proxy looks names up, as curl's scheme names say: ours always may, since it knows more names.
_ALIASES = {"socks": "socks5", "socks5h": "socks5", "socks4a": "socks4"}


def proxy_for(host: str, port: int, *, secure: bool) -> str | None:
    """The URL of the proxy on the way to `host`, ``None`` where there is none.

    SOCKS first, which carries anything; then the proxies for HTTPS and, for what is not encrypted, for HTTP.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if urllib.request.proxy_bypass(target):
        return None
    proxies = urllib.request.getproxies()
    for kind in ("socks", "https", "all") if secure else ("socks", "https", "http", "all"):
        if url := proxies.get(kind):
            default = "socks5" if kind == "socks" else "http"
            if "://" not in url:
                return f"{default}://{url}"
            if kind == "socks" and url.startswith("http://"):
                return "socks5://" + url.removeprefix("http://")
            return url
    return None


async def open_through(url: str, host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection to `host` through the proxy at `url`; the name is looked up there.

    Raises `ServerUnreachable` when the proxy is none we can speak to, does not answer, or says no.
    """
    from python_socks import ProxyError, ProxyTimeoutError
    from python_socks.async_.asyncio import Proxy

    try:
        proxy = Proxy.from_url(_normal(url))
    except ValueError as error:
        raise ServerUnreachable(
            f"The environment names a proxy that cannot be used: {_without_secrets(url)}.",
            hint="It looks like http://HOST:PORT or socks5://HOST:PORT.",
        ) from error
    try:
        return await proxy.connect(host, port, timeout=seconds)
    except (ProxyError, ProxyTimeoutError, OSError) as error:
        raise ServerUnreachable(
            f"The proxy {_without_secrets(url)} does not lead to {host} port {port}: {error}.",
            hint="Name the server in no_proxy if it can be reached without.",
        ) from error


def _normal(url: str) -> str:
    """The same with a scheme that python-socks knows and a port. Raises `ValueError`."""
    scheme, _, rest = url.partition("://")
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    authority = rest.partition("/")[0]
    has_port = authority.rpartition("@")[2].rpartition("]")[2].count(":") > 0
    if not has_port and scheme in _DEFAULT_PORTS:
        authority = f"{authority}:{_DEFAULT_PORTS[scheme]}"
    return f"{scheme}://{authority}"


def _without_secrets(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
