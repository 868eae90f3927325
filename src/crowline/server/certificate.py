"""The server's TLS certificate: read, checked at start-up, and read again when it is renewed."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from crowline.base.errors import LocalProblem

ALPN = ("http/1.1", "stun.turn", "stun.nat-discovery")
"""HTTP, and the two names of RFC 7443; a client that names none of them is served all the same."""


class Certificate:
    """A chain and its key, in PEM files. The constructor and `reload` raise `LocalProblem`."""

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self.context: ssl.SSLContext
        """For new connections. After `reload` it is another one: a context keeps its old certificate beside a
        new one whose key is of another kind."""
        self.fingerprint = ""
        """SHA-256 of the server's own certificate, in hexadecimal."""
        self.is_self_signed = False
        self.name = ""
        """A host name that it is good for, or nothing."""
        self.reload()

    def reload(self) -> None:
        """Read both files again. New connections get what they hold; with a problem, the old ones stay."""
        leaf = _read_leaf(self._chain)
        _check_time(leaf, self._chain)
        context = _new_context()
        _load(context, self._chain, self._key)
        self.context = context
        self.fingerprint = hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
        self.is_self_signed = leaf.issuer == leaf.subject
        self.name = _name_of(leaf)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(ALPN))
    return context


def _read_leaf(chain: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain.read_bytes())[0]
    except OSError as error:
        raise _problem(f"The certificate {chain} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise _problem(f"{chain} holds no certificate in PEM form.") from error


def _name_of(leaf: x509.Certificate) -> str:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return next((name for name in names.get_values_for_type(x509.DNSName) if "*" not in name), "")


def _check_time(leaf: x509.Certificate, chain: Path) -> None:
    now = datetime.now(UTC)
    if now > leaf.not_valid_after_utc:
        raise _problem(f"The certificate {chain} expired on {leaf.not_valid_after_utc:%Y-%m-%d}.")
    if now < leaf.not_valid_before_utc:
        raise _problem(f"The certificate {chain} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}.")


def _load(context: ssl.SSLContext, chain: Path, key: Path) -> None:
    def no_password() -> str:
        raise _problem(f"The key {key} is protected by a password, which a server cannot type.")

    try:
        key.read_bytes()
    except OSError as error:
        raise _problem(f"The key {key} cannot be read: {error.strerror}.") from error
    try:
        context.load_cert_chain(chain, key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _problem(f"The key {key} does not belong to the certificate {chain}.") from error
        raise _problem(f"{key} and {chain} cannot be used: {error.reason or error}.") from error


def _problem(sentence: str) -> LocalProblem:
    return LocalProblem(sentence, hint="Give --cert and --key the PEM files of one valid certificate.")
