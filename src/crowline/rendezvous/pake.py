"""Password-authenticated key exchange: a short code becomes a strong key, and each exchange tests one guess.

Simulations that run thousands of meetings bring a cheaper exchange of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from crowline.base.errors import MalformedMessage
from crowline.base.secrets import Secret
from crowline.rendezvous.keys import PROTOCOL
from crowline.rendezvous.role import Role

MAX_ELEMENT = 64
"""Bytes of an exchange's message that the hub stores and a peer looks at; SPAKE2 on Ed25519 needs 33."""

_ELEMENT_LENGTH = 33
_FIELD_PRIME = 2**255 - 19
_SIGN_BIT = 1 << 255


class BadElement(MalformedMessage):
    """The other side's part of the key exchange is not a valid one."""


class Pake(Protocol):
    """One exchange. Its element may be sent before the other side's is known."""

    @property
    def element(self) -> bytes:
        """What the other side needs, at most `MAX_ELEMENT` bytes."""

    def finish(self, theirs: bytes) -> Secret:
        """The key, which is the other side's key only if its password is the same. Raises `BadElement`."""


PakeFactory = Callable[[Role, bytes, Callable[[int], bytes]], Pake]
"""Called with the own role, the password and the source of randomness."""


class Spake2Pake:
    """SPAKE2 over Ed25519: the host is A, the joining side B; role and protocol version are the identities.

    The constructor imports a slow module and multiplies twice (about 5 ms): call it while there is time.
    """

    def __init__(self, role: Role, password: bytes, entropy: Callable[[int], bytes]) -> None:
        from spake2 import SPAKE2_A, SPAKE2_B

        side = SPAKE2_A if role is Role.HOST else SPAKE2_B
        host, join = (f"{PROTOCOL} {each.value}".encode() for each in Role)
        self._exchange: Any = side(password, idA=host, idB=join, entropy_f=entropy)
        self._element: bytes = self._exchange.start()

    @property
    def element(self) -> bytes:
        return self._element

    def finish(self, theirs: bytes) -> Secret:
        """Refuses the own element, another length, points off the curve, of small order or not reduced."""
        if theirs[1:] == self._element[1:] or not _is_plausible(theirs):
            raise BadElement
        try:
            return Secret(self._exchange.finish(theirs))
        except Exception as error:
            # The library reports bad points by ValueError, TypeError, AssertionError and classes of its own.
            raise BadElement from error


def _is_plausible(element: bytes) -> bool:
    """The library looks for the identity, y = 1, with the sign bit clear only, and takes unreduced y."""
    if len(element) != _ELEMENT_LENGTH:
        return False
    y = int.from_bytes(element[1:], "little") & ~_SIGN_BIT
    return 1 < y < _FIELD_PRIME - 1
