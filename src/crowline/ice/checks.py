"""Connectivity checks as STUN messages: written, and verified before anybody acts on them (RFC 8445 §7).

Every function here is pure. What comes out of `verify_check` and `verify_answer` has proven knowledge of the
password; nothing else may change the state of an agent.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.stun.attributes import (
    Attribute,
    ErrorCode,
    IceControlled,
    IceControlling,
    Nomination,
    Priority,
    UnknownAttributes,
    UseCandidate,
    Username,
    XorMappedAddress,
)
from crowline.stun.integrity import short_term_key, verify_integrity
from crowline.stun.message import Message, MessageClass, Method, Received

# RFC 8445 §5.3 asks for 24 and 128 bits; more costs nothing. Base64 characters are exactly the ice-chars.
UFRAG_BYTES = 6
PASSWORD_BYTES = 18
MAX_UFRAG = 256  # RFC 8839 §5.4

BAD_REQUEST = 400
UNAUTHENTICATED = 401
FORBIDDEN = 403
UNKNOWN_ATTRIBUTE = 420
ROLE_CONFLICT = 487


def draw_credentials(entropy: Callable[[int], bytes]) -> tuple[str, str]:
    """A fresh user fragment of 8 characters and password of 24."""
    return (
        base64.b64encode(entropy(UFRAG_BYTES)).decode(),
        base64.b64encode(entropy(PASSWORD_BYTES)).decode(),
    )


@dataclass(slots=True)
class Credentials:
    """Ours, and the other side's as soon as they are known (``""`` before)."""

    local_ufrag: str
    local_password: str = field(repr=False)
    remote_ufrag: str = ""
    remote_password: str = field(default="", repr=False)

    @property
    def local_key(self) -> bytes:
        return short_term_key(self.local_password)

    @property
    def remote_key(self) -> bytes:
        return short_term_key(self.remote_password)

    def sender_of(self, username: str) -> str | None:
        """The fragment of who sends a check with this user name to us; ``None`` when it is not for us."""
        receiver, colon, sender = username.partition(":")
        if not colon or receiver != self.local_ufrag or not sender or ":" in sender:
            return None
        if len(sender) > MAX_UFRAG or (self.remote_ufrag and sender != self.remote_ufrag):
            return None
        return sender


def receiver_of(received: Received) -> str:
    """The fragment of whom a check is for: it tells the session, and proves nothing."""
    username = received.message.get(Username)
    return "" if username is None else username.value.partition(":")[0]


@dataclass(frozen=True, slots=True)
class VerifiedCheck:
    """A check whose sender knows our password."""

    message: Message
    sender: str
    priority: int
    use_candidate: bool
    rank: int | None
    claim: IceControlling | IceControlled | None
    sha256: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """The error a request deserves; `signed` only where its sender has proven knowledge of the password."""

    message: Message
    error: ErrorCode
    signed: bool
    unknown: tuple[int, ...] = ()

    def encode(self, credentials: Credentials) -> bytes:
        extra = (UnknownAttributes(self.unknown),) if self.unknown else ()
        answer = self.message.answer(MessageClass.ERROR, self.error, *extra)
        return answer.encode(key=credentials.local_key if self.signed else None, fingerprint=True)


@dataclass(frozen=True, slots=True)
class VerifiedAnswer:
    """A response from somebody who knows the other side's password: `mapped` on success, else `error`."""

    mapped: Address | None
    error: int | None


def verify_check(received: Received, credentials: Credentials) -> VerifiedCheck | Refusal | None:
    """RFC 8489 §9.1.3 and RFC 8445 §7.3, in their order. ``None``: to be dropped without an answer."""
    message = received.message
    username = message.get(Username)
    if username is None or not received.is_signed:
        return Refusal(message, ErrorCode(BAD_REQUEST, "Bad Request"), signed=False)
    sender = credentials.sender_of(username.value)
    if sender is None or not verify_integrity(received, credentials.local_key):
        return Refusal(message, ErrorCode(UNAUTHENTICATED, "Unauthenticated"), signed=False)
    if received.unknown_required:
        error = ErrorCode(UNKNOWN_ATTRIBUTE, "Unknown Attribute")
        return Refusal(message, error, signed=True, unknown=received.unknown_required)
    priority, nomination = message.get(Priority), message.get(Nomination)
    controlling, controlled = message.get(IceControlling), message.get(IceControlled)
    if priority is None or (controlling is not None and controlled is not None):
        return None
    return VerifiedCheck(
        message=message,
        sender=sender,
        priority=priority.value,
        use_candidate=message.get(UseCandidate) is not None,
        rank=None if nomination is None else nomination.rank,
        claim=controlling if controlling is not None else controlled,
        sha256=received.sha256_offset is not None,
    )


def verify_answer(received: Received, credentials: Credentials) -> VerifiedAnswer | None:
    """``None`` for a response that is unsigned, signed with another key, or says nothing."""
    if not credentials.remote_password or not verify_integrity(received, credentials.remote_key):
        return None
    message = received.message
    if message.message_class is MessageClass.SUCCESS:
        mapped = message.get(XorMappedAddress)
        if mapped is None or received.unknown_required:
            return None
        return VerifiedAnswer(mapped.address, None)
    error = message.get(ErrorCode)
    return None if error is None else VerifiedAnswer(None, error.code)


def write_check(
    transaction_id: bytes,
    credentials: Credentials,
    priority: int,
    claim: IceControlling | IceControlled,
    *,
    use_candidate: bool,
    rank: int = 0,
) -> bytes:
    """A check (RFC 8445 §7.2.2); `priority` is what the sending candidate would have as peer-reflexive.

    `rank`: that of the nomination, where it is to be told.
    """
    username = Username(f"{credentials.remote_ufrag}:{credentials.local_ufrag}")
    attributes: list[Attribute] = [username, Priority(priority), claim]
    if use_candidate:
        attributes += [UseCandidate(), Nomination(rank)] if rank else [UseCandidate()]
    message = Message(Method.BINDING, MessageClass.REQUEST, transaction_id, tuple(attributes))
    return message.encode(key=credentials.remote_key, fingerprint=True)


def write_success(check: VerifiedCheck, source: Address, credentials: Credentials) -> bytes:
    """The answer to a check, signed as the check was."""
    answer = check.message.answer(MessageClass.SUCCESS, XorMappedAddress(source))
    return answer.encode(key=credentials.local_key, fingerprint=True, sha256=check.sha256)


def write_role_conflict(check: VerifiedCheck, credentials: Credentials) -> bytes:
    """The 487 of RFC 8445 §7.3.1.1."""
    answer = check.message.answer(MessageClass.ERROR, ErrorCode(ROLE_CONFLICT, "Role Conflict"))
    return answer.encode(key=credentials.local_key, fingerprint=True, sha256=check.sha256)


def write_keepalive(transaction_id: bytes) -> bytes:
    """A Binding indication (RFC 8445 §11): keeps translators awake, asks for nothing."""
    return Message(Method.BINDING, MessageClass.INDICATION, transaction_id).encode(fingerprint=True)
