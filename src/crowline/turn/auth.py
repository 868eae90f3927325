"""The server's side of long-term credentials (RFC 8489 §9.2.4): who may ask, with nothing remembered.

Passwords of time-limited users are derived, and nonces are proofs of their own:

    username   EXPIRES ":" USER              expires: Unix time, digits
    password   base64(HMAC-SHA1(secret, username))
    nonce      cookie ‖ base64url(seconds ‖ HMAC-SHA256(key of hour, cookie ‖ seconds ‖ port ‖ address)[:8])

so a flood of requests leaves nothing behind. The seconds are those of the machine's clock, on the wire modulo
2^24; a nonce of another address, of another key or too old is stale. Processes of one machine that share a
nonce key accept each other's nonces.

With a realm of up to eight bytes a challenge has 84 bytes, three times the smallest request of a TURN client.
"""

from __future__ import annotations

import base64
import hmac
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.stun import nonce_cookie
from crowline.stun.attributes import (
    AnyAttribute,
    Nonce,
    PasswordAlgorithm,
    PasswordAlgorithms,
    Realm,
    Userhash,
    Username,
    packed_host,
)
from crowline.stun.integrity import userhash, verify_integrity
from crowline.stun.message import Message, Received
from crowline.stun.password_algorithms import OFFERED, Algorithm, derive_key, read_choice
from crowline.turn.codes import BAD_REQUEST, NO_ANSWER, STALE_NONCE, UNAUTHORIZED
from crowline.turn.throttle import PasswordThrottle

