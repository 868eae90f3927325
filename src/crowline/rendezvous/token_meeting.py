"""A meeting by two tokens: what goes into the own one, and what follows from the other side's."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from crowline.base.errors import UsageError, WrongCode
from crowline.base.secrets import Secret
from crowline.rendezvous.handshake import VERIFIER_WORDS
from crowline.rendezvous.keys import derive
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import CandidateSignal, Description, Signal
from crowline.rendezvous.token import KEY_SIZE, MAX_CANDIDATES, BadToken, Token
from crowline.rendezvous.words import BITS_PER_WORD, spell

WORDS_SALT = b"crowline/1 token words"
SCRYPT_COST = 2**14
"""16 MiB and some 50 ms of one core for each try (RFC 7914)."""


class TokenMeeting:
    """`signal` takes what would go to the other side; `write` makes a token of it, once.

    The hosting side writes first and reads then, the joining side reads first. After both `key`, `words` and
    `heard` are there, the same key and words on both sides.
    """

    def __init__(self, role: Role, entropy: Callable[[int], bytes]) -> None:
        self._role = role
        self._secret = X25519PrivateKey.from_private_bytes(entropy(KEY_SIZE))
        self._description: Description | None = None
        self._candidates: list[CandidateSignal] = []
        self._own: Token | None = None
        self._theirs: Token | None = None
        self._shared = b""
        self.key: Secret | None = None
        self.words: tuple[str, ...] = ()

    def signal(self, signal: Signal) -> None:
        """Taken into the token, where that has room for it and is not written yet."""
        if self._own is not None:
            return
        if isinstance(signal, Description):
            self._description = signal
        elif isinstance(signal, CandidateSignal) and _is_tellable(signal):
            self._candidates.append(signal)

    @property
    def is_public(self) -> bool:
        """Whether something told leads here from outside this side's network."""
        hosts = [ipaddress.ip_address(each.host) for each in self._candidates]
        return any(each.is_global for each in hosts)

    @property
    def is_reflexive(self) -> bool:
        """Whether a server, or the router, has said how this side is seen from outside."""
        return any(each.kind == "srflx" for each in self._candidates)

    def write(self) -> Token:
        """The own token. Raises `UsageError` before there is anything to say."""
        if self._own is not None:
            return self._own
        if self._description is None or (self._role is Role.JOIN and self._theirs is None):
            raise UsageError("That token cannot be written yet.")
        ranked = sorted(self._candidates, key=lambda each: -each.priority)
        self._own = Token(
            self._role,
            self._secret.public_key().public_bytes_raw(),
            bytes.fromhex(self._description.fingerprint),
            self._description.ufrag,
            self._description.pwd,
            tuple(ranked[:MAX_CANDIDATES]),
            b"" if self._theirs is None else self._theirs.fingerprint,
        )
        self._agree()
        return self._own

    def read(self, text: str) -> None:
        """Take the other side's token. Raises `BadToken`; `WrongCode` for one that is not for this side."""
        token = Token.parse(text)
        if token.role is self._role:
            own = self._own is not None and token.key == self._own.key
            raise WrongCode(
                "That is your own token." if own else "That token is of another sender, as you are.",
                hint="Paste the one that the other side shows.",
            )
        if self._role is Role.HOST and (self._own is None or token.answers != self._own.fingerprint):
            raise WrongCode(
                "That token answers another one.",
                hint="Give the other side your token of now, and paste its.",
            )
        try:
            self._shared = self._secret.exchange(X25519PublicKey.from_public_bytes(token.key))
        except ValueError:
            # A public key that nobody can have: everybody would know what comes of it.
            raise BadToken from None
        self._theirs = token
        self._agree()

    def heard(self) -> list[Signal]:
        """What the other side would have signalled: restarts need a server, and TCP a certificate."""
        if self._theirs is None:
            return []
        token = self._theirs
        description = Description(
            token.ufrag, token.pwd, token.certificate.hex(), renominate=True, regains=True
        )
        return [description, *token.candidates]

    def _agree(self) -> None:
        """Once both tokens are there."""
        if self._own is None or self._theirs is None:
            return
        pair = (self._own, self._theirs)
        host, join = pair if self._role is Role.HOST else pair[::-1]
        parts = (host.body, join.body)
        digest = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts))
        self.key = derive(Secret(self._shared), f"token {digest.hexdigest()}")
        self.words = _words(self.key)


def _words(key: Secret) -> tuple[str, ...]:
    """Made slowly: whoever sits between has seen one side's token before making up the one for the other, and
    could try tokens until the words are the same. 44 bits are too few for that, unless each try is dear.
    """
    length = (VERIFIER_WORDS * BITS_PER_WORD + 7) // 8
    slow = Scrypt(WORDS_SALT, length, n=SCRYPT_COST, r=8, p=1)
    return spell(slow.derive(derive(key, "verifier").reveal()), VERIFIER_WORDS)


def _is_tellable(signal: CandidateSignal) -> bool:
    """An address over UDP: names and TCP would need more room, and a certificate."""
    try:
        ipaddress.ip_address(signal.host)
    except ValueError:
        return False
    return signal.transport == "udp"
