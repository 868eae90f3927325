"""How a password becomes a key: the algorithms of RFC 8489 §18.5, and the attributes that name them.

    PASSWORD-ALGORITHMS   what a server can do, best first; a client echoes it byte for byte
    PASSWORD-ALGORITHM    what a client chose from it

Both are made of entries: a number, the size of its parameters, and the parameters, padded to four bytes
(§14.11, §14.12). Neither of the two algorithms there are has parameters.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from crowline.stun.attributes import MalformedStun, PasswordAlgorithm, PasswordAlgorithms
from crowline.stun.integrity import long_term_key, long_term_key_sha256

_ENTRY = struct.Struct("!HH")


class Algorithm(IntEnum):
    """RFC 8489 §18.5."""

    MD5 = 0x0001
    SHA256 = 0x0002


# What this project's servers offer: MD5 is for compatibility only (RFC 8489 §18.5.1.1).
OFFERED = PasswordAlgorithms(b"".join(_ENTRY.pack(n, 0) for n in (Algorithm.SHA256, Algorithm.MD5)))


def derive_key(algorithm: Algorithm, username: str, realm: str, password: str) -> bytes:
    """The key of long-term credentials: 16 bytes by MD5, 32 by SHA-256."""
    derive = long_term_key_sha256 if algorithm is Algorithm.SHA256 else long_term_key
    return derive(username, realm, password)


def write_choice(algorithm: Algorithm) -> PasswordAlgorithm:
    """The attribute with which a client names what it chose."""
    return PasswordAlgorithm(_ENTRY.pack(algorithm, 0))


def read_choice(attribute: PasswordAlgorithm) -> Algorithm | None:
    """What a client chose; ``None`` if that is nothing we know, or not one entry."""
    try:
        known = _known(attribute.value)
    except MalformedStun:
        return None
    return known[0] if len(known) == 1 else None


def first_known(attribute: PasswordAlgorithms) -> Algorithm | None:
    """The first algorithm of a server's list that we know (RFC 8489 §9.2.5); ``None`` without one."""
    try:
        return next((algorithm for algorithm in _known(attribute.value) if algorithm is not None), None)
    except MalformedStun:
        return None


def _known(value: bytes) -> list[Algorithm | None]:
    """Every entry: one we know with the parameters it should have, or ``None``."""
    found: list[Algorithm | None] = []
    offset = 0
    while offset < len(value):
        if offset + _ENTRY.size > len(value):
            raise MalformedStun("a password algorithm is cut off")
        number, size = _ENTRY.unpack_from(value, offset)
        offset += _ENTRY.size + size
        if offset > len(value):
            raise MalformedStun("the parameters of a password algorithm run past the end")
        offset += -size & 3
        found.append(Algorithm(number) if number in _NUMBERS and size == 0 else None)
    return found


_NUMBERS = frozenset(Algorithm)
