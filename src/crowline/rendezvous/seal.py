"""Sealed messages in one direction: ChaCha20-Poly1305 (RFC 8439) with a counter as the nonce.

Both ends count, so the counter is not sent: a message that was left out, repeated, moved or turned back to
its sender fails like one that was altered. Each direction has a key of its own.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from crowline.base.errors import IntegrityFailed, UsageError
from crowline.base.machine import Buffer
from crowline.base.secrets import Secret

OVERHEAD = 16
"""Bytes that a seal adds: the Poly1305 tag."""

MAX_MESSAGES = 2**48
"""Messages under one key; far below the 2^64 nonces there are, and more than any meeting sends."""


class SealBroken(IntegrityFailed):
    """A sealed message was altered, repeated, moved or lost on its way."""


class SealExhausted(UsageError):
    """That key has sealed all the messages it may."""


class Sealer:
    """The sending end. Two sealers must never have the same key."""

    def __init__(self, key: Secret) -> None:
        self._cipher = ChaCha20Poly1305(key.reveal())
        self._count = 0

    def seal(self, plain: Buffer, associated: bytes = b"") -> bytes:
        """Encrypt and authenticate; `associated` is authenticated only. Raises `SealExhausted`."""
        nonce = _nonce(self._count)
        self._count += 1
        return self._cipher.encrypt(nonce, plain, associated)


class Opener:
    """The receiving end: opens what one sealer sealed, in that order, and nothing after a failure."""

    def __init__(self, key: Secret) -> None:
        self._cipher = ChaCha20Poly1305(key.reveal())
        self._count = 0
        self._broken = False

    def open(self, sealed: Buffer, associated: bytes = b"") -> bytes:
        """The plain text. Raises `SealBroken`, and from then on always."""
        if self._broken or self._count >= MAX_MESSAGES:
            raise SealBroken
        try:
            plain = self._cipher.decrypt(_nonce(self._count), sealed, associated)
        except (InvalidTag, ValueError):
            self._broken = True
            raise SealBroken from None
        self._count += 1
        return plain


def _nonce(count: int) -> bytes:
    if count >= MAX_MESSAGES:
        raise SealExhausted
    return count.to_bytes(12, "big")
