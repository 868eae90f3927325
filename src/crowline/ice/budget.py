"""How much is sent to an address that has not answered yet.

Candidates come from the other side, and may name a third party; what the third party gets is bounded.
"""

from __future__ import annotations

from crowline.base.addresses import Address

# A full retransmission schedule is 7 datagrams; two triggered ones more may follow a role conflict.
MAX_UNANSWERED = 20
# Of these, a full schedule is kept for the time when a check has come from there: an agent with several bases
# may have spent the rest while the other side had not heard of it yet, and its NAT let nothing in.
KEPT_FOR_HEARD = 7
# All ports of one host together, so that a list of ports on one victim stays small too (RFC 8445 §19.5.1).
MAX_UNANSWERED_PER_HOST = 100


class Budget:
    """Counts datagrams to each address until an authenticated answer came from it.

    `max_addresses` bounds the memory: a further address gets nothing. `kept` datagrams of an address's share
    are only for one that was `heard`.
    """

    def __init__(self, max_addresses: int, kept: int = 0) -> None:
        self._max_addresses = max_addresses
        self._kept = kept
        self._heard: set[Address] = set()
        self._sent: dict[Address, int] = {}
        self._sent_to_host: dict[str, int] = {}
        self._answered: set[Address] = set()
        self._hosts_answered: set[str] = set()

    def spend(self, address: Address) -> bool:
        """Count one datagram to `address`; False when it must not be sent."""
        if address in self._answered:
            return True
        sent = self._sent.get(address, 0)
        most = MAX_UNANSWERED if address in self._heard else MAX_UNANSWERED - self._kept
        if sent >= most or (sent == 0 and len(self._sent) >= self._max_addresses):
            return False
        to_host = self._sent_to_host.get(address.host, 0)
        if to_host >= MAX_UNANSWERED_PER_HOST and address.host not in self._hosts_answered:
            return False
        self._sent[address] = sent + 1
        self._sent_to_host[address.host] = to_host + 1
        return True

    def heard(self, address: Address) -> None:
        """A check came from there that knew the password. That is no proof: its source may be forged."""
        if len(self._heard) < self._max_addresses:
            self._heard.add(address)

    def answered(self, address: Address) -> None:
        """Somebody who knows the password answered a request that went to `address`: no limit any more."""
        if address in self._sent or len(self._answered) < self._max_addresses:
            self._answered.add(address)
            self._hosts_answered.add(address.host)

    def forget_answered(self) -> None:
        """Make room: whoever has answered will answer again; what silent addresses got still counts."""
        for address in self._answered:
            self._sent.pop(address, None)
        for host in self._hosts_answered:
            self._sent_to_host.pop(host, None)
        self._answered.clear()
        self._hosts_answered.clear()
