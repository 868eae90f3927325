"""Allocate: the checks of RFC 8656 §7.2 by their numbers, with those of RFC 6062 §5.1 and RFC 8016 §3.1.2."""

from __future__ import annotations

from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun.attributes import (
    FAMILY_IPV4,
    FAMILY_IPV6,
    AdditionalAddressFamily,
    AddressErrorCode,
    AlternateServer,
    AnyAttribute,
    DontFragment,
    EvenPort,
    Lifetime,
    MobilityTicket,
    RequestedAddressFamily,
    RequestedTransport,
    ReservationToken,
    XorMappedAddress,
    XorRelayedAddress,
)
from crowline.stun.budget import prefix_of
from crowline.stun.message import Message
from crowline.turn.allocation import Allocation, Relay
from crowline.turn.checks import granted_lifetime
from crowline.turn.codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    FAMILY_NOT_SUPPORTED,
    INSUFFICIENT_CAPACITY,
    MOBILITY_FORBIDDEN,
    QUOTA_REACHED,
    TRY_ALTERNATE,
    UNSUPPORTED_TRANSPORT,
    Refusal,
)
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.holdings import Holdings
from crowline.turn.outbox import Request

PROTOCOLS = {17: Transport.UDP, 6: Transport.TCP}


@dataclass(slots=True)
class _Granted:
    """What a request gets: relayed addresses that are open, and what the answer says beside them."""

    addresses: list[Address]
    transport: Transport
    notes: list[AnyAttribute]


