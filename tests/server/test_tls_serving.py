"""A whole server with TLS: taken ports, the end of it, and a certificate of another kind."""

from __future__ import annotations

import asyncio
import datetime
import json
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from certificates import SelfSigned, self_signed
from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.server.config import ServerConfig, TlsConfig
from crowline.server.server import Server
from crowline.stun.message import Message, MessageClass, Method
from hub_server import meet
from turn_socket import PATIENCE, turn_client

HOME = Address("127.0.0.1", 0)
CONFIG = ServerConfig(
    listen=HOME, stun_listen=HOME, allow_loopback=True, users={"user": Secret(b"password")}, drain=60.0
)
BINDING = Message(Method.BINDING, MessageClass.REQUEST, bytes(12), ()).encode()
SERVE = [sys.executable, "-c", "from crowline.cli import main; main()", "serve", "--json"]
LOOPBACK = ["--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0"]
WORKERS = ["--workers", "2"]


def secured(folder: Path) -> ServerConfig:
    files = self_signed(folder)
    return replace(CONFIG, tls=TlsConfig(HOME, files.certificate, files.key))


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def by_tls(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address.host, address.port, ssl=trusting())


# --- the end --------------------------------------------------------------------------------------------


async def test_a_draining_server_refuses_http_over_tls(tmp_path: Path) -> None:
    """No page and no new WebSocket, while STUN goes on there, and so do WebSockets that were there before."""
    async with Server(secured(tmp_path)) as server, turn_client(server.stun, "user", "password") as client:
        await client.allocate()
        address = server.tls_addresses[0]
        url = f"wss://{address}/v1"
        async with (
            connect(url, ssl=trusting(), proxy=None) as host,
            connect(url, ssl=trusting(), proxy=None) as join,
        ):
            await meet(host, join)
            waiting = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            reader, writer = await by_tls(address)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            writer.close()
            with pytest.raises((OSError, WebSocketException)):
                await connect(url, ssl=trusting(), proxy=None)
            reader, writer = await by_tls(address)
            writer.write(BINDING)
            assert len(await asyncio.wait_for(reader.readexactly(32), PATIENCE)) == 32
            writer.close()
            assert await (await host.ping()) >= 0.0
            assert not waiting.done()
        await client.close()
        async with asyncio.timeout(PATIENCE):
            await waiting


