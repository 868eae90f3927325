"""The TURN server over UDP: requests, checked in the order that RFC 8656 numbers them.

Rules of this machine:

1. Parse, authenticate, act. Before a request is authenticated nothing is stored for it, and its answer is
   small and within the budget of its source.
2. Whether a peer may be talked to is asked once, when a permission is made: the address policy and
   `permits` must both agree. This server's own relay addresses are always allowed, and then reached inside.
3. Indications and ChannelData are never answered.

DONT-FRAGMENT is not supported (420); EVEN-PORT is, its reservation of a second port is not (508).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.machine import Buffer, Transmit
from crowline.stun.attributes import (
    AnyAttribute,
    ChannelNumber,
    ErrorCode,
    EvenPort,
    Lifetime,
    RequestedAddressFamily,
    XorMappedAddress,
    XorPeerAddress,
    XorRelayedAddress,
)
from crowline.stun.budget import CHALLENGE, MAX_AMPLIFICATION, ReplyBudget
from crowline.stun.message import MalformedStun, Message, MessageClass, Method, Received, parse
from crowline.stun.sources import is_plausible_source
from crowline.turn import channel_data
from crowline.turn.allocation import Allocation, Allocations
from crowline.turn.auth import Authenticated, Authenticator, Rejected
from crowline.turn.checks import (
    check_families,
    check_transport,
    check_unknown,
    family_of,
    granted_lifetime,
    held_by,
    is_retransmission,
)
from crowline.turn.codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    FORBIDDEN,
    INSUFFICIENT_CAPACITY,
    NO_ANSWER,
    PEER_FAMILY_MISMATCH,
    QUOTA_REACHED,
    Refusal,
)
from crowline.turn.quota import Limits, Quota
from crowline.turn.relay import DataRelay


class RelayPorts(Protocol):
    """Where relayed addresses come from: the driver's sockets."""

    def open(self, family: int, local: Address | None, *, even: bool) -> Address | None:
        """A relayed address of `family` (1 or 2) at a random port for a client that asked `local`.

        ``None`` when no port is left. The driver gives what arrives there to `TurnServer.receive_from_peer`.
        """

    def close(self, relayed: Address) -> None:
        """Give a relayed address back."""

    def has_family(self, family: int, local: Address | None) -> bool:
        """Whether addresses of that family can be opened at all for a client that asked `local`."""

    def is_relay_host(self, host: str) -> bool:
        """Whether relayed addresses of this server have that IP address."""

    def is_own_host(self, host: str) -> bool:
        """Whether that IP address is this machine's, as its clients or the machine itself sees it."""


