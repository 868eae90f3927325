"""Key derivation: one key for each purpose (HKDF-SHA256, RFC 5869)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crowline.base.secrets import Secret

PROTOCOL = "crowline/1"
"""Name and version of the rendezvous protocol, part of every derived key and of the PAKE's identities."""


def derive(key: Secret, purpose: str, length: int = 32) -> Secret:
    """A key of `length` bytes that says nothing about `key` or about the keys of other purposes."""
    info = f"{PROTOCOL} {purpose}".encode()
    return Secret(HKDF(SHA256(), length, salt=None, info=info).derive(key.reveal()))
