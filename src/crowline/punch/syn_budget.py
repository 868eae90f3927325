"""How many TCP SYNs are sent to an address of which nobody knows yet that the other side is there.

Addresses come from the other side, and may name a third party; what the third party gets is bounded.
"""

from __future__ import annotations

from crowline.base.addresses import Address

MAX_UNPROVEN = 5
# All ports of one host together, so that a list of ports on one victim stays small too (RFC 8445 §19.5.1).
MAX_UNPROVEN_PER_HOST = 25

# Seconds after which kernels repeat a SYN, and again and again: Linux from 6.5 on, macOS. Others repeat
# later, except that Windows repeats a refused one after half of it, before it tells of the refusal.
REPEAT = 1.0
REPEAT_ON_WINDOWS = 0.5
# Seconds by which a socket is given up before a repetition that is not paid.
_REPEAT_MARGIN = 0.05


class SynBudget:
    """One for all attempts of a session. The kernel's repetitions of a SYN count like the first.

    `max_addresses` bounds the memory: a further address gets nothing.
    """

    def __init__(self, max_addresses: int) -> None:
        self._max_addresses = max_addresses
        self._sent: dict[Address, int] = {}
        self._sent_to_host: dict[str, int] = {}
        self._proven: set[Address] = set()
        self._proven_hosts: set[str] = set()

    def left(self, address: Address) -> int | None:
        """How many more may be sent to `address` as things are; ``None``: it has no limit any more."""
        if address in self._proven or address.host in self._proven_hosts:
            return None
        if address not in self._sent and len(self._sent) >= self._max_addresses:
            return 0
        left = MAX_UNPROVEN - self._sent.get(address, 0)
        return max(0, min(left, MAX_UNPROVEN_PER_HOST - self._sent_to_host.get(address.host, 0)))

    def spend(self, address: Address) -> bool:
        """Count one SYN to `address`; False when it must not be sent."""
        left = self.left(address)
        if left is None:
            return True
        if left == 0:
            return False
        self._sent[address] = self._sent.get(address, 0) + 1
        self._sent_to_host[address.host] = self._sent_to_host.get(address.host, 0) + 1
        return True

    def afford(self, address: Address, hold: float, repeat: float) -> float:
        """For how many of `hold` seconds a socket may wait after its first SYN, which has been spent.

        Each repetition is paid here; the kernel sends one every `repeat` seconds.
        """
        for count in range(1, 1 + int(hold / repeat)):
            if not self.spend(address):
                return count * repeat - _REPEAT_MARGIN
        return hold

    def prove(self, address: Address) -> None:
        """An authenticated packet came from `address`: no limit any more."""
        if address in self._sent or len(self._proven) < self._max_addresses:
            self._proven.add(address)

    def renew(self) -> None:
        """This side begins anew: every address may be dialled as if for the first time."""
        self._sent.clear()
        self._sent_to_host.clear()
        self._proven.clear()

    def forget_proven(self) -> None:
        """The other side begins anew: what it has proven makes room, what others got still counts."""
        for address in self._proven:
            rest = self._sent_to_host.pop(address.host, 0) - self._sent.pop(address, 0)
            if rest > 0:
                self._sent_to_host[address.host] = rest
        self._proven.clear()

    def prove_host(self, host: str) -> None:
        """The hub saw the other side at `host`: no limit for any of its ports."""
        self._proven_hosts.add(host)
