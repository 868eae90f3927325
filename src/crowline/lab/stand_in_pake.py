"""A PAKE for simulations: the shape of SPAKE2 at a thousandth of its cost, and no security at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from crowline.base.secrets import Secret
from crowline.rendezvous.pake import BadElement
from crowline.rendezvous.role import Role

_ELEMENT_LENGTH = 9


class StandInPake:
    """Whoever sees both elements can try all passwords: only for peers that are simulated."""

    def __init__(self, role: Role, password: bytes, entropy: Callable[[int], bytes]) -> None:
        self._password = password
        self._element = role.value[:1].encode() + entropy(_ELEMENT_LENGTH - 1)

    @property
    def element(self) -> bytes:
        return self._element

    def finish(self, theirs: bytes) -> Secret:
        """Refuses what does not come from the other role."""
        if len(theirs) != _ELEMENT_LENGTH or theirs[:1] == self._element[:1]:
            raise BadElement
        both = b"".join(sorted((theirs, self._element)))
        return Secret(hashlib.sha256(both + self._password).digest())
