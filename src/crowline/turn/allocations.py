"""All allocations of a server: by 5-tuple, by relayed address and by the time they end."""

from __future__ import annotations

from collections.abc import Iterator

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.turn.alarms import Alarms
from crowline.turn.allocation import Allocation, Relay
from crowline.turn.five_tuple import FiveTuple


class Allocations:
    """Nothing here is linear in the number of allocations but going through them."""

    def __init__(self) -> None:
        self._by_client: dict[FiveTuple, Allocation] = {}
        self._by_relayed: dict[Address, Allocation] = {}
        self._by_tcp_relayed: dict[Address, Allocation] = {}
        # In the order they were made; those whose client is away are in no other table of clients.
        self._all: dict[Allocation, None] = {}
        self._by_user: dict[str, dict[Allocation, None]] = {}
        # By address and not by object: an alarm that no longer counts must not keep an allocation alive.
        self.alarms = Alarms[tuple[Address, Transport]]()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Allocation]:
        return iter(list(self._all))

    def of_client(
        self, client: Address, local: Address | None, transport: Transport = Transport.UDP
    ) -> Allocation | None:
        return self._by_client.get(FiveTuple(client, local, transport))

    def of_user(self, user: str) -> tuple[Allocation, ...]:
        """All that a user has."""
        return tuple(self._by_user.get(user, ()))

    def of_relayed(self, relayed: Address) -> Allocation | None:
        """The allocation with that relayed UDP address."""
        return self._by_relayed.get(relayed)

    def of_tcp_relayed(self, relayed: Address) -> Allocation | None:
        """The allocation with that relayed TCP address."""
        return self._by_tcp_relayed.get(relayed)

    def add(self, allocation: Allocation) -> None:
        self._all[allocation] = None
        self._by_user.setdefault(allocation.user, {})[allocation] = None
        self._by_client[allocation.five_tuple] = allocation
        for relay in allocation.relays:
            self._relayed(relay.transport)[relay.address] = allocation
            self.alarms.set((relay.address, relay.transport), relay.expires)

    def attach(self, five_tuple: FiveTuple, allocation: Allocation) -> None:
        """Let an allocation be found by a 5-tuple more."""
        self._by_client[five_tuple] = allocation

    def detach(self, five_tuple: FiveTuple) -> None:
        """A 5-tuple leads nowhere any more."""
        self._by_client.pop(five_tuple, None)

    def extend(self, relay: Relay, expires: float) -> None:
        """Give a relayed address another end. A later one is noticed when the old alarm goes off."""
        relay.expires = expires
        key = (relay.address, relay.transport)
        if expires < self.alarms.time_of(key):
            self.alarms.set(key, expires)

    def remove_relay(self, relay: Relay) -> None:
        self._relayed(relay.transport).pop(relay.address, None)
        self.alarms.cancel((relay.address, relay.transport))

    def remove(self, allocation: Allocation) -> None:
        """Forget an allocation with everything that leads to it."""
        self._all.pop(allocation, None)
        own = self._by_user.get(allocation.user, {})
        own.pop(allocation, None)
        if not own:
            self._by_user.pop(allocation.user, None)
        if allocation.is_attached:
            self.detach(allocation.five_tuple)
        if allocation.moving_to is not None:
            self.detach(allocation.moving_to)
        for relay in allocation.relays:
            self.remove_relay(relay)

    def take_ended(self, now: float) -> list[tuple[Allocation, Relay]]:
        """Relayed addresses that are over and still in the table."""
        over = []
        for key in self.alarms.take_due(now):
            address, transport = key
            allocation = self._relayed(transport)[address]
            relay = next(relay for relay in allocation.relays if relay.address == address)
            if relay.expires <= now:
                over.append((allocation, relay))
            else:
                self.alarms.set(key, relay.expires)
        return over

    def _relayed(self, transport: Transport) -> dict[Address, Allocation]:
        return self._by_tcp_relayed if transport.is_stream else self._by_relayed
