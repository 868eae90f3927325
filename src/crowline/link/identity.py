"""What one side shows of itself on every link of one meeting: a key, its certificate, its fingerprint."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# The pinned fingerprint says whom to trust, so the certificate's dates say nothing: they span every clock.
_NOT_BEFORE = datetime.datetime(2000, 1, 1)
_NOT_AFTER = datetime.datetime(2100, 1, 1)
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "crowline")])


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A P-256 key pair and a self-signed certificate, both PEM, and the SHA-256 fingerprint of the latter."""

    certificate: bytes
    private_key: bytes
    fingerprint: bytes

    @classmethod
    def generate(cls) -> Identity:
        """A fresh identity; one for each meeting, so that two meetings cannot be linked by it."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_NAME)
            .issuer_name(_NAME)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(_NOT_AFTER)
            .sign(key, hashes.SHA256())
        )
        return cls(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            certificate.fingerprint(hashes.SHA256()),
        )

    @property
    def certificate_der(self) -> bytes:
        """The certificate as it is announced to the other side."""
        return x509.load_pem_x509_certificate(self.certificate).public_bytes(serialization.Encoding.DER)

    def encrypted_key(self, password: bytes) -> bytes:
        """The private key in PEM form, for places where it must not lie open. `password` is a random one."""
        key = serialization.load_pem_private_key(self.private_key, None)
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )

    def __repr__(self) -> str:
        return f"Identity({self.fingerprint.hex()[:16]}…)"
