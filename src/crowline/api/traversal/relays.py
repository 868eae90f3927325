"""Relayed addresses of one meeting: at each server one allocation, by the first way that leads to one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from crowline.api.traversal.race import Race
from crowline.api.traversal.relay import DatagramWay, Login, Relay
from crowline.api.traversal.relay_server import RelayServer
from crowline.api.traversal.relays_owner import RelaysOwner
from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.net.patience import within
from crowline.net.udp import UdpSocket

# Seconds at the end in which servers may say that they have taken allocations back: two tries by UDP.
GIVE_BACK_LIMIT = 1.0
# Seconds between looks at whether packets to the server still leave by the same address.
ROUTE_INTERVAL = 5.0


class Relays:
    """The races at all servers, and the way from a relayed address to its relay."""

    def __init__(self, owner: RelaysOwner) -> None:
        self._owner = owner
        self._races: list[Race] = []
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def allocate(self, server: RelayServer, login: Login) -> None:
        """Ask for relayed addresses at one server; `on_race_over` follows once."""
        others = list(self._races)

        def is_in_use(server: Address, local: Address) -> bool:
            return any(relay.is_between(server, local) for race in others for relay in race.relays)

        race = Race(self._owner, server, login, is_in_use)
        self._races.append(race)
        race.begin()
        if self._timer is None:
            self._timer = self._loop.call_later(ROUTE_INTERVAL, self._look)

    def renew_login(self, server: RelayServer, login: Login) -> bool:
        """Have a server that was asked before know this side by another login; False for one that was not."""
        for race in self._races:
            if race.server == server:
                race.renew_login(login)
                return True
        return False

    def behind(self, base: Address | None) -> Relay | None:
        """The relay whose relayed address `base` is."""
        for race in self._races:
            if race.winner is not None and base in race.winner.relayed:
                return race.winner
        return None

    def winners(self) -> list[Relay]:
        return [race.winner for race in self._races if race.winner is not None]

    def at(self, server: Address, local: Address) -> Relay | None:
        """The relay that exchanges datagrams with `server` from the socket `local`."""
        for race in self._races:
            for relay in race.relays:
                if relay.is_between(server, local):
                    return relay
        return None

    def heard(self, server: Address) -> None:
        for race in self._races:
            race.heard(server)

    def transport_of(self, base: Address) -> Transport:
        """How packets of that base leave this machine."""
        relay = self.behind(base)
        return relay.way.transport if relay is not None else Transport.UDP

    def follow(self, gone: Collection[str]) -> None:
        """This machine's network changed; it no longer has the addresses `gone`."""
        for race in self._races:
            race.follow(gone)

    def renew(self, base: Address, socket: UdpSocket) -> None:
        """Move allocations from the socket at `base` to another one, where the server gave tickets."""
        for relay in self.winners():
            if relay.way.local == base and relay.client.ticket is not None and not relay.client.is_moving:
                relay.move(DatagramWay(socket), relay.server)

    def uses(self, base: Address) -> bool:
        """Whether an allocation goes by the socket at `base`."""
        return any(relay.way.local == base for race in self._races for relay in race.relays)

    async def give_back(self) -> None:
        """Before `close`: have the servers free what they hold, and wait a moment for their word.

        Their datagrams must still come in.
        """
        self._stop_looking()
        for race in self._races:
            race.leave()
        await within(GIVE_BACK_LIMIT, self._all_left())

    def close(self) -> None:
        self._stop_looking()
        for race in self._races:
            race.close()

    async def _all_left(self) -> None:
        for race in self._races:
            await race.left.wait()

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        for race in self._races:
            race.check_route()
        self._timer = self._loop.call_later(ROUTE_INTERVAL, self._look)
