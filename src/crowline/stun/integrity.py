"""What protects a STUN message: HMACs with short-term or long-term keys, and the fingerprint.

Both count the header's length field as if the message ended with the attribute that is being computed
(RFC 8489 §14.5-14.7). Padding bytes are covered as they came.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from typing import TYPE_CHECKING

from crowline.stun.opaque_string import prepare

if TYPE_CHECKING:
    from crowline.stun.message import Received

HEADER_SIZE = 20
ATTRIBUTE_HEADER_SIZE = 4
SHA1_SIZE = 20
SHA256_SIZE = 32
MIN_SHA256_SIZE = 16  # RFC 8489 §14.6 allows truncation down to half
FINGERPRINT_XOR = 0x5354554E  # "STUN", RFC 8489 §14.7


def short_term_key(password: str) -> bytes:
    """The key of short-term credentials (RFC 8489 §9.1.1)."""
    return prepare(password).encode()


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """The MD5 key of long-term credentials (RFC 8489 §9.2.2): 16 bytes."""
    return hashlib.md5(_joined(username, realm, password), usedforsecurity=False).digest()


def long_term_key_sha256(username: str, realm: str, password: str) -> bytes:
    """The SHA-256 key of long-term credentials (RFC 8489 §18.5.1.2): 32 bytes."""
    return hashlib.sha256(_joined(username, realm, password)).digest()


def userhash(username: str, realm: str) -> bytes:
    """The value of USERHASH (RFC 8489 §14.4): 32 bytes."""
    return hashlib.sha256(_joined(username, realm)).digest()


def verify_integrity(received: Received, key: bytes) -> bool:
    """Whether the message was signed with `key`; False when it was not signed at all.

    With MESSAGE-INTEGRITY-SHA256 present, it alone decides, and it must be whole: truncation needs a usage
    that allows it, and neither ICE nor TURN does (RFC 8489 §9.1.3, §14.6). The comparison is of whole values.
    """
    if received.sha256_offset is not None:
        claimed = _value(received.raw, received.sha256_offset)
        return hmac.compare_digest(claimed, sha256_integrity(received.raw[: received.sha256_offset], key))
    if received.integrity_offset is not None:
        claimed = _value(received.raw, received.integrity_offset)
        return hmac.compare_digest(claimed, sha1_integrity(received.raw[: received.integrity_offset], key))
    return False


def sha1_integrity(before: bytes, key: bytes) -> bytes:
    """The value of MESSAGE-INTEGRITY for a message whose bytes up to that attribute are `before`."""
    return hmac.digest(key, _with_value(before, SHA1_SIZE), "sha1")


def sha256_integrity(before: bytes, key: bytes, size: int = SHA256_SIZE) -> bytes:
    """The value of MESSAGE-INTEGRITY-SHA256, `size` bytes of it, for a message that starts with `before`."""
    return hmac.digest(key, _with_value(before, size), "sha256")[:size]


def fingerprint(before: bytes) -> bytes:
    """The value of FINGERPRINT for a message whose bytes up to that attribute are `before`."""
    return (zlib.crc32(_with_value(before, 4)) ^ FINGERPRINT_XOR).to_bytes(4, "big")


def with_length(data: bytes, length: int) -> bytes:
    """A message with that length in its header."""
    return data[:2] + length.to_bytes(2, "big") + data[4:]


def _joined(*parts: str) -> bytes:
    return prepare(":".join(parts)).encode()


def _with_value(before: bytes, value_size: int) -> bytes:
    """What is signed: the bytes before an attribute, as if the message ended with it."""
    return with_length(before, len(before) - HEADER_SIZE + ATTRIBUTE_HEADER_SIZE + value_size)


def _value(raw: bytes, offset: int) -> bytes:
    start = offset + ATTRIBUTE_HEADER_SIZE
    return raw[start : start + int.from_bytes(raw[offset + 2 : start], "big")]