@asynccontextmanager
async def process(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """`crowline serve`, and what it says about where it listens."""
    started = await asyncio.create_subprocess_exec(
        *SERVE, *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert started.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = await started.stdout.readline()
        yield started, json.loads(line)
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


def tls_flags(folder: Path, listen: str = "127.0.0.1:0") -> list[str]:
    files = self_signed(folder)
    return ["--tls-listen", listen, "--cert", str(files.certificate), "--key", str(files.key)]


@pytest.mark.parametrize("workers", [[], WORKERS], ids=["alone", "workers"])
async def test_a_signal_ends_a_server_with_clients_in_every_stage(workers: list[str], tmp_path: Path) -> None:
    """Silent clients, half a hello, a whole one, a finished handshake: nobody of them holds the end up."""
    if workers and sys.platform != "linux":
        pytest.skip("only Linux shares UDP ports out")
    async with process(*LOOPBACK, *tls_flags(tmp_path), *workers) as (server, listening):
        address = Address("127.0.0.1", int(listening["tls"][0].rpartition(":")[2]))
        outgoing = ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            trusting().wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
        hello = outgoing.read()
        clients = [await asyncio.open_connection(address.host, address.port) for _ in range(3)]
        clients[1][1].write(hello[:50])
        clients[2][1].write(hello)
        await asyncio.wait_for(clients[2][0].read(1), PATIENCE)
        clients += [await by_tls(address), await by_tls(address)]
        clients[-1][1].write(BINDING)
        await asyncio.wait_for(clients[-1][0].readexactly(32), PATIENCE)
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            _, errors = await server.communicate()
        assert server.returncode == 0
        assert b"Traceback" not in errors
        assert b"Error" not in errors
        for _, writer in clients:
            writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares UDP ports out")
async def test_a_second_signal_ends_a_server_with_workers() -> None:
    """The first one waits for a meeting; the second does not, and the exit code is 0 all the same."""
    flags = [flag for flag in SERVE if flag != "--json"]
    server = await asyncio.create_subprocess_exec(
        *flags, *LOOPBACK, *WORKERS, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert server.stderr is not None
    try:
        url = (await line_with(b"Meeting point", server.stderr)).split()[-1].decode()
        await line_with(b"Ctrl-C", server.stderr)
        async with connect(f"{url}/v1", proxy=None) as host, connect(f"{url}/v1", proxy=None) as join:
            await meet(host, join)
            server.send_signal(signal.SIGTERM)
            await line_with(b"nothing new", server.stderr)
            assert await (await host.ping()) >= 0.0
            assert server.returncode is None
            server.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                _, errors = await server.communicate()
        assert server.returncode == 0
        assert b"Traceback" not in errors
    finally:
        if server.returncode is None:
            server.kill()
            await server.communicate()


async def line_with(text: bytes, reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        while text not in (line := await reader.readline()):
            assert line, "the server has ended"
        return line


# --- taken ports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [[], WORKERS], ids=["alone", "workers"])
@pytest.mark.parametrize("flag", ["--listen", "--stun-listen", "--tls-listen"])
async def test_two_servers_on_one_port_are_a_sentence(flag: str, workers: list[str], tmp_path: Path) -> None:
    """Whichever port it is, with workers or without: exit code 8, a sentence and a hint."""
    if workers and sys.platform != "linux":
        pytest.skip("only Linux shares UDP ports out")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with process(*LOOPBACK, *tls_flags(first), *workers) as (_, listening):
        taken = {
            "--listen": listening["url"],
            "--stun-listen": listening["stun"],
            "--tls-listen": listening["tls"][0],
        }
        where = "127.0.0.1:" + taken[flag].rpartition(":")[2]
        flags = [*LOOPBACK, *tls_flags(second), *workers, flag, where]
        other = await asyncio.create_subprocess_exec(
            *SERVE, *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(PATIENCE):
                _, errors = await other.communicate()
        finally:
            if other.returncode is None:
                other.kill()
                await other.communicate()
    assert other.returncode == 8
    assert b"Traceback" not in errors
    assert b"in use" in errors.splitlines()[0]
    assert b"another" in errors.splitlines()[1]
    if flag != "--stun-listen":
        assert flag.encode() in errors


# --- certificates ---------------------------------------------------------------------------------------


def with_rsa(folder: Path) -> SelfSigned:
    """A certificate as they were usual before elliptic curves."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rsa.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files = SelfSigned(folder / "rsa.pem", folder / "rsa.key", "")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    return files


async def test_a_renewed_certificate_of_another_kind_replaces_the_old_one(tmp_path: Path) -> None:
    """From RSA to an elliptic curve: a client that takes RSA only is not shown the old one any more."""
    old, new = with_rsa(tmp_path), self_signed(tmp_path)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    shutil.copy(old.certificate, chain)
    shutil.copy(old.key, key)
    async with Server(replace(CONFIG, tls=TlsConfig(HOME, chain, key))) as server:
        only_rsa = trusting()
        only_rsa.maximum_version = ssl.TLSVersion.TLSv1_2
        only_rsa.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        assert await shown(server, only_rsa) == old.certificate.read_text()
        shutil.copy(new.certificate, chain)
        shutil.copy(new.key, key)
        server.reload()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown(server, only_rsa)
        assert await shown(server, trusting()) == new.certificate.read_text()


async def shown(server: Server, context: ssl.SSLContext) -> str:
    """The certificate that the server shows a new client, in PEM form."""
    address = server.tls_addresses[0]
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(certificate)


# --- descriptors ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind")
async def test_q10_a_server_out_of_descriptors_says_so_once_and_recovers(tmp_path: Path) -> None:
    """With 64 descriptors and 90 clients nobody new is accepted, until some have gone."""
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *SERVE, *LOOPBACK, *tls_flags(tmp_path)]
    server = await asyncio.create_subprocess_exec(
        *limited, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            listening = json.loads(await server.stdout.readline())
        names = [listening["url"], listening["stun"], listening["tls"][0]]
        ports = [int(name.rpartition(":")[2]) for name in names]
        writers = [(await asyncio.open_connection("127.0.0.1", ports[n % 3]))[1] for n in range(90)]
        async with asyncio.timeout(PATIENCE):
            warning = json.loads(await server.stdout.readline())
        assert (warning["t"], "wait" in warning["message"]) == ("warn", True)
        for writer in writers:
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[1])
        writer.write(BINDING)
        assert len(await asyncio.wait_for(reader.readexactly(32), PATIENCE)) == 32
        writer.close()
        reader, writer = await by_tls(Address("127.0.0.1", ports[2]))
        writer.write(BINDING)
        assert len(await asyncio.wait_for(reader.readexactly(32), PATIENCE)) == 32
        writer.close()
        server.terminate()
        async with asyncio.timeout(PATIENCE):
            output, errors = await server.communicate()
        assert (server.returncode, output, errors) == (0, b"", b"")
    finally:
        if server.returncode is None:
            server.kill()
            await server.communicate()
