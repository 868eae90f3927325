"""Whom the TLS links of one meeting trust: each side's certificate is the other's only authority."""

from __future__ import annotations

import hmac
import ssl
import warnings
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning

from crowline.base.errors import MalformedMessage
from crowline.link.identity import Identity

ALPN = "crowline/1"
# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: whom to trust was said a moment ago, and clocks may be wrong.
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
_UNREADABLE = (ValueError, x509.InvalidVersion, UnsupportedAlgorithm, CryptographyDeprecationWarning)

Loader = Callable[[ssl.SSLContext, Identity], None]
"""Gives a context the certificate and key of an identity; `crowline.net.own_certificate.load`."""


class UnusableCertificate(MalformedMessage):
    """The other side's certificate is none that a TLS link can be built on."""


class TlsTrust:
    """The settings of one side's TLS links: TLS 1.3, its certificate, and the one that it must be shown."""

    def __init__(
        self, *, is_client: bool, identity: Identity, certificate: bytes, fingerprint: bytes, load: Loader
    ) -> None:
        """`certificate` (DER) and `fingerprint` are the other side's, as its description says.

        Raises `UnusableCertificate`: then there are no TLS links with it.
        """
        _check(certificate, fingerprint)
        self.is_client = is_client
        self.own_fingerprint = identity.fingerprint
        self.peer_fingerprint = fingerprint
        self._certificate = certificate
        self._identity = identity
        self._load = load

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """A connection whose handshake has not begun.

        Raises `UnusableCertificate` for one that OpenSSL reads otherwise, and whatever `load` raises.
        """
        return self._context.wrap_bio(incoming, outgoing, server_side=not self.is_client)

    @cached_property
    def _context(self) -> ssl.SSLContext:
        """Made for the first link: it costs milliseconds, and most meetings have no TLS link."""
        context = _context(self.is_client)
        try:
            context.load_verify_locations(cadata=self._certificate)
        except (ssl.SSLError, ValueError) as error:
            raise UnusableCertificate from error
        self._load(context, self._identity)
        return context

    def accepts(self, connection: ssl.SSLObject) -> bool:
        """Whether a finished handshake was with the other side, and with this protocol of it.

        OpenSSL has checked the chain; what it was shown may still only be signed by what was announced.
        """
        shown = connection.getpeercert(binary_form=True) or b""
        is_same = hmac.compare_digest(sha256(shown).digest(), self.peer_fingerprint)
        return is_same and connection.selected_alpn_protocol() == ALPN


def _check(certificate: bytes, fingerprint: bytes) -> None:
    """Only P-256, so that no peer can have this side verify signatures of other sizes."""
    if not hmac.compare_digest(sha256(certificate).digest(), fingerprint):
        raise UnusableCertificate
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)  # malformed, and still read
            key = x509.load_der_x509_certificate(certificate).public_key()
    except _UNREADABLE as error:
        raise UnusableCertificate from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnusableCertificate


def _context(is_client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if is_client else ssl.PROTOCOL_TLS_SERVER)
    context.check_hostname = False  # neither side has a name but its certificate
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _NO_CHECK_TIME
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    if not is_client:
        context.num_tickets = 0
    return context
