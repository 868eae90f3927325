"""The server's side of long-term credentials (RFC 8489 §9.2.4): who may ask, with nothing remembered.

Passwords of time-limited users are derived, and nonces are proofs of their own:

    username   EXPIRES ":" USER              expires: Unix time, digits
    password   base64(HMAC-SHA1(secret, username))
    nonce      base64url(seconds ‖ HMAC-SHA256(key, seconds ‖ address ‖ port)[:8])

so a flood of requests leaves nothing behind. The nonce's key is new in each process and its seconds are those
of the machine's clock: a nonce of another address, of another process or too old is stale.
"""

from __future__ import annotations

import base64
import hmac
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.stun.attributes import Nonce, Realm, Username, packed_host
from crowline.stun.integrity import long_term_key, verify_integrity
from crowline.stun.message import Received
from crowline.turn.codes import BAD_REQUEST, STALE_NONCE, UNAUTHORIZED

DEFAULT_REALM = "crowline"  # short: with it a 401 has 60 bytes, three times the smallest request
# Longer than a refresh interval would spare clients one round trip in ten minutes; shorter costs them more.
NONCE_LIFETIME = 600.0
NONCE_MAC_SIZE = 8  # guessing one takes 2^63 tries on line, within the budget for challenges

# Twelve digits of Unix time reach the year 33658.
_TIMED_USER = re.compile(r"([0-9]{1,12}):([^:]+)")


def issue_credentials(secret: Secret, user: str, expires: int) -> tuple[str, str]:
    """User name and password that a server with `secret` accepts for new allocations until `expires`.

    `expires` is in Unix seconds; `user` is what quotas and permissions go by, and must have no colon.
    """
    username = f"{expires}:{user}"
    if _TIMED_USER.fullmatch(username) is None:
        raise UsageError("A TURN user name has no colon, and its expiry at most twelve digits.")
    return username, _derived_password(secret, username)


def user_of(username: str) -> str:
    """The user inside a time-limited user name, or the name itself."""
    timed = _TIMED_USER.fullmatch(username)
    return timed[2] if timed else username


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Who sent a request: the name on the wire, the user it stands for, the key to sign the answer with."""

    username: str
    user: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a request is not authenticated: 400, 401 or 438. The last two come with realm and nonce."""

    code: int


class NonceMint:
    """Makes nonces, and recognises them; keeps only its key."""

    def __init__(self, key: bytes, lifetime: float = NONCE_LIFETIME) -> None:
        self._key = key
        self._lifetime = lifetime

    def mint(self, client: Address, now: float) -> str:
        seconds = struct.pack("!I", int(now) & 0xFFFFFFFF)
        return base64.urlsafe_b64encode(seconds + self._mac(seconds, client)).decode()

    def is_fresh(self, nonce: str, client: Address, now: float) -> bool:
        """Whether this mint made `nonce` for `client`, and not too long ago."""
        try:
            raw = base64.b64decode(nonce.encode("ascii"), altchars=b"-_", validate=True)
        except ValueError:
            return False
        seconds, mac = raw[:4], raw[4:]
        if not hmac.compare_digest(mac, self._mac(seconds, client)):
            return False
        age = (int(now) - int.from_bytes(seconds, "big")) & 0xFFFFFFFF
        return age <= self._lifetime

    def _mac(self, seconds: bytes, client: Address) -> bytes:
        bound = seconds + packed_host(client.host) + struct.pack("!H", client.port)
        return hmac.digest(self._key, bound, "sha256")[:NONCE_MAC_SIZE]


class Authenticator:
    """Checks requests in the order of RFC 8489 §9.2.4, in which a stale nonce comes last."""

    def __init__(
        self,
        secret: Secret,
        *,
        entropy: Callable[[int], bytes],
        epoch: float,
        realm: str = DEFAULT_REALM,
        users: Mapping[str, Secret] | None = None,
        is_current: Callable[[str], bool] = lambda user: True,
    ) -> None:
        """`epoch` is the Unix time at which the machine's clock read 0; `users` have their own passwords.
        Time-limited users may begin something new only while `is_current` says so."""
        self.realm = realm
        self._secret = secret
        self._epoch = epoch
        self._users = dict(users or {})
        self._is_current = is_current
        self._mint = NonceMint(entropy(32))
        # What a request of an unknown user is checked against, so that it takes as long as any other.
        self._nobody = entropy(16)

    def check(
        self, received: Received, client: Address, now: float, *, is_new: bool
    ) -> Authenticated | Rejected:
        """Who sent it, or why not. Users whose time is over may go on (`is_new` False)
        but not begin."""
        if not received.is_signed:
            return Rejected(UNAUTHORIZED)
        message = received.message
        username, realm, nonce = message.get(Username), message.get(Realm), message.get(Nonce)
        if username is None or realm is None or nonce is None:
            return Rejected(BAD_REQUEST)
        password = self._password(username.value, now, is_new=is_new)
        if password is None:
            verify_integrity(received, self._nobody)
            return Rejected(UNAUTHORIZED)
        key = long_term_key(username.value, self.realm, password)
        if not verify_integrity(received, key):
            return Rejected(UNAUTHORIZED)
        if not self._mint.is_fresh(nonce.value, client, now):
            return Rejected(STALE_NONCE)
        return Authenticated(username.value, user_of(username.value), key)

    def challenge(self, client: Address, now: float) -> tuple[Realm, Nonce]:
        """What a 401 or 438 carries."""
        return Realm(self.realm), Nonce(self._mint.mint(client, now))

    def _password(self, username: str, now: float, *, is_new: bool) -> str | None:
        known = self._users.get(username)
        if known is not None:
            return known.reveal().decode()
        timed = _TIMED_USER.fullmatch(username)
        if timed is None or (is_new and not self._may_begin(timed, now)):
            return None
        return _derived_password(self._secret, username)

    def _may_begin(self, timed: re.Match[str], now: float) -> bool:
        return int(timed[1]) >= self._epoch + now and self._is_current(timed[2])


def _derived_password(secret: Secret, username: str) -> str:
    digest = hmac.digest(secret.reveal(), username.encode(), "sha1")
    return base64.b64encode(digest).decode()
