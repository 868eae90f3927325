"""The checks of RFC 8656 that need nothing but the request; each refuses with its code."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.stun.attributes import (
    FAMILY_IPV4,
    FAMILY_IPV6,
    DontFragment,
    Lifetime,
    UnknownAttributes,
)
from crowline.stun.integrity import verify_integrity
from crowline.stun.message import Message, Received
from crowline.turn.allocation import Allocation
from crowline.turn.auth import Authenticated
from crowline.turn.codes import ALLOCATION_MISMATCH, UNKNOWN_ATTRIBUTE, WRONG_CREDENTIALS, Refusal
from crowline.turn.quota import Limits

DEFAULT_LIFETIME = 600  # seconds, RFC 8656 §3.2


def is_retransmission(received: Received, allocation: Allocation) -> bool:
    return received.message.transaction_id == allocation.transaction_id and verify_integrity(
        received, allocation.key
    )


def check_unknown(received: Received, *, can_set_dont_fragment: bool) -> None:
    """RFC 8489 §6.3.1; DONT-FRAGMENT counts as unknown where it cannot be done (RFC 8656 §7.2, check 4)."""
    unknown = list(received.unknown_required)
    if not can_set_dont_fragment and received.message.get(DontFragment) is not None:
        unknown.append(DontFragment.type)
    if unknown:
        raise Refusal(UNKNOWN_ATTRIBUTE, UnknownAttributes(tuple(unknown)))


def held_by(who: Authenticated, allocation: Allocation | None) -> Allocation:
    """The allocation a request is about, if it is the sender's (RFC 8656 §5)."""
    if allocation is None:
        raise Refusal(ALLOCATION_MISMATCH)
    if allocation.username != who.username:
        raise Refusal(WRONG_CREDENTIALS)
    return allocation


def family_of(address: Address) -> int:
    return FAMILY_IPV6 if address.is_ipv6 else FAMILY_IPV4


def granted_lifetime(request: Message, limits: Limits) -> int:
    """RFC 8656 §7.2 and §8.2: a wish counts only between the default and the maximum."""
    asked = request.get(Lifetime)
    most = max(limits.max_lifetime, DEFAULT_LIFETIME)
    return DEFAULT_LIFETIME if asked is None else max(DEFAULT_LIFETIME, min(asked.seconds, most))
