"""Connections to a server: plain, by TLS with a pinned or a trusted certificate, and through proxies."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certificates import self_signed
from crowline.base.errors import ServerUnreachable
from crowline.base.transport import Transport
from crowline.net import stream as stream_module
from crowline.net import tls_proxy
from crowline.net.proxies import proxy_for
from crowline.net.stream import LOSE_AT, PAUSE_AT, StreamSocket, StreamTarget
from crowline.net.tls_proxy import open_by_tls
from small_proxies import connect_proxy, socks_proxy

NAMES = ("http_proxy", "https_proxy", "all_proxy", "socks_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Talk:
    """An open connection to the echo server."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.ended: list[str] = []
        self.changed = asyncio.Event()
        self.socket: StreamSocket

    def receive(self, data: bytes) -> None:
        self.got += data
        self.changed.set()

    def end(self, reason: str) -> None:
        self.ended.append(reason)
        self.changed.set()

    async def until(self, size: int) -> bytes:
        async with asyncio.timeout(30):
            while len(self.got) < size:
                self.changed.clear()
                await self.changed.wait()
        return bytes(self.got)


@asynccontextmanager
async def echo(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server that sends everything back; ``end`` makes it close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (data := await reader.read(65536)) and data != b"end":
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def talk(target: StreamTarget) -> AsyncIterator[Talk]:
    this = Talk()
    this.socket = await StreamSocket.connect(target, this.receive, this.end)
    try:
        yield this
    finally:
        this.socket.close()
        await asyncio.sleep(0.02)  # TLS says goodbye in the loop's next rounds


def server_context(folder: Path) -> tuple[ssl.SSLContext, str, Path]:
    files = self_signed(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context, files.fingerprint, files.certificate


async def test_bytes_go_both_ways() -> None:
    """What is sent comes back, and both ends of the connection are known."""
    async with echo() as port, talk(StreamTarget("127.0.0.1", port)) as this:
        this.socket.send(b"hello")
        assert await this.until(5) == b"hello"
        assert (this.socket.remote.host, this.socket.remote.port) == ("127.0.0.1", port)
        assert 0 < this.socket.connect_time < 10


async def test_the_end_is_told_once() -> None:
    """The server closes: one reason, and writing does nothing from then on."""
    async with echo() as port, talk(StreamTarget("127.0.0.1", port)) as this:
        this.socket.send(b"end")
        async with asyncio.timeout(30):
            await this.changed.wait()
        this.socket.send(b"too late")
        assert this.ended == ["the server closed the connection"]
        assert not this.socket.is_open


async def test_our_own_end_is_no_news() -> None:
    """After `close` nothing is told any more."""
    async with echo() as port, talk(StreamTarget("127.0.0.1", port)) as this:
        this.socket.close()
        await asyncio.sleep(0.02)
        assert this.ended == []


async def test_nobody_there_is_said() -> None:
    """A refused connection is an error of its own kind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ServerUnreachable):
        await StreamSocket.connect(StreamTarget("127.0.0.1", port), lambda data: None, lambda reason: None)


async def test_a_server_without_tls_is_said() -> None:
    """It hangs up on the greeting; the system has no words for that."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ServerUnreachable, match=r"port \d+: \w.*\."):
        target = StreamTarget("127.0.0.1", port, Transport.TLS)
        await StreamSocket.connect(target, lambda data: None, lambda reason: None)
    server.close()
    await server.wait_closed()


async def test_a_name_that_is_none_is_said() -> None:
    """Overlong labels never reach the resolver."""
    with pytest.raises(ServerUnreachable):
        await StreamSocket.connect(StreamTarget("x" * 70, 1), lambda data: None, lambda reason: None)


async def test_names_go_to_the_family_that_answers() -> None:
    """`localhost` may be ::1 first; the server is on 127.0.0.1 and is found."""
    async with echo() as port, talk(StreamTarget("localhost", port)) as this:
        this.socket.send(b"x")
        assert await this.until(1) == b"x"


async def test_datagrams_are_lost_when_too_much_waits() -> None:
    """A peer that reads nothing: back-pressure is told, memory stays bounded, control still goes through."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        this = await StreamSocket.connect(
            StreamTarget("127.0.0.1", listener.getsockname()[1]), lambda data: None, lambda reason: None
        )
        other, _ = listener.accept()
        with other:
            for _ in range(20_000):
                this.offer(bytes(1200))
            assert this.congested and this.lost > 0
            assert PAUSE_AT < this._waiting < LOSE_AT + 1201
            before = this._waiting
            this.send(b"control")
            assert this._waiting == before + 7
            assert this._transport is not None
            this._transport.abort()
            this.close()
        await asyncio.sleep(0.01)


async def test_a_closed_stream_is_not_kept_by_who_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written may leave for a while; then the connection is cut."""
    lost = asyncio.Event()
    monkeypatch.setattr(StreamSocket, "connection_lost", lambda self, exc: lost.set())
    monkeypatch.setattr(stream_module, "CLOSE_LIMIT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = StreamTarget("127.0.0.1", listener.getsockname()[1])
        this = await StreamSocket.connect(target, lambda data: None, lambda reason: None)
        other, _ = listener.accept()
        with other:
            this.send(bytes(20_000_000))
            assert this._waiting > 0
            this.close()
            this.close()
            async with asyncio.timeout(30):
                await lost.wait()


async def test_a_pinned_certificate_needs_nobody_else(tmp_path: Path) -> None:
    """Self-signed, for another name even: the fingerprint says that it is the one."""
    context, fingerprint, _ = server_context(tmp_path)
    async with (
        echo(context) as port,
        talk(StreamTarget("127.0.0.1", port, Transport.TLS, fingerprint, name="other.test")) as this,
    ):
        this.socket.send(b"secret")
        assert await this.until(6) == b"secret"


async def test_a_lost_tls_stream_takes_what_is_offered_and_loses_it(tmp_path: Path) -> None:
    """Whoever sends does not know yet that it is gone; neither does it wait for anything."""
    context, fingerprint, _ = server_context(tmp_path)
    async with (
        echo(context) as port,
        talk(StreamTarget("127.0.0.1", port, Transport.TLS, fingerprint)) as this,
    ):
        this.socket.send(b"end")
        async with asyncio.timeout(30):
            await this.changed.wait()
        for _ in range(2):
            this.socket.close()
            this.socket.offer(b"late")
            this.socket.send(b"later")
            assert not this.socket.congested and not this.socket.is_open


async def test_another_certificate_than_the_pinned_one_gets_nothing(tmp_path: Path) -> None:
    """Somebody in between with a certificate of his own: no byte of ours, and a clear sentence."""
    context, _, _ = server_context(tmp_path)
    async with echo(context) as port:
        target = StreamTarget("127.0.0.1", port, Transport.TLS, "ab" * 32)
        with pytest.raises(ServerUnreachable, match="another certificate"):
            await StreamSocket.connect(target, lambda data: None, lambda reason: None)
        await asyncio.sleep(0.02)


async def test_without_a_pin_the_authorities_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for is refused; once trusted, it is good for its name only."""
    context, _, file = server_context(tmp_path)
    stream_module._system_context.cache_clear()
    async with echo(context) as port:
        with pytest.raises(ServerUnreachable):
            await StreamSocket.connect(
                StreamTarget("127.0.0.1", port, Transport.TLS), lambda data: None, lambda reason: None
            )
        stream_module._system_context.cache_clear()
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        async with talk(StreamTarget("127.0.0.1", port, Transport.TLS, name="turn.test")) as this:
            this.socket.send(b"x")
            assert await this.until(1) == b"x"
        with pytest.raises(ServerUnreachable):
            await StreamSocket.connect(
                StreamTarget("127.0.0.1", port, Transport.TLS, name="wrong.test"),
                lambda data: None,
                lambda reason: None,
            )
        await asyncio.sleep(0.02)
    stream_module._system_context.cache_clear()


# --- proxies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["connect", "socks"])
@pytest.mark.parametrize("secure", [False, True])
async def test_streams_go_through_the_proxy(
    kind: str, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP and TLS, by HTTP CONNECT and by SOCKS5; the proxy is asked for the server."""
    context, fingerprint, _ = server_context(tmp_path)
    make, scheme = (connect_proxy, "http") if kind == "connect" else (socks_proxy, "socks5h")
    async with make() as proxy, echo(context if secure else None) as port:
        monkeypatch.setenv("all_proxy", f"{scheme}://127.0.0.1:{proxy.port}")
        transport = Transport.TLS if secure else Transport.TCP
        async with talk(StreamTarget("127.0.0.1", port, transport, fingerprint)) as this:
            this.socket.send(b"through")
            assert await this.until(7) == b"through"
        assert proxy.targets == [("127.0.0.1", port)]


async def test_names_are_looked_up_at_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets the name, which perhaps only it can look up."""
    async with socks_proxy() as proxy, echo() as port:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        async with talk(StreamTarget("localhost", port)):
            assert proxy.targets == [("localhost", port)]


@pytest.mark.parametrize("kind", ["connect", "socks"])
async def test_a_proxy_that_says_no_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the proxy, without the password in its URL."""
    make, scheme = (connect_proxy, "http") if kind == "connect" else (socks_proxy, "socks5")
    async with make() as proxy:
        proxy.refuses = True
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://user:hunter2@127.0.0.1:{proxy.port}")
        target = StreamTarget("192.0.2.1", 3478)
        with pytest.raises(ServerUnreachable) as caught:
            await StreamSocket.connect(target, lambda data: None, lambda reason: None)
        assert str(proxy.port) in caught.value.message and "hunter2" not in caught.value.message


@pytest.mark.parametrize("secure", [False, True])
async def test_streams_go_through_a_proxy_behind_tls(
    secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An https:// proxy: it gets the password by TLS, and TLS to the server is made inside of that."""
    context, fingerprint, file = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    tls_proxy._context.cache_clear()
    async with connect_proxy(context) as proxy, echo(context if secure else None) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"https://user:p%40ss@127.0.0.1:{proxy.port}")
        transport = Transport.TLS if secure else Transport.TCP
        async with talk(StreamTarget("127.0.0.1", port, transport, fingerprint)) as this:
            this.socket.send(b"through")
            assert await this.until(7) == b"through"
            assert this.socket.remote.port == proxy.port
            this.socket.send(b"end")
            async with asyncio.timeout(30):
                await this.changed.wait()
        assert proxy.targets == [("127.0.0.1", port)]
        login = base64.b64encode(b"user:p@ss")
        assert b"Proxy-Authorization: Basic " + login + b"\r\n" in proxy.heads[0]
        proxy.refuses = True
        with pytest.raises(ServerUnreachable, match="403 Forbidden"):
            await open_by_tls(f"https://127.0.0.1:{proxy.port}", "192.0.2.1", 3478)
        await asyncio.sleep(0.02)
    tls_proxy._context.cache_clear()


async def test_a_proxy_with_a_wrong_certificate_learns_nothing(tmp_path: Path) -> None:
    """Nobody vouches for it: no request, and no password."""
    context, _, _ = server_context(tmp_path)
    async with connect_proxy(context) as proxy:
        with pytest.raises(ServerUnreachable) as caught:
            await open_by_tls(f"https://user:hunter2@127.0.0.1:{proxy.port}", "192.0.2.1", 3478)
        assert proxy.heads == [] and "hunter2" not in str(caught.value)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nmore", bytes(20_000)],
    ids=["nothing", "another protocol", "no status", "more than asked", "no end"],
)
async def test_a_tls_proxy_that_makes_no_sense_is_named(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kind of error, at once."""
    context, _, file = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    tls_proxy._context.cache_clear()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ServerUnreachable, match=f"127.0.0.1:{port} does not lead to"):
        await open_by_tls(f"https://127.0.0.1:{port}", "192.0.2.1", 3478)
    server.close()
    await server.wait_closed()
    tls_proxy._context.cache_clear()
    await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "url", ["https://", "https://h:x", "ftp://x", "http://", "socks5://[::1", "http://h:x", "http://u:p#w@h"]
)
async def test_a_proxy_that_cannot_be_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback for what somebody wrote into the environment, and no password in what is told."""
    monkeypatch.setenv("ALL_PROXY", url.replace("//", "//user:hunter2@"))
    with pytest.raises(ServerUnreachable) as caught:
        await StreamSocket.connect(StreamTarget("192.0.2.1", 1), lambda data: None, lambda reason: None)
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told


async def test_a_server_behind_a_proxy_whose_name_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks it up: no host of a hub's grant raises anything else."""
    async with connect_proxy() as proxy, socks_proxy() as socks:
        for url in (f"http://127.0.0.1:{proxy.port}", f"socks5://127.0.0.1:{socks.port}"):
            monkeypatch.setenv("ALL_PROXY", url)
            for host in (".turn.example", "a\0b", "x" * 300, "\udcff"):
                target = StreamTarget(host, 1, Transport.TLS)
                with pytest.raises(ServerUnreachable):
                    await StreamSocket.connect(target, lambda data: None, lambda reason: None)
        monkeypatch.delenv("ALL_PROXY")
        with pytest.raises(ServerUnreachable):
            await StreamSocket.connect(StreamTarget("a\0b", 1), lambda data: None, lambda reason: None)


@pytest.mark.parametrize(
    ("environment", "secure", "expected"),
    [
        ({}, True, None),
        ({"https_proxy": "http://p:1"}, True, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, False, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, False, "http://p:1"),
        ({"http_proxy": "http://p:1"}, True, None),
        ({"all_proxy": "p:1"}, True, "http://p:1"),
        ({"socks_proxy": "p:1", "https_proxy": "http://q:2"}, True, "socks5h://p:1"),
        ({"all_proxy": "socks://p"}, True, "socks5h://p:1080"),
        ({"all_proxy": "SOCKS4://u@p/"}, True, "socks4a://u:@p:1080"),
        ({"https_proxy": "https://u:w@[::1]"}, True, "https://u:w@[::1]:443"),
        ({"https_proxy": "http://[::1]:8080/path"}, True, "http://[::1]:8080"),
        ({"https_proxy": "http://p:1", "no_proxy": "turn.example"}, True, None),
        ({"https_proxy": "http://p:1", "NO_PROXY": "*"}, True, None),
        ({"https_proxy": "http://p:1", "no_proxy": ".example"}, True, None),
        ({"https_proxy": "http://p:1", "no_proxy": "other.example"}, True, "http://p:1"),
    ],
)
def test_the_environment_names_the_proxy(
    environment: dict[str, str], secure: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In capitals or not, SOCKS first, and not for the hosts of NO_PROXY; scheme, user and port are whole."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for("turn.example", 5349, secure=secure) == expected


@pytest.mark.parametrize(
    ("excepted", "host", "expected"),
    [
        ("::1", "::1", None),
        ("[::1]", "::1", None),
        ("2001:db8::/32", "2001:db8::7", None),
        ("example, 10.0.0.0/8", "10.1.2.3", None),
        ("10.1.2.3", "10.1.2.3", None),
        ("10.0.0.0/8", "11.1.2.3", "http://p:1"),
        ("10.0.0.0/8,::/0", "name.example", "http://p:1"),
        ("10.0.0.0/99,,/", "10.1.2.3", "http://p:1"),
    ],
)
def test_no_proxy_names_addresses_and_networks(
    excepted: str, host: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of IPv6, with and without brackets; what makes no sense excepts nothing."""
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert proxy_for(host, 3478, secure=False) == expected
