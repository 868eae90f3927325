"""Refresh: an allocation prolonged, ended, or moved to another 5-tuple (RFC 8656 §8.2, RFC 8016 §3.2.2)."""

from __future__ import annotations

from crowline.stun.attributes import AnyAttribute, Lifetime, MobilityTicket, RequestedAddressFamily
from crowline.stun.budget import prefix_of
from crowline.stun.message import Message
from crowline.turn.allocation import Allocation, Relay
from crowline.turn.checks import family_of, granted_lifetime
from crowline.turn.codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    MOBILITY_FORBIDDEN,
    PEER_FAMILY_MISMATCH,
    QUOTA_REACHED,
    Refusal,
)
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.holdings import Holdings
from crowline.turn.outbox import Request
from crowline.turn.tickets import TICKET_SIZE


class Refresher:
    """Answers Refresh, and carries allocations from one 5-tuple to the next."""

    def __init__(self, holdings: Holdings, *, mobility: bool) -> None:
        self._holdings = holdings
        self._mobility = mobility

    def subject(self, message: Message) -> Allocation | None:
        """The allocation that a ticket names; whoever shows it is still to be authenticated."""
        ticket = message.get(MobilityTicket)
        return self._holdings.tickets.find(ticket.value) if ticket is not None else None

    def check_ticket(self, request: Request) -> None:
        """What is wrong with a ticket, whoever's it is."""
        ticket = request.message.get(MobilityTicket)
        if ticket is None:
            return
        if not self._mobility:
            raise Refusal(MOBILITY_FORBIDDEN)
        if len(ticket.value) != TICKET_SIZE:
            raise Refusal(BAD_REQUEST)

    def refresh(self, request: Request, allocation: Allocation) -> tuple[AnyAttribute, ...]:
        """RFC 8656 §8.2, for all relayed addresses or those of one family."""
        message = request.message
        relays = _named(message, allocation)
        ticket = message.get(MobilityTicket)
        notes: tuple[AnyAttribute, ...] = ()
        if ticket is not None:
            notes = (MobilityTicket(self._move(request, allocation, ticket.value)),)
        asked = message.get(Lifetime)
        if asked is not None and asked.seconds == 0:
            for relay in relays:
                self._holdings.end_relay(allocation, relay)
            return (Lifetime(0),) if allocation.is_over else (Lifetime(0), *notes)
        lifetime = granted_lifetime(message, self._holdings.quota.limits)
        for relay in relays:
            self._holdings.allocations.extend(relay, request.now + lifetime)
        self._holdings.changed(allocation)
        return (Lifetime(lifetime), *notes)

    def heard(self, allocation: Allocation, five_tuple: FiveTuple) -> None:
        """Data came by `five_tuple`; a move to there is complete."""
        if allocation.moving_to != five_tuple:
            return
        if allocation.is_attached:
            self._holdings.allocations.detach(allocation.five_tuple)
        self._settle(allocation, five_tuple)

    def lost(self, allocation: Allocation, five_tuple: FiveTuple) -> None:
        """A stream of the client ended. Without mobility the allocation ends with it."""
        holdings = self._holdings
        holdings.connections.forget_answers(allocation, five_tuple)
        if allocation.moving_to == five_tuple:
            allocation.moving_to = None
            holdings.allocations.detach(five_tuple)
            return
        if holdings.tickets.of(allocation) is None:
            holdings.end(allocation)
            return
        holdings.allocations.detach(five_tuple)
        allocation.is_attached = False
        if allocation.moving_to is not None:
            self._settle(allocation, allocation.moving_to)
        else:
            holdings.changed(allocation)

    def _move(self, request: Request, allocation: Allocation, ticket: bytes) -> bytes:
        """Let `allocation` be reached from where its ticket was shown; the next ticket."""
        holdings, five_tuple = self._holdings, request.five_tuple
        if holdings.tickets.is_used(ticket):
            return self._answer_again(request, allocation, ticket)
        is_same = allocation.is_attached and five_tuple == allocation.five_tuple
        if is_same or five_tuple == allocation.moving_to:
            raise Refusal(BAD_REQUEST)
        if allocation.relay_transport.is_stream and not five_tuple.transport.is_stream:
            raise Refusal(BAD_REQUEST)
        table = holdings.allocations
        if table.of_client(five_tuple.client, five_tuple.local, five_tuple.transport) is not None:
            raise Refusal(ALLOCATION_MISMATCH)
        self._charge_elsewhere(allocation, five_tuple)
        if allocation.moving_to is not None:
            table.detach(allocation.moving_to)
        table.attach(five_tuple, allocation)
        allocation.moving_to = five_tuple
        if not allocation.is_attached:
            self._settle(allocation, five_tuple)
        holdings.outbox.counters["moved"] += 1
        return holdings.tickets.use(ticket, five_tuple, request.now)

    def _answer_again(self, request: Request, allocation: Allocation, ticket: bytes) -> bytes:
        """The answer to a move was lost: it is given again, to where it went."""
        tickets = self._holdings.tickets
        current = tickets.of(allocation)
        if current is None or not tickets.was_used_by(ticket, request.five_tuple):
            raise Refusal(ALLOCATION_MISMATCH)
        return current

    def _charge_elsewhere(self, allocation: Allocation, five_tuple: FiveTuple) -> None:
        """The user goes on paying; of the sources, the one where the client is now does."""
        quota, count, old = self._holdings.quota, len(allocation.relays), allocation.charged
        if old is None or prefix_of(old) == prefix_of(five_tuple.client):
            return
        if not quota.has_room_at(five_tuple.client, count):
            raise Refusal(QUOTA_REACHED)
        quota.move(old, five_tuple.client, count)
        allocation.charged = five_tuple.client

    def _settle(self, allocation: Allocation, five_tuple: FiveTuple) -> None:
        allocation.client, allocation.local = five_tuple.client, five_tuple.local
        allocation.transport = five_tuple.transport
        allocation.moving_to = None
        allocation.is_attached = True
        self._holdings.changed(allocation)


def _named(message: Message, allocation: Allocation) -> tuple[Relay, ...]:
    """The relayed addresses that the request is about: those of the family it names, or all."""
    family = message.get(RequestedAddressFamily)
    if family is None:
        return allocation.relays
    named = tuple(relay for relay in allocation.relays if family_of(relay.address) == family.family)
    if not named:
        raise Refusal(PEER_FAMILY_MISMATCH)
    return named
