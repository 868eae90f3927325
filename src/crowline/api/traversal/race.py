"""The race for an allocation at one server, by every way that leads there, and the keeping of what it won."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from crowline.api.traversal.relay import DatagramWay, Login, Relay, RelayOwner, StreamWay
from crowline.api.traversal.relay_server import BOTH_FAMILIES, RelayServer
from crowline.api.traversal.relays_owner import RelaysOwner
from crowline.base.addresses import Address
from crowline.base.errors import ServerUnreachable, UsageError
from crowline.net.chores import Chores
from crowline.net.interfaces import source_towards
from crowline.net.stream import StreamTarget
from crowline.stun.shapes import FAMILY_IPV6
from crowline.turn.alternates import Alternates
from crowline.turn.codes import FAMILY_NOT_SUPPORTED, UNAUTHORIZED
from crowline.turn.events import Allocated, AllocationFailed, AllocationLost, TurnEvent
from crowline.turn.head_start import head_start, may_allocate_at

# Seconds before an allocation that was lost, or could not be made again, is asked for again; doubled.
FIRST_RETRY = 0.5
MAX_RETRY = 30.0
# Seconds after which an allocation counts as one that lasts, and the next retry comes soon again.
LASTING = 60.0
# Allocations that one server may lose: each is a new candidate, of which an agent has a few dozen.
MAX_REMADE = 16


class Race(RelayOwner):
    """The ways to one server. `winner` is the one that made it."""

    def __init__(
        self,
        owner: RelaysOwner,
        server: RelayServer,
        login: Login,
        is_in_use: Callable[[Address, Address], bool],
    ) -> None:
        """`is_in_use` says whether a relay of another race exchanges datagrams between those two."""
        self.winner: Relay | None = None
        self.relays: set[Relay] = set()
        self.left = asyncio.Event()
        self._owner = owner
        self._is_in_use = is_in_use
        self.server = server
        self._login = login
        self._loop = asyncio.get_running_loop()
        self._entrants: set[Relay] = set()
        self._streams = Chores(on_end=self._settle)  # the ways by streams, on their way
        self._timer: asyncio.TimerHandle | None = None
        self._started = self._won_at = 0.0
        self._is_told = self._is_reconnecting = self._closed = False
        # Whether streams have been tried in this round; whether the server refuses our credentials.
        self._has_tried_streams = self._is_refused = False
        self._route: str | None = None  # the local address that led to the winner's server at the last look
        self._wins = 0
        self._retry = 0.0
        self._alternates: dict[Relay, Alternates] = {}

    def begin(self) -> None:
        """Ask by every way, UDP first."""
        self._started = self._loop.time()
        self._timer = None
        self._has_tried_streams = False
        for address in self.server.datagrams:
            self._enter_datagrams(address, self.server.families)
        if self.server.streams:
            known = any(self._owner.has_heard(address) for address in self.server.datagrams)
            delay = head_start(asks_datagrams=bool(self._entrants), has_answered=known)
            self._set_timer(delay, self._open_streams)
        self._settle()

    def heard(self, server: Address) -> None:
        """A datagram came from there: streams wait until UDP fails all the same."""
        if self.winner is None and any(
            relay.server == server and not relay.way.transport.is_stream for relay in self._entrants
        ):
            self._has_tried_streams = False
            self._stop()

    def renew_login(self, login: Login) -> None:
        """The server knows this side by another login from now on, and perhaps no more by the one before: an
        allocation that it has forgotten is made anew.
        """
        self._login = login
        self._is_refused = False
        self._wins = min(self._wins, 1)
        if self.winner is not None:
            self.winner.verify()
        elif not (self._closed or self._is_asking):
            self._stop()
            self.begin()

    def check_route(self) -> None:
        """Move an allocation that this machine's network has moved away from, if the server gave a ticket;
        without one see, once for each new route, whether it can still be reached.
        """
        relay = self.winner
        if relay is None or relay.client.is_moving:
            return
        host = source_towards(relay.server)
        before, self._route = self._route, host
        if host is None or host == relay.way.local.host:
            return
        if relay.client.ticket is None:
            if host != before:
                relay.verify()
        elif isinstance(relay.way, StreamWay):
            self.on_way_ended(relay, "this machine's address changed")
        elif socket := self._owner.socket_at(host):
            relay.move(DatagramWay(socket), relay.server)

    def follow(self, gone: Collection[str]) -> None:
        """This machine's network changed; it no longer has the addresses `gone`."""
        relay = self.winner
        if relay is None:
            self._ask_elsewhere(gone)
        elif relay.way.local.host in gone and (relay.client.ticket is None or relay.client.is_moving):
            self._on_lost(relay)
        else:
            self.check_route()

    def leave(self) -> None:
        """Give everything back; `left` is set when the server has heard that."""
        self._closed = True
        self.winner = None
        self._stop()
        for relay in list(self.relays):
            relay.give_up()
        if not self.relays:
            self.left.set()

    def close(self) -> None:
        self._closed = True
        self._stop()
        for relay in self.relays:
            relay.close()

    # --- what relays say --------------------------------------------------------------------------------

    def on_relayed(self, run: memoryview, segment_size: int, peer: Address, relayed: Address) -> None:
        self._owner.on_relayed(run, segment_size, peer, relayed)

    def on_drained(self) -> None:
        self._owner.on_drained()

    def on_turn_event(self, relay: Relay, event: TurnEvent) -> None:
        if isinstance(event, Allocated):
            self._on_allocated(relay, event)
        elif isinstance(event, AllocationFailed):
            self._on_failed(relay, event)
        elif isinstance(event, AllocationLost):
            self._on_lost(relay)

    def on_way_ended(self, relay: Relay, reason: str) -> None:
        """With a ticket the allocation is taken to a new stream; its peers need not know."""
        if relay is not self.winner:
            self._drop(relay)
        elif relay.client.ticket is not None and isinstance(relay.way, StreamWay):
            if not self._is_reconnecting:
                self._is_reconnecting = True
                self._streams.beside(self._reconnect(relay, relay.way.target))
        else:
            self._on_lost(relay)

    def on_given_back(self, relay: Relay) -> None:
        self._forget(relay)

    def _on_allocated(self, relay: Relay, event: Allocated) -> None:
        if self.winner is None:
            self._win(relay)
        if relay is self.winner:
            relay.relayed.append(event.relayed)
            self._owner.on_relayed_address(relay, event)
            self._tell()

    def _win(self, relay: Relay) -> None:
        self.winner = relay
        self._wins += 1
        self._won_at = self._loop.time()
        self._is_refused = False
        self._stop()
        losers = self._entrants - {relay}
        self._entrants.clear()
        for loser in losers:
            loser.give_up()

    def _on_failed(self, relay: Relay, event: AllocationFailed) -> None:
        alternates = self._alternates.pop(relay, None) or Alternates(relay.server)
        self._is_refused = self._is_refused or event.code == UNAUTHORIZED
        self._entrants.discard(relay)
        self._forget(relay)
        if event.code == FAMILY_NOT_SUPPORTED and relay.families == BOTH_FAMILIES:
            # A server without IPv4 relays may take "both" for "IPv4 at least".
            self._again(relay, relay.server, (FAMILY_IPV6,), alternates)
        elif alternates.follow(event.alternate) and event.alternate is not None:
            self._again(relay, event.alternate, relay.families, alternates, event.domain)
        self._drop(relay)

    def _on_lost(self, relay: Relay) -> None:
        if relay is not self.winner:
            self._drop(relay)
            return
        self.winner = None
        self._owner.on_relay_lost(relay)
        if self._loop.time() - self._won_at >= LASTING:
            self._retry = 0.0
        self._drop(relay)

    def _drop(self, relay: Relay) -> None:
        self._entrants.discard(relay)
        self._forget(relay)
        # The relay may be in the middle of telling us; what it still has to send goes out afterwards.
        self._loop.call_soon(relay.close)
        self._settle()

    def _forget(self, relay: Relay) -> None:
        self.relays.discard(relay)
        self._alternates.pop(relay, None)
        if self._closed and not self.relays:
            self.left.set()

    def _ask_elsewhere(self, gone: Collection[str]) -> None:
        """Without an allocation: the network that is here now may lead to one."""
        for relay in [relay for relay in self._entrants if relay.way.local.host in gone]:
            self._entrants.discard(relay)
            self._forget(relay)
            self._loop.call_soon(relay.close)
        if self._closed or self._is_refused or self._is_asking or self._wins >= MAX_REMADE:
            return
        self._stop()
        self.begin()

    # --- ways -------------------------------------------------------------------------------------------

    def _enter_datagrams(
        self, server: Address, families: tuple[int, ...], alternates: Alternates | None = None
    ) -> None:
        host = source_towards(server)
        socket = self._owner.socket_at(host) if host is not None else None
        if socket is None or self._is_in_use(server, socket.local):
            return
        before = [relay for relay in self.relays if relay.is_between(server, socket.local)]
        if not all(relay.is_leaving for relay in before):
            return
        for relay in before:
            # Whatever it leaves at the server, the new one removes.
            self._forget(relay)
            relay.close()
        self._owner.expect(server)
        self._enter(Relay(self, server, DatagramWay(socket), self._login, families), alternates)

    def _open_streams(self) -> None:
        self._timer = None
        self._has_tried_streams = True
        for target in self.server.streams:
            self._streams.beside(self._enter_stream(target, BOTH_FAMILIES))
        self._settle()

    async def _enter_stream(
        self, target: StreamTarget, families: tuple[int, ...], alternates: Alternates | None = None
    ) -> None:
        with suppress(ServerUnreachable):
            self._enter(await self._by_stream(target, families), alternates)

    async def _by_stream(self, target: StreamTarget, families: tuple[int, ...]) -> Relay:
        began = self._loop.time()
        way = await StreamWay.open(target)
        try:
            if self._entrants:
                now = self._loop.time()
                await asyncio.sleep(may_allocate_at(self._started, began, now) - now)
            return Relay(self, way.connection.remote, way, self._login, families)
        except BaseException:
            way.close()
            raise

    def _enter(self, relay: Relay, alternates: Alternates | None) -> None:
        self.relays.add(relay)
        self._entrants.add(relay)
        if alternates is not None:
            self._alternates[relay] = alternates
        relay.begin()

    def _again(
        self,
        relay: Relay,
        server: Address,
        families: tuple[int, ...],
        alternates: Alternates,
        domain: str = "",
    ) -> None:
        """Ask again by the same transport: another server, or the same one for less.

        Another server shows the same certificate, or one that is good for `domain` (RFC 8489 §10).
        """
        way = relay.way
        if isinstance(way, StreamWay):
            target = way.target
            if server != relay.server:
                pin, name = ("", domain) if domain else (target.fingerprint, target.name or target.host)
                target = StreamTarget(server.host, server.port, target.transport, pin, name)
            self._streams.beside(self._enter_stream(target, families, alternates))
        else:
            self._enter_datagrams(server, families, alternates)

    async def _reconnect(self, relay: Relay, target: StreamTarget) -> None:
        """Take the winner to a new stream; one try now and one after a while, then it counts as lost."""
        try:
            for delay in (0.0, FIRST_RETRY):
                await asyncio.sleep(delay)
                if await self._moves(relay, target):
                    return
        finally:
            self._is_reconnecting = False
        self._on_lost(relay)

    @staticmethod
    async def _moves(relay: Relay, target: StreamTarget) -> bool:
        """Whether a new stream is there, by which the allocation is being taken up."""
        try:
            way = await StreamWay.open(target)
        except ServerUnreachable:
            return False
        try:
            relay.move(way, way.connection.remote)
        except (ServerUnreachable, UsageError):
            way.close()
            return False
        return True

    @property
    def _is_asking(self) -> bool:
        """Whether a way is being tried."""
        return bool(self._entrants) or self._streams.is_busy

    def _settle(self) -> None:
        """When no way is left: say so, and try again later what has worked once."""
        if self._closed or self.winner is not None or self._is_asking or self._timer is not None:
            return
        if self.server.streams and not self._has_tried_streams and not self._is_refused:
            self._open_streams()
            return
        if 0 < self._wins < MAX_REMADE and not self._is_refused:
            self._set_timer(self._retry, self.begin)
            self._retry = min(max(2 * self._retry, FIRST_RETRY), MAX_RETRY)
        self._tell()

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._owner.on_race_over()

    def _set_timer(self, delay: float, call: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(delay, call)

    def _stop(self) -> None:
        self._stop_timer()
        self._streams.stop()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
