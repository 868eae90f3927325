"""The client's side of long-term credentials (RFC 8489 §9.2): challenges taken in, requests signed.

Where a server offers password algorithms everything is signed with SHA-256, and from the first such challenge
on a challenge without them is somebody's attempt to bid us down: it is refused.
"""

from __future__ import annotations

from crowline.base.secrets import Secret
from crowline.stun.attributes import AnyAttribute, Nonce, PasswordAlgorithms, Realm, Userhash, Username
from crowline.stun.integrity import userhash, verify_integrity
from crowline.stun.message import Message, Received
from crowline.stun.nonce_cookie import read_features
from crowline.stun.password_algorithms import Algorithm, derive_key, first_known, write_choice
from crowline.turn.codes import STALE_NONCE, UNAUTHORIZED

# A nonce lives for minutes; a request that meets so many stale ones in a row meets a server that is broken.
MAX_STALE_IN_A_ROW = 3


class LongTermCredentials:
    """User name and password, and the realm, nonce and algorithms that the server gave last."""

    def __init__(self, username: str, password: Secret) -> None:
        self._username = username
        self._password = password
        self._realm: str | None = None
        self._offered: PasswordAlgorithms | None = None
        self._algorithm = Algorithm.MD5
        self._key: Secret | None = None
        self.nonce: str | None = None

    @property
    def uses_sha256(self) -> bool:
        """Whether requests are signed with MESSAGE-INTEGRITY-SHA256, and their answers have to be."""
        return self._offered is not None

    def sign(self, message: Message) -> bytes:
        """The bytes of a request: signed once the server has named realm and nonce, plain before."""
        if self._realm is None or self.nonce is None or self._key is None:
            return message.encode()
        proven = [
            *message.attributes,
            self._name(self._realm, self.nonce),
            Realm(self._realm),
            Nonce(self.nonce),
        ]
        if self._offered is not None:
            proven += [self._offered, write_choice(self._algorithm)]
        signed = Message(message.method, message.message_class, message.transaction_id, tuple(proven))
        return signed.encode(key=self._key.reveal(), sha256=self.uses_sha256)

    def verify(self, received: Received) -> bool:
        """Whether a response was signed with our key, and as strongly as our requests are."""
        if self._key is None or (self.uses_sha256 and received.sha256_offset is None):
            return False
        return verify_integrity(received, self._key.reveal())

    def take_challenge(self, code: int, received: Received, used: str | None) -> bool:
        """Take what a 401 or 438 to a request that used the nonce `used` says (RFC 8489 §9.2.5).

        False when another try makes no sense: a 401 to a signed request says that the credentials are wrong,
        the same nonce again would be stale again, and a challenge without its algorithms is not the one that
        the server sent.
        """
        nonce, realm = received.message.get(Nonce), received.message.get(Realm)
        if nonce is None or (code == UNAUTHORIZED and (used is not None or realm is None)):
            return False
        if code == STALE_NONCE and (used is None or nonce.value == used):
            return False
        offered = received.message.get(PasswordAlgorithms)
        if offered is None and (self.uses_sha256 or is_stripped(received)):
            return False
        algorithm = Algorithm.MD5 if offered is None else first_known(offered)
        if algorithm is None:
            return False
        if realm is not None:
            self._realm = realm.value
        self._offered, self._algorithm, self.nonce = offered, algorithm, nonce.value
        self._derive()
        return True

    def _derive(self) -> None:
        if self._realm is not None:
            password = self._password.reveal().decode()
            self._key = Secret(derive_key(self._algorithm, self._username, self._realm, password))

    def _name(self, realm: str, nonce: str) -> AnyAttribute:
        """The user name, or its hash where the server wants that (RFC 8489 §9.2.5)."""
        if read_features(nonce).username_anonymity:
            return Userhash(userhash(self._username, realm))
        return Username(self._username)


def is_stripped(received: Received) -> bool:
    """Whether somebody took the password algorithms out of a response whose nonce says they were there."""
    nonce = received.message.get(Nonce)
    if nonce is None or received.message.get(PasswordAlgorithms) is not None:
        return False
    return read_features(nonce.value).password_algorithms
