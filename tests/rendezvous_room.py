"""A hub and its clients joined by function calls in virtual time, with a delay each way between them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import TypeVar

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.rendezvous.appointment import Appointment
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import CodeReady, Keyed, MeetingEvent, MeetingFailed, Signalled
from crowline.rendezvous.hub import Delivery, Hub
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.meeting import HUB, Meeting
from crowline.rendezvous.pake import PakeFactory
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Signal
from crowline.rendezvous.wire import TurnGrant
from fake_pake import FakePake

E = TypeVar("E")


class Client:
    """One side with its WebSocket."""

    def __init__(self, room: Room, meeting: Meeting, address: Address) -> None:
        self.room = room
        self.meeting = meeting
        self.address = address
        self.connection: int | None = None
        self.closed_with: int | None = None
        self.events: list[tuple[float, MeetingEvent]] = []
        self.frames: list[bytes] = []

    def of(self, kind: type[E]) -> list[E]:
        return [event for _, event in self.events if isinstance(event, kind)]

    def at(self, kind: type[MeetingEvent]) -> float:
        return next(time for time, event in self.events if isinstance(event, kind))

    @property
    def signals(self) -> list[Signal]:
        return [event.signal for event in self.of(Signalled)]

    @property
    def error(self) -> Exception:
        [failed] = self.of(MeetingFailed)
        return failed.error

    @property
    def is_keyed(self) -> bool:
        return bool(self.of(Keyed))

    def signal(self, signal: Signal) -> None:
        self.meeting.signal(signal)
        self.room.flush(self)

    def frame(self, data: bytes) -> None:
        connection = self.connection
        assert connection is not None
        self.room.later(lambda: self.room.hub.receive_binary(connection, data, self.room.now))

    def close(self) -> None:
        self.meeting.close(self.room.now)
        self.room.flush(self)

    def lose_socket(self) -> None:
        """The WebSocket breaks; what is on its way is lost."""
        connection, self.connection = self.connection, None
        assert connection is not None
        self.room.hub.disconnect(connection, self.room.now)
        self.room.clients.pop(connection, None)

    def come_back(self) -> None:
        self.room.connect(self)
        self.meeting.reopen(self.room.now)
        self.room.flush(self)


class Room:
    """`step` jumps to the next thing that happens. `tamper` may change or drop what the hub delivers; sides
    at addresses in `hidden` hide."""

    def __init__(
        self,
        *,
        delay: float = 0.01,
        seed: int = 1,
        limits: HubLimits | None = None,
        pake: PakeFactory = FakePake,
        grant: Callable[[str], TurnGrant | None] | None = None,
        motd: str = "",
    ) -> None:
        self.dice = random.Random(seed)
        self.now = 1000.0
        self.delay = delay
        self.pake = pake
        self.hub = Hub(entropy=self.dice.randbytes, limits=limits, grant=grant, motd=motd)
        self.clients: dict[int, Client] = {}
        self.everyone: list[Client] = []
        self.hidden: set[str] = set()
        self.tamper: Callable[[Client, bytes], list[bytes]] = lambda client, data: [data]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._connections = 0

    def host(self, ip: str = "198.51.100.1") -> Client:
        return self._enter(Role.HOST, None, ip)

    def join(self, code: Code, ip: str = "203.0.113.1") -> Client:
        return self._enter(Role.JOIN, code, ip)

    def meet(self, role: Role, secret: Secret, ip: str = "192.0.2.1") -> Client:
        """A side that shares `secret` with another one."""
        return self._enter(role, None, ip, Appointment.of(secret))

    def pair(self) -> tuple[Client, Client]:
        """Two sides that have proven the key to each other."""
        host = self.host()
        self.run(1)
        join = self.join(self.code_of(host))
        self.run(1)
        assert host.is_keyed and join.is_keyed
        return host, join

    def code_of(self, host: Client) -> Code:
        [ready] = host.of(CodeReady)
        return ready.code

    def connect(self, client: Client) -> None:
        self._connections += 1
        client.connection = self._connections
        client.closed_with = None
        self.clients[self._connections] = client
        self.hub.connect(self._connections, client.address, self.now)
        self.flush(client)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (time := self._next_time()) is not None and time <= end:
            self._step(time)
        self.now = end

    def later(self, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + self.delay, self._count, call))

    def flush(self, client: Client | None = None) -> None:
        for each in self.everyone if client is None else [client]:
            while (transmit := each.meeting.next_transmit()) is not None:
                assert transmit.destination == HUB
                self._send(each.connection, bytes(transmit.data))
            while (event := each.meeting.next_event()) is not None:
                each.events.append((self.now, event))
        while (delivery := self.hub.next_transmit()) is not None:
            self._deliver(delivery)

    def _enter(
        self, role: Role, code: Code | None, ip: str, appointment: Appointment | None = None
    ) -> Client:
        meeting = Meeting(
            role,
            pake_factory=self.pake,
            entropy=self.dice.randbytes,
            code=code,
            hidden=ip in self.hidden,
            appointment=appointment,
        )
        client = Client(self, meeting, Address(ip, 40000 + len(self.everyone)))
        self.everyone.append(client)
        meeting.open(self.now)
        self.connect(client)
        return client

    def _send(self, connection: int | None, data: bytes) -> None:
        if connection is not None:
            self.later(lambda: self.hub.receive(connection, data, self.now))

    def _deliver(self, delivery: Delivery) -> None:
        client = self.clients.get(delivery.connection)
        if client is None:
            return
        self.later(lambda: self._arrive(client, delivery))

    def _arrive(self, client: Client, delivery: Delivery) -> None:
        if client.connection != delivery.connection:
            return
        if delivery.close is not None:
            client.closed_with, client.connection = delivery.close, None
        elif delivery.is_binary:
            client.frames.append(bytes(delivery.data))
        else:
            for data in self.tamper(client, bytes(delivery.data)):
                client.meeting.receive(data, HUB, self.now)

    def _next_time(self) -> float | None:
        times = [self._queue[0][0]] if self._queue else []
        machines = [self.hub, *(client.meeting for client in self.everyone)]
        times += [time for machine in machines if (time := machine.next_timeout()) is not None]
        return min(times, default=None)

    def _step(self, time: float) -> None:
        self.now = max(self.now, time)
        while self._queue and self._queue[0][0] <= self.now:
            heapq.heappop(self._queue)[2]()
        self.hub.handle_timeout(self.now)
        for client in self.everyone:
            client.meeting.handle_timeout(self.now)
        self.flush()
