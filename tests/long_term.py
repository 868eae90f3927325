"""Requests with long-term credentials, written by hand, and the authenticator they are shown to."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, Received, parse
from crowline.stun.password_algorithms import OFFERED, Algorithm, derive_key, write_choice
from crowline.turn.auth import Authenticated, Authenticator, Rejected
from turn_pair import CLIENT, EPOCH, SECRET, entropy

REALM = "crowline"
TRANSPORT = a.RequestedTransport(17)
ADMIN = {"admin": Secret(b"long password")}


def authenticator(**options: object) -> Authenticator:
    return Authenticator(SECRET, entropy=entropy(1), epoch=EPOCH, users=ADMIN, **options)  # type: ignore[arg-type]


def nonce_for(auth: Authenticator, client: Address = CLIENT, now: float = 0.0) -> str:
    return next(item.value for item in auth.challenge(client, now) if isinstance(item, a.Nonce))


def request(
    nonce: str,
    user: str = "admin",
    password: str = "long password",
    algorithm: Algorithm | None = Algorithm.SHA256,
    *extra: a.AnyAttribute,
    offered: a.PasswordAlgorithms | None = OFFERED,
    name: a.AnyAttribute | None = None,
) -> Received:
    """A signed Allocate as a client of RFC 8489 writes it, or without `algorithm` one of RFC 5389."""
    proof: list[a.AnyAttribute] = [TRANSPORT, name or a.Username(user), a.Realm(REALM), a.Nonce(nonce)]
    if algorithm is not None:
        proof.append(write_choice(algorithm))
    if algorithm is not None and offered is not None:
        proof.append(offered)
    key = derive_key(algorithm or Algorithm.MD5, user, REALM, password)
    message = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (*proof, *extra))
    return parse(message.encode(key=key, sha256=algorithm is not None))


def check(
    auth: Authenticator, received: Received, client: Address = CLIENT, now: float = 0.0
) -> Authenticated | Rejected:
    return auth.check(received, client, now, is_new=True)