class Allocator:
    """Makes allocations; while `drain` is in force, none."""

    def __init__(self, holdings: Holdings, *, mobility: bool) -> None:
        self._holdings = holdings
        self._ports = holdings.ports
        self._quota = holdings.quota
        self._mobility = mobility
        self._is_draining = False
        self._alternate: Address | None = None

    def drain(self, alternate: Address | None) -> None:
        """Send who comes from now on to `alternate`, or away."""
        self._is_draining, self._alternate = True, alternate
        self._holdings.end_reservations()

    def allocate(self, request: Request) -> bytes:
        """A new allocation; the answer, which has been sent. Check 1 is authentication, check 4 was done."""
        five_tuple, message = request.five_tuple, request.message
        # 2
        if self._holdings.allocations.of_client(five_tuple.client, five_tuple.local, five_tuple.transport):
            raise Refusal(ALLOCATION_MISMATCH)
        # 11
        self._check_draining(five_tuple)
        # 3
        transport = _transport_of(message, five_tuple.transport)
        wants_ticket = self._wants_ticket(message)
        token = message.get(ReservationToken)
        granted = self._open(request, transport) if token is None else self._claim(request, token.token)
        lifetime = granted_lifetime(message, self._quota.limits)
        allocation = self._add(request, granted, lifetime)
        attributes: list[AnyAttribute] = [XorRelayedAddress(address) for address in granted.addresses]
        attributes += [Lifetime(lifetime), XorMappedAddress(five_tuple.client), *granted.notes]
        if wants_ticket:
            attributes.append(MobilityTicket(self._holdings.tickets.issue(allocation)))
        allocation.success = self._holdings.outbox.succeed(request, tuple(attributes))
        self._holdings.changed(allocation)
        return allocation.success

    def _check_draining(self, five_tuple: FiveTuple) -> None:
        if not self._is_draining:
            return
        # RFC 8489 §10: an alternate of the other family is none, and a client tries it by the transport that
        # it uses now; this port of the alternate has no TLS.
        alternate, client = self._alternate, five_tuple.client
        is_secure = five_tuple.transport is Transport.TLS
        if alternate is None or alternate.is_ipv6 != client.is_ipv6 or is_secure:
            raise Refusal(INSUFFICIENT_CAPACITY)
        raise Refusal(TRY_ALTERNATE, AlternateServer(alternate))

    def _wants_ticket(self, message: Message) -> bool:
        """RFC 8016 §3.1.2."""
        ticket = message.get(MobilityTicket)
        if ticket is None:
            return False
        if ticket.value:
            raise Refusal(BAD_REQUEST)
        if not self._mobility:
            raise Refusal(MOBILITY_FORBIDDEN)
        return True

    def _claim(self, request: Request, token: bytes) -> _Granted:
        """Check 5: a reserved address."""
        message, holdings, client = request.message, self._holdings, request.five_tuple.client
        if any(message.get(cls) for cls in (EvenPort, RequestedAddressFamily, AdditionalAddressFamily)):
            raise Refusal(BAD_REQUEST)
        reservation = holdings.reservations.find(token, request.who.user)
        if reservation is None:
            raise Refusal(INSUFFICIENT_CAPACITY)
        # The address counts already, but perhaps for another source.
        is_elsewhere = prefix_of(client) != prefix_of(reservation.client)
        if is_elsewhere and not self._quota.has_room_at(client, 1):
            raise Refusal(QUOTA_REACHED)
        return _Granted([holdings.claim(token, reservation)], Transport.UDP, [])

    def _open(self, request: Request, transport: Transport) -> _Granted:
        """Checks 6 to 10: new addresses, one or one of each family."""
        message, local = request.message, request.five_tuple.local
        family, is_dual = self._families(message, local)
        even = message.get(EvenPort)
        # 8
        reserve = even is not None and even.reserve
        if reserve and is_dual:
            raise Refusal(BAD_REQUEST)
        # 10
        self._check_quota(request, 2 if reserve else 1)
        granted = _Granted([], transport, [])
        if is_dual:
            self._open_both(request, granted)
            return granted
        address = self._ports.open(family, local, even=even is not None, reserve=reserve, transport=transport)
        if address is None:
            raise Refusal(INSUFFICIENT_CAPACITY)
        granted.addresses.append(address)
        if reserve:
            beside = Address(address.host, address.port + 1)
            user, client = request.who.user, request.five_tuple.client
            token = self._holdings.reserve(beside, user, client, request.now)
            granted.notes.append(ReservationToken(token))
        return granted

    def _open_both(self, request: Request, granted: _Granted) -> None:
        """Check 9: one address of each family, or one with the reason why the other is missing."""
        even, local = request.message.get(EvenPort) is not None, request.five_tuple.local
        for family in (FAMILY_IPV4, FAMILY_IPV6):
            if not self._ports.has_family(family, local):
                granted.notes.append(AddressErrorCode(family, FAMILY_NOT_SUPPORTED))
                continue
            address = None
            if self._has_room(request, len(granted.addresses) + 1):
                address = self._ports.open(family, local, even=even, transport=granted.transport)
            if address is None:
                granted.notes.append(AddressErrorCode(family, INSUFFICIENT_CAPACITY))
            else:
                granted.addresses.append(address)
        if not granted.addresses:
            raise Refusal(INSUFFICIENT_CAPACITY)

    def _families(self, message: Message, local: Address | None) -> tuple[int, bool]:
        """Checks 6, 7 and 9: the family to give, and whether the other one is wanted too."""
        wanted, second = message.get(RequestedAddressFamily), message.get(AdditionalAddressFamily)
        if wanted is not None and second is not None:
            raise Refusal(BAD_REQUEST)
        family = FAMILY_IPV4 if wanted is None else wanted.family
        if family not in (FAMILY_IPV4, FAMILY_IPV6) or not self._ports.has_family(family, local):
            raise Refusal(FAMILY_NOT_SUPPORTED)
        if second is not None and second.family != FAMILY_IPV6:
            raise Refusal(BAD_REQUEST)
        return family, second is not None

    def _check_quota(self, request: Request, count: int) -> None:
        """Check 10: 486 for what the user or its source has, 508 for the whole server."""
        if not self._quota.has_room(request.who.user, request.five_tuple.client, count):
            raise Refusal(QUOTA_REACHED)
        if not self._quota.has_capacity(count):
            raise Refusal(INSUFFICIENT_CAPACITY)

    def _has_room(self, request: Request, count: int) -> bool:
        client = request.five_tuple.client
        return self._quota.has_room(request.who.user, client, count) and self._quota.has_capacity(count)

    def _add(self, request: Request, granted: _Granted, lifetime: int) -> Allocation:
        who, five_tuple, expires = request.who, request.five_tuple, request.now + lifetime
        allocation = Allocation(
            five_tuple.client,
            five_tuple.local,
            five_tuple.transport,
            who.username,
            who.user,
            who.key,
            request.message.transaction_id,
            relays=tuple(Relay(address, granted.transport, expires) for address in granted.addresses),
        )
        self._holdings.add(allocation, five_tuple.client, request.now)
        return allocation


def _transport_of(message: Message, client: Transport) -> Transport:
    """Check 3, and for TCP the checks of RFC 6062 §5.1."""
    requested = message.get(RequestedTransport)
    if requested is None:
        raise Refusal(BAD_REQUEST)
    transport = PROTOCOLS.get(requested.protocol)
    if transport is None:
        raise Refusal(UNSUPPORTED_TRANSPORT)
    if transport.is_stream:
        is_misplaced = any(message.get(cls) for cls in (DontFragment, EvenPort, ReservationToken))
        if is_misplaced or not client.is_stream:
            raise Refusal(BAD_REQUEST)
    return transport
