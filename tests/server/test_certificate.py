"""Certificates at start-up and when they are renewed, and the settings around them."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect

from certificates import SelfSigned, self_signed
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, UsageError
from crowline.rendezvous import wire
from crowline.server.certificate import Certificate
from crowline.server.config import ServerConfig, TlsConfig
from crowline.server.server import Server
from crowline.server.settings import Settings, build
from hub_server import hear, meet

HOME = Address("127.0.0.1", 0)


def dated(folder: Path, begins: int, ends: int) -> SelfSigned:
    """A certificate that is valid from `begins` to `ends` days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dated.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .sign(key, hashes.SHA256())
    )
    files = SelfSigned(folder / "dated.pem", folder / "dated.key", "")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word") if begins == 0 else serialization.NoEncryption(),
        )
    )
    return files


def test_a_good_certificate_has_a_name_and_a_fingerprint(tmp_path: Path) -> None:
    """What clients are told about it is what it is."""
    files = self_signed(tmp_path)
    certificate = Certificate(files.certificate, files.key)
    assert (certificate.name, certificate.fingerprint) == ("turn.test", files.fingerprint)
    assert certificate.is_self_signed


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("missing", "cannot be read"),
        ("missing key", "cannot be read"),
        ("no PEM", "no certificate"),
        ("no key", "cannot be used"),
        ("foreign key", "does not belong"),
        ("expired", "expired on"),
        ("future", "not valid before"),
        ("locked", "password"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(what: str, sentence: str, tmp_path: Path) -> None:
    """Each problem with certificate or key is named at once, with exit code 8 and a hint."""
    files = self_signed(tmp_path)
    chain, key = files.certificate, files.key
    if what == "missing":
        chain.unlink()
    elif what == "missing key":
        key.unlink()
    elif what == "no PEM":
        chain.write_bytes(b"\x30\x82 no PEM")
    elif what == "no key":
        key.write_bytes(chain.read_bytes())
    elif what == "foreign key":
        key = self_signed(tmp_path, "other.test").key
    else:
        begins, ends = {"expired": (-9, -1), "future": (2, 9), "locked": (0, 9)}[what]
        other = dated(tmp_path, begins, ends)
        chain, key = other.certificate, other.key
    with pytest.raises(LocalProblem, match=sentence) as problem:
        Certificate(chain, key)
    assert problem.value.exit_code == 8
    assert problem.value.hint


async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    """After `reload` new connections see the new one; a broken renewal changes nothing."""
    first, second = self_signed(tmp_path, "first.test"), self_signed(tmp_path, "second.test")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    shutil.copy(first.certificate, chain)
    shutil.copy(first.key, key)
    config = ServerConfig(listen=HOME, stun_listen=HOME, tls=TlsConfig(HOME, chain, key))
    async with Server(config) as server:
        assert await shown(server) == ssl.PEM_cert_to_DER_cert(first.certificate.read_text())
        shutil.copy(second.certificate, chain)
        with pytest.raises(LocalProblem):
            server.reload()
        assert await shown(server) == ssl.PEM_cert_to_DER_cert(first.certificate.read_text())
        shutil.copy(second.key, key)
        server.reload()
        assert await shown(server) == ssl.PEM_cert_to_DER_cert(second.certificate.read_text())


async def test_clients_hear_of_every_way_to_the_relay(tmp_path: Path) -> None:
    """With credentials come UDP, TCP and TLS; a certificate that nobody vouches for is named."""
    files = self_signed(tmp_path)
    config = ServerConfig(listen=HOME, stun_listen=HOME, tls=TlsConfig(HOME, files.certificate, files.key))
    async with Server(config) as server:
        secure = server.tls_addresses[0]
        context = ssl.create_default_context(cafile=str(files.certificate))
        url = f"wss://{secure}/v1"
        assert server.outside_url == f"wss://turn.test:{secure.port}"
        async with (
            connect(url, ssl=context, proxy=None) as host,
            connect(f"{server.url}/v1", proxy=None) as join,
        ):
            _, claimed, _ = await meet(host, join)
        assert claimed.turn is not None
        assert claimed.turn.servers == (
            wire.ServerAddress("127.0.0.1", server.stun.port),
            wire.ServerAddress("127.0.0.1", server.stun.port, "tcp"),
            wire.ServerAddress("127.0.0.1", secure.port, "tls", files.fingerprint),
        )


async def test_a_taken_tls_port_is_a_sentence(tmp_path: Path) -> None:
    """Exit code 8, and nothing stays open: the other ports can be had again."""
    files = self_signed(tmp_path)

    def config(listen: Address) -> ServerConfig:
        return ServerConfig(
            listen=HOME, stun_listen=HOME, tls=TlsConfig(listen, files.certificate, files.key)
        )

    async with Server(config(HOME)) as first:
        with pytest.raises(LocalProblem) as problem:
            async with Server(config(first.tls_addresses[0])):
                pass
        assert problem.value.exit_code == 8
        async with connect(f"{first.url}/v1", proxy=None) as socket:
            assert isinstance(await hear(socket), wire.Welcome)


def test_turn_settings_are_read() -> None:
    """Users, secret and limits of a configuration file arrive in the configuration."""
    config = build(
        Settings(
            users={"alice": "wonder"},
            auth_secret="a secret of sixteen",
            realm="example",
            allocations=7,
            allocations_per_user=2,
            allocations_per_source=3,
            bytes_per_second="1M",
            binding_rate=10,
            drain=1.5,
            alternate_server="192.0.2.7",
        )
    )
    assert config.users["alice"].reveal() == b"wonder"
    assert config.auth_secret is not None
    assert config.auth_secret.reveal() == b"a secret of sixteen"
    assert config.turn_limits is not None
    assert (config.turn_limits.allocations, config.turn_limits.allocations_per_user) == (7, 2)
    assert (config.turn_limits.allocations_per_source, config.turn_limits.bytes_per_second) == (3, 1 << 20)
    assert (config.realm, config.binding.rate, config.drain) == ("example", 10, 1.5)
    assert config.alternate_server == Address("192.0.2.7", 3478)


@pytest.mark.parametrize(
    "wrong",
    [
        {"users": {"a:b": "x"}},
        {"users": {"meeting-1": "x"}},
        {"users": {"": "x"}},
        {"users": {"alice": ""}},
        {"auth_secret": "short"},
        {"realm": "a realm that is long"},
        {"realm": ""},
        {"allocations": -1},
        {"bytes_per_second": "fast"},
        {"binding_rate": 0},
        {"drain": -1.0},
        {"drain": float("nan")},
        {"alternate_server": "[::]:1"},
        {"cert": "a.pem"},
        {"key": "a.pem"},
        {"tls_listen": "127.0.0.1:443"},
    ],
)
def test_wrong_turn_settings_are_usage_errors(wrong: dict[str, object]) -> None:
    """Each is refused with a sentence before anything is opened."""
    with pytest.raises(UsageError):
        build(Settings(**wrong))  # type: ignore[arg-type]


async def shown(server: Server) -> bytes:
    """The certificate that the server shows a new client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = server.tls_addresses[0]
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return certificate
