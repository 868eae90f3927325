"""The client's side of long-term credentials (RFC 8489 §9.2): challenges taken in, requests signed."""

from __future__ import annotations

from crowline.base.secrets import Secret
from crowline.stun.attributes import Nonce, Realm, Username
from crowline.stun.integrity import long_term_key, verify_integrity
from crowline.stun.message import Message, Received
from crowline.turn.codes import STALE_NONCE, UNAUTHORIZED

# A nonce lives for minutes; a request that meets so many stale ones in a row meets a server that is broken.
MAX_STALE_IN_A_ROW = 3


class LongTermCredentials:
    """User name and password, and the realm and nonce that the server gave last."""

    def __init__(self, username: str, password: Secret) -> None:
        self._username = username
        self._password = password
        self._realm: str | None = None
        self._key: Secret | None = None
        self.nonce: str | None = None

    def sign(self, message: Message) -> bytes:
        """The bytes of a request: signed once the server has named realm and nonce, plain before."""
        if self._realm is None or self.nonce is None or self._key is None:
            return message.encode()
        proven = (*message.attributes, Username(self._username), Realm(self._realm), Nonce(self.nonce))
        signed = Message(message.method, message.message_class, message.transaction_id, proven)
        return signed.encode(key=self._key.reveal())

    def verify(self, received: Received) -> bool:
        """Whether a response was signed with our key."""
        return self._key is not None and verify_integrity(received, self._key.reveal())

    def take_challenge(self, code: int, received: Received, used: str | None) -> bool:
        """Take realm and nonce of a 401 or 438 to a request that used the nonce `used`.

        False when another try makes no sense: a 401 to a signed request says that the credentials are
        wrong, and the same nonce again would be stale again.
        """
        nonce, realm = received.message.get(Nonce), received.message.get(Realm)
        if nonce is None or (code == UNAUTHORIZED and (used is not None or realm is None)):
            return False
        if code == STALE_NONCE and (used is None or nonce.value == used):
            return False
        if realm is not None and realm.value != self._realm:
            password = self._password.reveal().decode()
            self._realm = realm.value
            self._key = Secret(long_term_key(self._username, realm.value, password))
        self.nonce = nonce.value
        return True
