"""Where two sides meet that share a secret: a mailbox that nobody else can name, and a key to prove it by."""

from __future__ import annotations

from dataclasses import dataclass, field

from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.rendezvous.keys import derive

NAME_BYTES = 32
SECRET_BYTES = 32
"""Bytes of a shared secret: one that was derived from a meeting's key, never one that a person made up."""


@dataclass(frozen=True, slots=True)
class Appointment:
    """`name` is the mailbox's, which the hub sees and cannot trace to anything; `password` feeds the PAKE.

    Neither tells the other, nor the secret. The name of one secret is always the same: whoever runs the hub
    sees that the two who meet there are the two who met there before, and no more.
    """

    name: bytes
    password: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: Secret) -> Appointment:
        """Raises `UsageError` for a secret that is not `SECRET_BYTES` long."""
        if len(secret.reveal()) != SECRET_BYTES:
            raise UsageError(f"A secret to meet by has {SECRET_BYTES} bytes.")
        name = derive(secret, "appointment/name", NAME_BYTES)
        return cls(name.reveal(), derive(secret, "appointment/password").reveal())
