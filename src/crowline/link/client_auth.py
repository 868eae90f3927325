"""How a link's client proves itself: the first bytes that it sends inside the secured channel.

    link id ‖ HMAC-SHA256(client-auth key, server fingerprint ‖ link id ‖ "client")

The server takes nothing before them, and waits no longer than `AUTHENTICATION_LIMIT`.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from crowline.base.secrets import Secret

LINK_ID_LENGTH = 8
PREAMBLE_LENGTH = LINK_ID_LENGTH + sha256().digest_size
# Seconds from the first packet until the client must have proven itself.
AUTHENTICATION_LIMIT = 5.0


def preamble(key: Secret, fingerprint: bytes, link_id: bytes) -> bytes:
    """The first bytes of a client. `fingerprint`: of the server's certificate; `link_id`: fresh, random."""
    return link_id + hmac.digest(key.reveal(), fingerprint + link_id + b"client", "sha256")


class ClientGate:
    """Holds what a client sends back until its preamble is whole and right."""

    def __init__(self, key: Secret, fingerprint: bytes) -> None:
        self.is_open = False
        self.is_refused = False
        self._key = key
        self._fingerprint = fingerprint
        self._first = b""

    def feed(self, data: bytes) -> bytes:
        """What follows the preamble. Before the gate is open, and once it is refused, that is nothing."""
        if self.is_open:
            return data
        if self.is_refused:
            return b""
        self._first += data
        if len(self._first) < PREAMBLE_LENGTH:
            return b""
        shown, rest = self._first[:PREAMBLE_LENGTH], self._first[PREAMBLE_LENGTH:]
        right = preamble(self._key, self._fingerprint, shown[:LINK_ID_LENGTH])
        self.is_open = hmac.compare_digest(shown, right)
        self.is_refused = not self.is_open
        self._first = b""
        return rest if self.is_open else b""