class TurnServer:
    """One machine for all clients; `local` is the server address that a client asked, part of its 5-tuple."""

    def __init__(
        self,
        authenticator: Authenticator,
        ports: RelayPorts,
        *,
        permits: Callable[[str, Address], bool],
        policy: AddressPolicy,
        entropy: Callable[[int], bytes],
        limits: Limits | None = None,
        budget: ReplyBudget | None = None,
    ) -> None:
        """`permits(user, peer)` gets the user that credentials were issued to; it must agree to a peer."""
        self.counters: Counter[str] = Counter()
        self.allocations = Allocations()
        self._authenticator = authenticator
        self._ports = ports
        self._permits = permits
        self._policy = policy
        self._quota = Quota(limits or Limits())
        self._budget = budget or ReplyBudget(CHALLENGE)
        self._transmits: deque[Transmit] = deque()
        self._relay = DataRelay(self.allocations, self._quota, self._transmits, self.counters, entropy)
        self._handlers = {
            Method.REFRESH: self._refresh,
            Method.CREATE_PERMISSION: self._create_permission,
            Method.CHANNEL_BIND: self._channel_bind,
        }

    def receive(
        self,
        data: Buffer,
        source: Address,
        now: float,
        local: Address | None = None,
        segment_size: int | None = None,
    ) -> None:
        """What a client sent: one datagram, or with `segment_size` a run of them.

        Bulk data is not copied: take and send every `next_transmit` before `data` is used again.
        """
        size = segment_size or len(data) or 1
        view = memoryview(data)
        allocation = self.allocations.of_client(source, local)
        if allocation is not None and channel_data.is_channel_run(view, size):
            if allocation.expires > now:
                self._relay.from_channel(allocation, view, size, now)
            return
        for start in range(0, len(view), size):
            self._receive_datagram(view[start : start + size], source, local, now)

    def receive_from_peer(
        self,
        data: Buffer,
        source: Address,
        now: float,
        relayed: Address,
        segment_size: int | None = None,
    ) -> None:
        """What a peer sent to the relayed address `relayed`: one datagram, or a run of them."""
        allocation = self.allocations.of_relayed(relayed)
        if allocation is None or allocation.expires <= now:
            self.counters["dropped_peer"] += 1
            return
        self._relay.from_peer(allocation, data, source, segment_size, now)

    def handle_timeout(self, now: float) -> None:
        for allocation in self.allocations.ended(now):
            self._end(allocation)

    def next_timeout(self) -> float | None:
        return self.allocations.next_end()

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> None:
        return None

    def close(self) -> None:
        """End every allocation and give all ports back."""
        for allocation in self.allocations:
            self._end(allocation)

    # --- parse, authenticate ----------------------------------------------------------------------------

    def _receive_datagram(self, data: memoryview, source: Address, local: Address | None, now: float) -> None:
        if channel_data.is_channel_data(data):
            allocation = self.allocations.of_client(source, local)
            if allocation is not None and allocation.expires > now:
                self._relay.from_channel(allocation, data, len(data), now)
            return
        try:
            received = parse(data)
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        message = received.message
        if message.message_class is MessageClass.INDICATION and message.method is Method.SEND:
            allocation = self.allocations.of_client(source, local)
            if allocation is not None and allocation.expires > now:
                self._relay.from_send(allocation, received, now)
            return
        is_ours = message.method in self._handlers or message.method is Method.ALLOCATE
        if message.message_class is not MessageClass.REQUEST or not is_ours:
            self.counters["not_a_request"] += 1
            return
        if not is_plausible_source(source):
            self.counters["implausible_source"] += 1
            return
        self._on_request(received, source, local, now)

    def _on_request(self, received: Received, client: Address, local: Address | None, now: float) -> None:
        self.handle_timeout(now)
        allocation = self.allocations.of_client(client, local)
        is_allocate = received.message.method is Method.ALLOCATE
        if allocation is not None and is_allocate and is_retransmission(received, allocation):
            # RFC 8656 §7.2, the note: a success that was lost is given again, not turned into a 437.
            self._transmits.append(Transmit(allocation.success, client, local))
            return
        who = self._authenticator.check(received, client, now, is_new=allocation is None)
        if isinstance(who, Rejected):
            self._reject(received, who.code, client, local, now)
            return
        try:
            check_unknown(received)
            if is_allocate:
                self._allocate(received, who, client, local, now)
                return
            held = held_by(who, allocation)
            attributes = self._handlers[received.message.method](received.message, held, now)
        except Refusal as refusal:
            self.counters[f"refused_{refusal.code}"] += 1
            error = (ErrorCode(refusal.code), *refusal.attributes)
            self._answer(received, MessageClass.ERROR, error, who, client, local)
        else:
            self._answer(received, MessageClass.SUCCESS, attributes, who, client, local)

    def _reject(
        self, received: Received, code: int, client: Address, local: Address | None, now: float
    ) -> None:
        """An unsigned answer to a source that has proven nothing: small and within its budget, else silence."""
        if code == NO_ANSWER:
            self.counters["throttled"] += 1
            return
        attributes: tuple[AnyAttribute, ...] = (ErrorCode(code),)
        if code != BAD_REQUEST:
            attributes += self._authenticator.challenge(client, now)
        data = received.message.answer(MessageClass.ERROR, *attributes).encode()
        if len(data) > MAX_AMPLIFICATION * len(received.raw):
            self.counters["too_small"] += 1
        elif not self._budget.take(client, now):
            self.counters["over_budget"] += 1
        else:
            self.counters[f"rejected_{code}"] += 1
            self._transmits.append(Transmit(data, client, local))

    def _answer(
        self,
        received: Received,
        message_class: MessageClass,
        attributes: tuple[AnyAttribute, ...],
        who: Authenticated,
        client: Address,
        local: Address | None,
    ) -> bytes:
        """A signed answer, with the integrity and fingerprint that the request had."""
        data = who.sign(received.message.answer(message_class, *attributes), received)
        self._transmits.append(Transmit(data, client, local))
        return data

    # --- act --------------------------------------------------------------------------------------------

    def _allocate(
        self, received: Received, who: Authenticated, client: Address, local: Address | None, now: float
    ) -> None:
        """RFC 8656 §7.2; check 1 is authentication."""
        request = received.message
        # 2
        if self.allocations.of_client(client, local) is not None:
            raise Refusal(ALLOCATION_MISMATCH)
        check_transport(request)
        family, additional = check_families(request, lambda family: self._ports.has_family(family, local))
        # 10, before 8 and 9 because a port is opened there
        if not self._quota.has_room(who.user, client):
            raise Refusal(QUOTA_REACHED)
        if self._quota.is_full:
            raise Refusal(INSUFFICIENT_CAPACITY)
        # 8
        relayed = self._ports.open(family, local, even=request.get(EvenPort) is not None)
        if relayed is None:
            raise Refusal(INSUFFICIENT_CAPACITY)
        lifetime = granted_lifetime(request, self._quota.limits)
        allocation = Allocation(
            client, local, relayed, who.username, who.user, who.key, request.transaction_id, now + lifetime
        )
        self._quota.charge_allocation(who.user, client, now)
        self.allocations.add(allocation)
        self.counters["allocated"] += 1
        attributes = (
            XorRelayedAddress(relayed), Lifetime(lifetime), XorMappedAddress(client), *additional,
        )  # fmt: skip
        allocation.success = self._answer(received, MessageClass.SUCCESS, attributes, who, client, local)

    def _refresh(self, request: Message, allocation: Allocation, now: float) -> tuple[AnyAttribute, ...]:
        """RFC 8656 §8.2."""
        family = request.get(RequestedAddressFamily)
        if family is not None and family.family != family_of(allocation.relayed):
            raise Refusal(PEER_FAMILY_MISMATCH)
        lifetime = granted_lifetime(request, self._quota.limits)
        asked = request.get(Lifetime)
        if asked is not None and asked.seconds == 0:
            self._end(allocation)
            return (Lifetime(0),)
        self.allocations.extend(allocation, now + lifetime)
        return (Lifetime(lifetime),)

    def _create_permission(
        self, request: Message, allocation: Allocation, now: float
    ) -> tuple[AnyAttribute, ...]:
        """RFC 8656 §10.2: all of the peers, or none."""
        peers = [attribute.address for attribute in request.get_all(XorPeerAddress)]
        if not peers:
            raise Refusal(BAD_REQUEST)
        for peer in peers:
            self._check_peer(peer, allocation)
        if not allocation.has_room_for({peer.host for peer in peers}, self._quota.limits, now):
            raise Refusal(INSUFFICIENT_CAPACITY)
        for peer in peers:
            allocation.permit(peer.host, now, is_own=self._ports.is_own_host(peer.host))
        return ()

    def _channel_bind(self, request: Message, allocation: Allocation, now: float) -> tuple[AnyAttribute, ...]:
        """RFC 8656 §12.2."""
        number, attribute = request.get(ChannelNumber), request.get(XorPeerAddress)
        if number is None or attribute is None:
            raise Refusal(BAD_REQUEST)
        peer = attribute.address
        if not channel_data.FIRST_CHANNEL <= number.value <= channel_data.LAST_CHANNEL:
            raise Refusal(BAD_REQUEST)
        bound = allocation.channel(number.value, now)
        if bound is not None and bound.peer != peer:
            raise Refusal(BAD_REQUEST)
        other = allocation.channel_to(peer, now)
        if other is not None and other.number != number.value:
            raise Refusal(BAD_REQUEST)
        if peer.port == 0:
            raise Refusal(BAD_REQUEST)
        self._check_peer(peer, allocation)
        is_own = self._ports.is_own_host(peer.host)
        if is_own and self.allocations.of_relayed(peer) is None:
            # The server's other sockets, its own front among them.
            raise Refusal(FORBIDDEN)
        limits = self._quota.limits
        if bound is None and not allocation.has_room_for_channel(limits, now):
            raise Refusal(INSUFFICIENT_CAPACITY)
        if not allocation.has_room_for({peer.host}, limits, now):
            raise Refusal(INSUFFICIENT_CAPACITY)
        allocation.bind(number.value, peer, now, is_own=is_own)
        return ()

    def _check_peer(self, peer: Address, allocation: Allocation) -> None:
        """443 for the wrong family, 403 for a peer that policy or hub do not allow."""
        if family_of(peer) != family_of(allocation.relayed):
            raise Refusal(PEER_FAMILY_MISMATCH)
        if self._ports.is_relay_host(peer.host):
            return
        if self._ports.is_own_host(peer.host):
            raise Refusal(FORBIDDEN)
        # The port of a permission has no meaning (RFC 8656 §10.1), and many clients send 0.
        judged = peer if peer.port else Address(peer.host, 1)
        if not self._policy.permits(judged) or not self._permits(allocation.user, judged):
            raise Refusal(FORBIDDEN)

    def _end(self, allocation: Allocation) -> None:
        self.allocations.remove(allocation)
        self._quota.release_allocation(allocation.user, allocation.client)
        self._ports.close(allocation.relayed)
        self.counters["ended"] += 1
