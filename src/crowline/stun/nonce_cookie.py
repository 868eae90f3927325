"""The nonce cookie: thirteen characters in front of a nonce that say what a server can do (RFC 8489 §9.2).

An attacker who takes a feature out of a challenge has to change the cookie too, and then the server no longer
knows the nonce: this is the protection against bidding down of RFC 8489 §9.2.1.

The RFC counts the 24 feature bits from the top, its own test vector (appendix B.1) from the bottom, and both
kinds of program exist. So a feature is on when either bit is set, and is written with both; the bits that are
hit by accident are not assigned to anything.
"""

from __future__ import annotations

import base64

from msgspec import Struct

PREFIX = "obMatJos2"
SIZE = len(PREFIX) + 4

PASSWORD_ALGORITHMS = 1 << 23 | 1 << 0  # bit 0, RFC 8489 §18.1
USERNAME_ANONYMITY = 1 << 22 | 1 << 1  # bit 1


class Features(Struct, frozen=True):
    """The security features of a server."""

    password_algorithms: bool = False
    username_anonymity: bool = False


def write_cookie(features: Features) -> str:
    """What a nonce of a server with these features starts with."""
    bits = (
        PASSWORD_ALGORITHMS * features.password_algorithms | USERNAME_ANONYMITY * features.username_anonymity
    )
    return PREFIX + base64.b64encode(bits.to_bytes(3, "big")).decode()


def read_features(nonce: str) -> Features:
    """The features that a nonce tells of; none where it has no cookie, as with servers before RFC 8489."""
    if not nonce.startswith(PREFIX):
        return Features()
    try:
        bits = int.from_bytes(base64.b64decode(nonce[len(PREFIX) : SIZE], validate=True), "big")
    except ValueError:
        return Features()
    return Features(bool(bits & PASSWORD_ALGORITHMS), bool(bits & USERNAME_ANONYMITY))