DEFAULT_REALM = "crowline"
# Longer than a refresh interval would spare clients one round trip in ten minutes; shorter costs them more.
NONCE_LIFETIME = 600.0
NONCE_MAC_SIZE = 8  # guessing one takes 2^63 tries on line, within the budget for challenges
NONCE_SECONDS_SIZE = 3
_SECONDS_MASK = (1 << 8 * NONCE_SECONDS_SIZE) - 1
# What is learned about one key is of no use against the nonces of another hour.
NONCE_KEY_LIFETIME = 3600

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
    """Who sent a request: the name on the wire, the user it stands for, the key to sign the answer with.

    `sha256` says which integrity the answer has."""

    username: str
    user: str
    key: bytes = field(repr=False)
    sha256: bool = False

    def sign(self, message: Message, received: Received) -> bytes:
        """The bytes of an answer to `received`: signed and fingerprinted as that was."""
        return message.encode(key=self.key, fingerprint=received.has_fingerprint, sha256=self.sha256)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a request is not authenticated: 400, 401 or 438, or `NO_ANSWER` for one that gets none.

    401 and 438 come with what `Authenticator.challenge` gives."""

    code: int


class NonceMint:
    """Makes nonces, and recognises them; keeps only its key. All of them start with `cookie`.

    The key of each hour is derived from that one, so nonces are good across the change."""

    def __init__(self, key: bytes, cookie: str = "", lifetime: float = NONCE_LIFETIME) -> None:
        self._key = key
        self._cookie = cookie
        self._lifetime = lifetime
        self._hour: int | None = None
        self._key_of_hour = b""

    def mint(self, client: Address, now: float) -> str:
        """A nonce for `client`: of 15 characters, and those of the cookie."""
        minted = int(now)
        seconds = (minted & _SECONDS_MASK).to_bytes(NONCE_SECONDS_SIZE, "big")
        proof = base64.urlsafe_b64encode(seconds + self._mac(minted, client))
        return self._cookie + proof.decode().rstrip("=")

    def is_fresh(self, nonce: str, client: Address, now: float) -> bool:
        """Whether this mint made `nonce` for `client`, and not too long ago."""
        if not nonce.startswith(self._cookie):
            return False
        try:
            proof = nonce[len(self._cookie) :].encode("ascii") + b"="
            raw = base64.b64decode(proof, altchars=b"-_", validate=True)
        except ValueError:
            return False
        seconds, mac = raw[:NONCE_SECONDS_SIZE], raw[NONCE_SECONDS_SIZE:]
        age = (int(now) - int.from_bytes(seconds, "big")) & _SECONDS_MASK
        return hmac.compare_digest(mac, self._mac(int(now) - age, client)) and age <= self._lifetime

    def _mac(self, minted: int, client: Address) -> bytes:
        hour = minted // NONCE_KEY_LIFETIME
        if hour != self._hour:
            self._hour, self._key_of_hour = hour, hmac.digest(self._key, struct.pack("!q", hour), "sha256")
        bound = self._cookie.encode() + struct.pack("!qH", minted, client.port) + packed_host(client.host)
        return hmac.digest(self._key_of_hour, bound, "sha256")[:NONCE_MAC_SIZE]


class Authenticator:
    """Checks requests in the order of RFC 8489 §9.2.4, in which a stale nonce comes last.

    It keeps no state for a source but the fixed tables of its throttles."""

    def __init__(
        self,
        secret: Secret,
        *,
        entropy: Callable[[int], bytes],
        epoch: float,
        realm: str = DEFAULT_REALM,
        users: Mapping[str, Secret] | None = None,
        is_current: Callable[[str], bool] = lambda user: True,
        nonce_key: bytes | None = None,
        name_of: Callable[[bytes], str | None] | None = None,
        throttle: Callable[[], PasswordThrottle] = PasswordThrottle,
    ) -> None:
        """`epoch` is the Unix time at which the machine's clock read 0; `users` have their own passwords.
        Time-limited users may begin something new only while `is_current` says so.

        `name_of` finds the name of a time-limited user by its USERHASH, which cannot be inverted. With it
        clients are told to hide their names; without, only hidden names of `users` are understood.
        `nonce_key`, 32 random bytes, is for processes that have to accept each other's nonces. `throttle`
        makes a throttle for wrong passwords, and another one for those of unproven sources.
        """
        self.realm = realm
        self._secret = secret
        self._epoch = epoch
        self._users = dict(users or {})
        self._names = {userhash(name, realm): name for name in self._users}
        self._is_current = is_current
        self._name_of = name_of
        features = nonce_cookie.Features(password_algorithms=True, username_anonymity=name_of is not None)
        self._mint = NonceMint(nonce_key or entropy(32), nonce_cookie.write_cookie(features))
        self._throttle = throttle()
        self._unproven_throttle = throttle()

    def check(
        self, received: Received, client: Address, now: float, *, is_new: bool
    ) -> Authenticated | Rejected:
        """Who sent it, or why not. Users whose time is over may go on (`is_new` False)
        but not begin."""
        if not received.is_signed:
            return Rejected(UNAUTHORIZED)
        message = received.message
        realm, nonce, name = message.get(Realm), message.get(Nonce), self._name(message)
        if name is None or realm is None or nonce is None:
            return Rejected(BAD_REQUEST)
        algorithm = _algorithm(message)
        if algorithm is None:
            return Rejected(BAD_REQUEST)
        return self._prove(received, name, algorithm, nonce.value, client, now, is_new=is_new)

    def challenge(self, client: Address, now: float) -> tuple[AnyAttribute, ...]:
        """What a 401 or 438 carries."""
        return Realm(self.realm), Nonce(self.nonce(client, now)), OFFERED

    def nonce(self, client: Address, now: float) -> str:
        """A fresh nonce for `client`; all have the same length."""
        return self._mint.mint(client, now)

    def _name(self, message: Message) -> str | None:
        """The user name of a request. A hidden one that we do not find stands for a user that is unknown;
        ``None`` without any name."""
        username = message.get(Username)
        if username is not None:
            return username.value
        hidden = message.get(Userhash)
        if hidden is None:
            return None
        name = self._names.get(hidden.value)
        if name is None and self._name_of is not None:
            name = self._name_of(hidden.value)
        return hidden.value.hex() if name is None else name

    def _prove(
        self,
        received: Received,
        name: str,
        algorithm: Algorithm,
        nonce: str,
        client: Address,
        now: float,
        *,
        is_new: bool,
    ) -> Authenticated | Rejected:
        """Whether the password is right and the nonce fresh, for a user that may try one at all."""
        # Time-limited passwords have 160 bits: nobody guesses one, so no throttle keeps their owners waiting.
        timed = name not in self._users and _TIMED_USER.fullmatch(name)
        # A source without a fresh nonce may be forged, and must not lock anybody out: it is counted apart,
        # and after too many failures its nonce is called stale before its password is looked at.
        is_fresh = self._mint.is_fresh(nonce, client, now)
        throttle = self._throttle if is_fresh else self._unproven_throttle
        throttled = Rejected(NO_ANSWER if is_fresh else STALE_NONCE)
        may_try = throttle.may_try(name, client, now)
        if not may_try and not timed:
            return throttled
        key, is_valid = self._verify(received, name, algorithm, now, is_new=is_new)
        if not is_valid:
            throttle.failed(name, client, now)
            return Rejected(UNAUTHORIZED) if may_try else throttled
        if not is_fresh:
            return Rejected(STALE_NONCE)
        if not timed:
            throttle.succeeded(name, client)
        sha256 = received.sha256_offset is not None or received.message.get(PasswordAlgorithm) is not None
        return Authenticated(name, timed[2] if timed else name, key, sha256)

    def _verify(
        self, received: Received, name: str, algorithm: Algorithm, now: float, *, is_new: bool
    ) -> tuple[bytes, bool]:
        """The key of a user, and whether the request is signed with it and may be made.

        Every step is taken for every name: how long it takes tells nobody which of them exist."""
        password, is_user = _derived_password(self._secret, name), False
        known, timed = self._users.get(name), _TIMED_USER.fullmatch(name)
        if known is not None:
            password, is_user = known.reveal().decode(), True
        elif timed is not None:
            is_user = not is_new or self._may_begin(timed, now)
        key = derive_key(algorithm, name, self.realm, password)
        return key, verify_integrity(received, key) and is_user

    def _may_begin(self, timed: re.Match[str], now: float) -> bool:
        return int(timed[1]) >= self._epoch + now and self._is_current(timed[2])


def _algorithm(message: Message) -> Algorithm | None:
    """The algorithm that a request names; MD5 if it names none, ``None`` if it was talked into something.

    A request that names one must carry the list that this server offers, unchanged (RFC 8489 §9.2.4)."""
    choice, offered = message.get(PasswordAlgorithm), message.get(PasswordAlgorithms)
    if choice is None and offered is None:
        return Algorithm.MD5
    if choice is None or offered != OFFERED:
        return None
    return read_choice(choice)


def _derived_password(secret: Secret, username: str) -> str:
    digest = hmac.digest(secret.reveal(), username.encode(), "sha1")
    return base64.b64encode(digest).decode()
