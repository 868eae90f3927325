"""The checks of RFC 8656 that need nothing but the request; each refuses with its code."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.stun.attributes import (
    FAMILY_IPV4,
    FAMILY_IPV6,
    AdditionalAddressFamily,
    AddressErrorCode,
    AnyAttribute,
    DontFragment,
    EvenPort,
    Lifetime,
    RequestedAddressFamily,
    RequestedTransport,
    ReservationToken,
    UnknownAttributes,
)
from crowline.stun.integrity import verify_integrity
from crowline.stun.message import Message, Received
from crowline.turn.allocation import Allocation
from crowline.turn.auth import Authenticated
from crowline.turn.codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    FAMILY_NOT_SUPPORTED,
    INSUFFICIENT_CAPACITY,
    UNKNOWN_ATTRIBUTE,
    UNSUPPORTED_TRANSPORT,
    WRONG_CREDENTIALS,
    Refusal,
)
from crowline.turn.quota import Limits

UDP_PROTOCOL = 17
DEFAULT_LIFETIME = 600  # seconds, RFC 8656 §3.2


def is_retransmission(received: Received, allocation: Allocation) -> bool:
    return received.message.transaction_id == allocation.transaction_id and verify_integrity(
        received, allocation.key
    )


def check_unknown(received: Received) -> None:
    """RFC 8489 §6.3.1; DONT-FRAGMENT counts as unknown where it is not supported (RFC 8656 §7.2, check 4)."""
    unknown = list(received.unknown_required)
    if received.message.get(DontFragment) is not None:
        unknown.append(DontFragment.type)
    if unknown:
        raise Refusal(UNKNOWN_ATTRIBUTE, UnknownAttributes(tuple(unknown)))


def check_transport(request: Message) -> None:
    """Check 3 of RFC 8656 §7.2."""
    transport = request.get(RequestedTransport)
    if transport is None:
        raise Refusal(BAD_REQUEST)
    if transport.protocol != UDP_PROTOCOL:
        raise Refusal(UNSUPPORTED_TRANSPORT)


def held_by(who: Authenticated, allocation: Allocation | None) -> Allocation:
    """The allocation a request is about, if it is the sender's (RFC 8656 §5)."""
    if allocation is None:
        raise Refusal(ALLOCATION_MISMATCH)
    if allocation.username != who.username:
        raise Refusal(WRONG_CREDENTIALS)
    return allocation


def family_of(address: Address) -> int:
    return FAMILY_IPV6 if address.is_ipv6 else FAMILY_IPV4


def check_families(
    request: Message, has_family: Callable[[int], bool]
) -> tuple[int, tuple[AnyAttribute, ...]]:
    """Checks 5 to 9 of RFC 8656 §7.2: the family to give, and what the answer says of a second one."""
    token, even = request.get(ReservationToken), request.get(EvenPort)
    wanted, second = request.get(RequestedAddressFamily), request.get(AdditionalAddressFamily)
    # 5
    if token is not None:
        raise Refusal(BAD_REQUEST if even or wanted or second else INSUFFICIENT_CAPACITY)
    # 6
    if wanted is not None and second is not None:
        raise Refusal(BAD_REQUEST)
    # 7
    family = FAMILY_IPV4 if wanted is None else wanted.family
    if family not in (FAMILY_IPV4, FAMILY_IPV6) or not has_family(family):
        raise Refusal(FAMILY_NOT_SUPPORTED)
    # 8
    if even is not None and even.reserve:
        raise Refusal(BAD_REQUEST if second is not None else INSUFFICIENT_CAPACITY)
    # 9: one relayed address is given, and the reason why the other is not
    if second is None:
        return family, ()
    if second.family != FAMILY_IPV6:
        raise Refusal(BAD_REQUEST)
    return family, (AddressErrorCode(FAMILY_IPV6, FAMILY_NOT_SUPPORTED),)


def granted_lifetime(request: Message, limits: Limits) -> int:
    """RFC 8656 §7.2 and §8.2: a wish counts only between the default and the maximum."""
    asked = request.get(Lifetime)
    most = max(limits.max_lifetime, DEFAULT_LIFETIME)
    return DEFAULT_LIFETIME if asked is None else max(DEFAULT_LIFETIME, min(asked.seconds, most))
