"""From two PAKE elements to a confirmed key."""

from __future__ import annotations

import hashlib
import hmac

from crowline.base.secrets import Secret
from crowline.rendezvous.keys import PROTOCOL, derive
from crowline.rendezvous.pake import Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.seal import Opener, Sealer
from crowline.rendezvous.words import BITS_PER_WORD, spell

VERIFIER_WORDS = 4
"""44 bits that two people can compare by voice: they differ if somebody guessed the code and sits between."""


class Handshake:
    """The key of one exchange, bound to version, mailbox and both elements, and the proof of knowing it."""

    def __init__(self, role: Role, label: str, pake: Pake, theirs: bytes) -> None:
        """`label`: the mailbox's number in digits, or its name in hexadecimal. Raises `BadElement`."""
        shared = pake.finish(theirs)
        host, join = (pake.element, theirs) if role is Role.HOST else (theirs, pake.element)
        self._role = role
        self._transcript = _digest(PROTOCOL.encode(), label.encode(), host, join)
        self.key: Secret = derive(shared, f"meeting {self._transcript.hex()}")

    def confirmation(self) -> bytes:
        """What proves this side's knowledge to the other: 32 bytes."""
        return self._proof(self._role)

    def confirms(self, theirs: bytes) -> bool:
        """Whether the other side has the same key; its own proof sent back to it proves nothing."""
        return hmac.compare_digest(theirs, self._proof(self._role.other))

    def sealer(self) -> Sealer:
        """Seals this side's signals."""
        return Sealer(derive(self.key, f"signals/{self._role.value}"))

    def opener(self) -> Opener:
        """Opens the other side's signals."""
        return Opener(derive(self.key, f"signals/{self._role.other.value}"))

    def verifier(self) -> tuple[str, ...]:
        """The same words on both sides, unless somebody sits between them."""
        length = (VERIFIER_WORDS * BITS_PER_WORD + 7) // 8
        return spell(derive(self.key, "verifier", length).reveal(), VERIFIER_WORDS)

    def _proof(self, role: Role) -> bytes:
        key = derive(self.key, f"confirm/{role.value}")
        return hmac.digest(key.reveal(), self._transcript, "sha256")


def _digest(*parts: bytes) -> bytes:
    """SHA-256 over the parts, each with its length, so that no two lists of parts look alike."""
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
