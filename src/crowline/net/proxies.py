"""The proxy that the environment names, and connections through it: HTTP CONNECT, SOCKS4 and SOCKS5.

One rule for the hub's WebSocket and for TURN streams: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SOCKS_PROXY and
NO_PROXY, in capitals or not; on macOS and Windows what the system's settings say where there are none.
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from contextlib import suppress

from crowline.base.errors import ServerUnreachable

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks4a": 1080, "socks5h": 1080}
# Whether the proxy looks names up, as curl's scheme names say: ours always may, since it knows more names.
_ALIASES = {"socks": "socks5h", "socks5": "socks5h", "socks4": "socks4a"}
# The same for python-socks, which is told about names apart.
_PLAIN_NAMES = {"socks5h": "socks5", "socks4a": "socks4"}


def proxy_for(host: str, port: int, *, secure: bool) -> str | None:
    """The URL of the proxy on the way to `host`, ``None`` where there is none.

    SOCKS first, which carries anything; then the proxies for HTTPS and, for what is not encrypted, for HTTP.
    The URL has a port, and the scheme ``http``, ``https``, ``socks5h`` or ``socks4a``, or one that is none.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if urllib.request.proxy_bypass(target) or _is_in_excepted_network(host):
        return None
    proxies = urllib.request.getproxies()
    for kind in ("socks", "https", "all") if secure else ("socks", "https", "http", "all"):
        if url := proxies.get(kind):
            if kind == "socks" and url.startswith("http://"):
                return _normal("socks5h://" + url.removeprefix("http://"))
            return _normal(url if "://" in url else f"{'socks5h' if kind == 'socks' else 'http'}://{url}")
    return None


async def open_through(url: str, host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection to `host` through the proxy at `url`; the name is looked up there.

    Raises `ServerUnreachable` when the proxy is none we can speak to, does not answer, or says no.
    """
    from python_socks import ProxyError, ProxyTimeoutError
    from python_socks.async_.asyncio import Proxy

    scheme, _, rest = url.partition("://")
    try:
        proxy = Proxy.from_url(f"{_PLAIN_NAMES.get(scheme, scheme)}://{rest}", rdns=True)
    except ValueError:
        raise unusable(url) from None
    try:
        return await proxy.connect(host, port, timeout=seconds)
    except (ProxyError, ProxyTimeoutError, OSError, ValueError) as error:
        raise closed(url, host, port, str(error)) from error


def unusable(url: str) -> ServerUnreachable:
    """What `url` names is no proxy. The reason is not told with it: it might quote a password."""
    return ServerUnreachable(
        f"The environment names a proxy that cannot be used: {without_secrets(url)}.",
        hint="It looks like http://HOST:PORT or socks5://HOST:PORT.",
    )


def closed(url: str, host: str, port: int, reason: str) -> ServerUnreachable:
    """The proxy cannot be reached, or says no."""
    return ServerUnreachable(
        f"The proxy {without_secrets(url)} does not lead to {host} port {port}: {reason or 'no answer'}.",
        hint="Name the server in no_proxy if it can be reached without.",
    )


def _is_in_excepted_network(host: str) -> bool:
    """Whether NO_PROXY names the address or a network around it, which `proxy_bypass` does not look for."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in urllib.request.getproxies().get("no", "").split(","):
        with suppress(ValueError):
            if address in ipaddress.ip_network(entry.strip().strip("[]"), strict=False):
                return True
    return False


def _normal(url: str) -> str:
    """The same with one name for each scheme, a port, and a password, if only an empty one, for each user."""
    scheme, _, rest = url.partition("://")
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    user, at, place = rest.partition("/")[0].rpartition("@")
    if user and ":" not in user:
        user += ":"
    if ":" not in place.rpartition("]")[2] and scheme in _DEFAULT_PORTS:
        place += f":{_DEFAULT_PORTS[scheme]}"
    return f"{scheme}://{user}{at}{place}"


def without_secrets(url: str) -> str:
    """The same without a user and a password: fit to be shown."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
