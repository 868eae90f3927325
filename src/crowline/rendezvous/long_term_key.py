"""Who a side is beyond one meeting: an Ed25519 key (RFC 8032), proven anew in each."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from crowline.base.secrets import Secret
from crowline.rendezvous.keys import PROTOCOL
from crowline.rendezvous.role import Role

KEY_BYTES = 32
"""Bytes of a private key, of a public one, and of what binds a proof to one meeting."""

SIGNATURE_BYTES = 64

_SIGN_BIT = 1 << 255
_FIELD_PRIME = 2**255 - 19
_ORDER_EIGHT = (
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)
# The y coordinates of the points of small order, reduced or not: a signature under one needs no private key.
_SMALL_ORDER = {0, 1, _FIELD_PRIME - 1, _FIELD_PRIME, _FIELD_PRIME + 1, *_ORDER_EIGHT}


class LongTermKey:
    """A private key. It signs nothing but proofs."""

    def __init__(self, secret: Secret) -> None:
        """`secret`: `KEY_BYTES` random bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(secret.reveal())

    @property
    def public(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def prove(self, role: Role, binding: bytes) -> bytes:
        """A signature that shows in one meeting that the side with that role has this key. `binding`: bytes
        that only the two sides of that meeting have; elsewhere, and from the other side, it proves nothing.
        """
        return self._key.sign(_statement(role, binding))


def proves(proof: bytes, public: bytes, role: Role, binding: bytes) -> bool:
    """Whether the side with that role has shown that it has the key of `public`."""
    if len(public) != KEY_BYTES or len(proof) != SIGNATURE_BYTES:
        return False
    if int.from_bytes(public, "little") & ~_SIGN_BIT in _SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(proof, _statement(role, binding))
    except (InvalidSignature, ValueError):
        return False
    return True


def _statement(role: Role, binding: bytes) -> bytes:
    return f"{PROTOCOL} identity {role.value} ".encode() + binding
