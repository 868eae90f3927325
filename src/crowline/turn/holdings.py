"""Everything that the server holds for its clients, and the one place where it is given back."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.turn.allocation import Allocation, Relay
from crowline.turn.allocations import Allocations
from crowline.turn.connections import Connection, Connections
from crowline.turn.outbox import Outbox
from crowline.turn.ports import RelayPorts
from crowline.turn.quota import Limits, Quota
from crowline.turn.reservations import Reservation, Reservations
from crowline.turn.server_events import HangUp
from crowline.turn.tickets import Tickets


class Holdings:
    """Allocations with their ports, reservations, tickets and connections, and what they count in."""

    def __init__(
        self, ports: RelayPorts, limits: Limits, outbox: Outbox, entropy: Callable[[int], bytes]
    ) -> None:
        self.on_change: Callable[[Allocation], None] | None = None
        self.ports = ports
        self.outbox = outbox
        self.quota = Quota(limits)
        self.allocations = Allocations()
        self.reservations = Reservations(entropy)
        self.tickets = Tickets(entropy)
        self.connections = Connections(entropy)
        self._alarms = tuple(
            each.alarms for each in (self.allocations, self.reservations, self.tickets, self.connections)
        )

    def changed(self, allocation: Allocation) -> None:
        """Tell who wants to know that an allocation was made, prolonged, opened to a peer, moved or ended."""
        allocation.version += 1
        if self.on_change is not None:
            self.on_change(allocation)

    def add(self, allocation: Allocation, source: Address, now: float) -> None:
        allocation.charged = source
        for _ in allocation.relays:
            self.quota.charge(allocation.user, source, now)
        self.allocations.add(allocation)
        self.outbox.counters["allocated"] += 1

    def end(self, allocation: Allocation) -> None:
        """Give back all that an allocation holds."""
        allocation.is_over = True
        for connection in self.connections.of(allocation):
            self.hang_up(connection)
        self.tickets.forget(allocation)
        self.allocations.remove(allocation)
        for relay in allocation.relays:
            self._give_back(relay, allocation)
        self.outbox.counters["ended"] += 1
        self.changed(allocation)

    def end_relay(self, allocation: Allocation, relay: Relay) -> None:
        """Give back one relayed address; with the last one the allocation is over."""
        if len(allocation.relays) == 1:
            self.end(allocation)
            return
        for connection in self.connections.of(allocation):
            if connection.peer.is_ipv6 == relay.address.is_ipv6:
                self.hang_up(connection)
        self.allocations.remove_relay(relay)
        allocation.drop(relay)
        self._give_back(relay, allocation)
        self.changed(allocation)

    def reserve(self, address: Address, user: str, source: Address, now: float) -> bytes:
        """Hold an open UDP relayed address for its user; the token that claims it."""
        self.quota.charge(user, source, now)
        return self.reservations.add(Reservation(address, user, source), now)

    def claim(self, token: bytes, reservation: Reservation) -> Address:
        """Take a held address out of its reservation, still open."""
        self.reservations.remove(token)
        self.quota.release(reservation.user, reservation.client)
        return reservation.address

    def hang_up(self, connection: Connection) -> None:
        """End a connection; what is left of it is the driver's to close."""
        self.connections.remove(connection)
        self.outbox.events.append(HangUp(connection.number))

    def handle_timeout(self, now: float) -> None:
        for allocation, relay in self.allocations.take_ended(now):
            if not allocation.is_over:
                self.end_relay(allocation, relay)
        for reservation in self.reservations.take_ended(now):
            self._unreserve(reservation)
        self.tickets.handle_timeout(now)

    def end_reservations(self) -> None:
        for reservation in self.reservations.take_all():
            self._unreserve(reservation)

    def next_timeout(self) -> float | None:
        earliest = None
        for alarms in self._alarms:
            time = alarms.next()
            if time is not None and (earliest is None or time < earliest):
                earliest = time
        return earliest

    def _unreserve(self, reservation: Reservation) -> None:
        self.ports.close(reservation.address)
        self.quota.release(reservation.user, reservation.client)

    def _give_back(self, relay: Relay, allocation: Allocation) -> None:
        assert allocation.charged is not None, "an allocation counts from the moment it is in the table"
        self.quota.release(allocation.user, allocation.charged)
        self.ports.close(relay.address, relay.transport)
