"""A PAKE for simulations: the same shape as SPAKE2 at a thousandth of the cost, and no security at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from crowline.base.secrets import Secret
from crowline.rendezvous.pake import BadElement
from crowline.rendezvous.role import Role


class FakePake:
    """Anyone who sees the elements can find the password: never outside tests."""

    def __init__(self, role: Role, password: bytes, entropy: Callable[[int], bytes]) -> None:
        self._password = password
        self._element = role.value[:1].encode() + entropy(8)

    @property
    def element(self) -> bytes:
        return self._element

    def finish(self, theirs: bytes) -> Secret:
        if len(theirs) != 9 or theirs[:1] == self._element[:1]:
            raise BadElement
        both = b"".join(sorted((theirs, self._element)))
        return Secret(hashlib.sha256(both + self._password).digest())
