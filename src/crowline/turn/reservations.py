"""Ports that were opened beside an even one and wait for their allocation (RFC 8656 §7.2, EVEN-PORT)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.turn.alarms import Alarms

RESERVATION_LIFETIME = 30.0  # seconds; the least that RFC 8656 §7.2 allows
TOKEN_SIZE = 8  # bytes, RFC 8656 §18.10


@dataclass(frozen=True, slots=True)
class Reservation:
    """A relayed address that `user`, then at `client`, may claim."""

    address: Address
    user: str
    client: Address


class Reservations:
    """Each by its token, which is random: a token that somebody else sees is of no use to him either."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self.alarms = Alarms[bytes]()
        self._entropy = entropy
        self._by_token: dict[bytes, Reservation] = {}

    def __len__(self) -> int:
        return len(self._by_token)

    def add(self, reservation: Reservation, now: float) -> bytes:
        """Hold an address; the token that claims it."""
        token = self._entropy(TOKEN_SIZE)
        while token in self._by_token:
            token = self._entropy(TOKEN_SIZE)
        self._by_token[token] = reservation
        self.alarms.set(token, now + RESERVATION_LIFETIME)
        return token

    def find(self, token: bytes, user: str) -> Reservation | None:
        """What the token claims, if it is that user's."""
        reservation = self._by_token.get(token)
        return reservation if reservation is not None and reservation.user == user else None

    def remove(self, token: bytes) -> None:
        del self._by_token[token]
        self.alarms.cancel(token)

    def take_ended(self, now: float) -> list[Reservation]:
        """Those that nobody claimed in time."""
        return [self._by_token.pop(token) for token in self.alarms.take_due(now)]

    def take_all(self) -> list[Reservation]:
        everything = list(self._by_token.values())
        for token in list(self._by_token):
            self.remove(token)
        return everything
