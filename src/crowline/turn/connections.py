"""TCP connections between relayed addresses and peers, from the first wish to the end (RFC 6062 §5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from crowline.base.addresses import Address
from crowline.turn.alarms import Alarms
from crowline.turn.allocation import Allocation
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.outbox import Request

NUMBER_SIZE = 4  # bytes, RFC 6062 §6.2.1


class Phase(Enum):
    """What a connection waits for."""

    DIALLING = auto()
    """The peer's answer; the Connect request is unanswered."""
    WAITING = auto()
    """The client's ConnectionBind."""
    BOUND = auto()
    """Its end: bytes flow, and do not pass this machine."""


@dataclass(slots=True, eq=False)
class Connection:
    """One connection of an allocation. `connect` is the request that is still to be answered, `stream` the
    client's half."""

    number: int
    allocation: Allocation
    peer: Address
    phase: Phase
    connect: Request | None = None
    stream: FiveTuple | None = None


class Connections:
    """All of them, by number and by allocation."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self.alarms = Alarms[int]()
        self._entropy = entropy
        self._by_number: dict[int, Connection] = {}
        self._by_allocation: dict[Allocation, dict[int, Connection]] = {}
        self._by_stream: dict[FiveTuple, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def of(self, allocation: Allocation) -> list[Connection]:
        return list(self._by_allocation.get(allocation, {}).values())

    def get(self, number: int) -> Connection | None:
        return self._by_number.get(number)

    def open(
        self,
        allocation: Allocation,
        peer: Address,
        phase: Phase,
        expires: float,
        connect: Request | None = None,
    ) -> Connection:
        """Take up a connection; its number cannot be foreseen."""
        number = next(number for number in self._numbers() if number not in self._by_number)
        connection = Connection(number, allocation, peer, phase, connect)
        self._by_number[number] = connection
        self._by_allocation.setdefault(allocation, {})[number] = connection
        self.alarms.set(number, expires)
        return connection

    def bind(self, connection: Connection, stream: FiveTuple) -> None:
        """The client's half has come, and with it the time limits end."""
        connection.phase = Phase.BOUND
        connection.stream = stream
        self._by_stream[stream] = connection
        self.alarms.cancel(connection.number)

    def of_stream(self, stream: FiveTuple) -> Connection | None:
        """The connection that the client's stream is one half of."""
        return self._by_stream.get(stream)

    def forget_answers(self, allocation: Allocation, five_tuple: FiveTuple) -> None:
        """Nobody is left at `five_tuple` to be told how dialling ends; somebody else may come there."""
        for connection in self.of(allocation):
            if connection.connect is not None and connection.connect.five_tuple == five_tuple:
                connection.connect = None

    def remove(self, connection: Connection) -> None:
        del self._by_number[connection.number]
        if connection.stream is not None:
            del self._by_stream[connection.stream]
        self.alarms.cancel(connection.number)
        siblings = self._by_allocation[connection.allocation]
        del siblings[connection.number]
        if not siblings:
            del self._by_allocation[connection.allocation]

    def _numbers(self) -> Iterator[int]:
        while True:
            yield int.from_bytes(self._entropy(NUMBER_SIZE), "big")
