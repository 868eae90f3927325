"""Who is behind a reverse proxy."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from crowline.base.addresses import Address
from crowline.server.config import ServerConfig
from crowline.server.forwarded import true_source
from crowline.server.server import Server

PROXIES = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("peer", "header", "source"),
    [
        ("203.0.113.1", None, "203.0.113.1"),
        ("203.0.113.1", "198.51.100.1", "203.0.113.1"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1, nonsense", "127.0.0.1"),
        ("127.0.0.1", "10.1.1.1, 10.1.1.2", "10.1.1.1"),
        ("127.0.0.1", "198.51.100.1, ::ffff:10.1.1.2", "198.51.100.1"),
    ],
)
def test_only_named_proxies_are_believed(peer: str, header: str | None, source: str) -> None:
    """The nearest address that is no proxy is the client; whatever it claims beyond is not looked at."""
    assert true_source(peer, header, PROXIES) == source


@given(st.text(max_size=300))
def test_any_header_gives_an_address(header: str) -> None:
    """Garbage is no exception."""
    ipaddress.ip_address(true_source("127.0.0.1", header, PROXIES))


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_hub_sees_the_client_of_a_trusted_proxy(trusted: bool) -> None:
    """What the hub knows of a meeting's addresses is the client's, not the proxy's."""
    proxies = (ipaddress.ip_network("127.0.0.1/32"),) if trusted else ()
    loopback = Address("127.0.0.1", 0)
    async with Server(ServerConfig(listen=loopback, stun_listen=loopback, trusted_proxies=proxies)) as server:
        seen: list[Address] = []
        original = server.hub.connect
        server.hub.connect = lambda n, source, now: (seen.append(source), original(n, source, now))[1]  # type: ignore[method-assign]
        headers = {"X-Forwarded-For": "198.51.100.7"}
        async with connect(f"{server.url}/v1", additional_headers=headers) as client:
            await client.recv()
    assert [address.host for address in seen] == ["198.51.100.7" if trusted else "127.0.0.1"]


async def test_a_client_cannot_speak_before_its_proxy() -> None:
    """Some proxies add a header line of their own behind the client's: then the last one counts."""
    loopback = Address("127.0.0.1", 0)
    proxies = (ipaddress.ip_network("127.0.0.1/32"),)
    async with Server(ServerConfig(listen=loopback, stun_listen=loopback, trusted_proxies=proxies)) as server:
        seen: list[Address] = []
        original = server.hub.connect
        server.hub.connect = lambda n, source, now: (seen.append(source), original(n, source, now))[1]  # type: ignore[method-assign]
        headers = [("X-Forwarded-For", "203.0.113.66"), ("X-Forwarded-For", "198.51.100.7")]
        async with connect(f"{server.url}/v1", additional_headers=headers) as client:
            await client.recv()
    assert [address.host for address in seen] == ["198.51.100.7"]
