"""Which certificates a TLS link is built on, and what becomes of the key."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.errors import LocalProblem
from crowline.link.identity import Identity
from crowline.link.tls_trust import TlsTrust, UnusableCertificate
from crowline.net import own_certificate
from tls_pair import ALICE, BOB, Wire, accept, connect


def build(certificate: bytes, fingerprint: bytes | None = None) -> TlsTrust:
    return TlsTrust(
        is_client=True,
        identity=ALICE,
        certificate=certificate,
        fingerprint=sha256(certificate).digest() if fingerprint is None else fingerprint,
        load=own_certificate.load,
    )


def certificate_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, year: int = 2000) -> bytes:
    name = x509.Name([])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(year, 1, 1))
        .not_valid_after(datetime.datetime(year + 1, 1, 1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def test_the_announced_form_has_the_announced_fingerprint() -> None:
    """DER, whose SHA-256 both sides tell each other."""
    assert sha256(ALICE.certificate_der).digest() == ALICE.fingerprint
    assert len(ALICE.certificate_der) < 400


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"\x30\x03\x02\x01\x01",
        lambda: BOB.certificate,
        lambda: BOB.certificate_der + ALICE.certificate_der,
        lambda: BOB.certificate_der[:-1],
        lambda: certificate_of(ec.generate_private_key(ec.SECP384R1())),
        lambda: certificate_of(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "no_certificate", "pem", "two", "cut", "p384", "rsa"],
)
def test_only_one_p256_certificate_is_usable(make: Callable[[], bytes]) -> None:
    """Anything else means that there are no TLS links with this peer, and nothing worse."""
    with pytest.raises(UnusableCertificate):
        build(make())


def test_a_certificate_has_to_have_its_fingerprint() -> None:
    """What the description says about it twice must agree."""
    with pytest.raises(UnusableCertificate):
        build(BOB.certificate_der, ALICE.fingerprint)


@given(st.integers(0, 299), st.integers(1, 255))
def test_a_damaged_certificate_is_usable_or_not_and_raises_nothing_else(place: int, mask: int) -> None:
    """Whatever a peer makes up, there is one kind of error."""
    der = bytearray(BOB.certificate_der)
    der[place % len(der)] ^= mask
    try:
        build(bytes(der))
    except UnusableCertificate:
        return


def test_dates_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pin was said a moment ago; a machine whose clock is wrong connects all the same."""
    key = ec.generate_private_key(ec.SECP256R1())
    der = certificate_of(key, year=2001)
    expired = Identity(
        ssl.DER_cert_to_PEM_cert(der).encode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        sha256(der).digest(),
    )
    wire = Wire(connect(peer=expired), accept(own=expired)).run()
    assert wire.client.is_up and wire.server.is_up


def test_links_of_one_trust_are_independent() -> None:
    """One trust serves all links of a meeting, and TLS resumes nothing between them."""
    first = Wire().run()
    again = Wire(connect(), accept()).run()
    assert first.server.is_up and again.server.is_up
    assert not first.client._tls.session_reused and not again.client._tls.session_reused
    assert again.client._tls.version() == "TLSv1.3" and again.client._tls.compression() is None


def test_the_key_lies_encrypted_in_a_file_and_is_gone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL reads files only: this one has no key that could be read, and is deleted."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[bytes] = []

    class Context(ssl.SSLContext):
        def load_cert_chain(self, certfile: Path, keyfile: None = None, password: bytes = b"") -> None:  # type: ignore[override]
            seen.append(certfile.read_bytes())
            super().load_cert_chain(certfile, keyfile, password)

    own_certificate.load(Context(ssl.PROTOCOL_TLS_SERVER), ALICE)
    (text,) = seen
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in text and b"BEGIN PRIVATE KEY" not in text
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_for_the_file_there_is_a_local_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller goes on without TLS links, or says why it cannot."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    with pytest.raises(LocalProblem):
        own_certificate.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ALICE)
