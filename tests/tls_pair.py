"""Two TLS links joined by function calls in virtual time, and what they trust."""

from __future__ import annotations

from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.link.client_auth import LINK_ID_LENGTH
from crowline.link.events import LinkData, LinkDown, LinkEvent, LinkUp
from crowline.link.identity import Identity
from crowline.link.tls import TlsLink
from crowline.link.tls_trust import TlsTrust
from crowline.net.own_certificate import load

CLIENT, SERVER = Address("192.0.2.1", 1000), Address("198.51.100.2", 2000)
KEY = Secret(b"k" * 32)
ALICE, BOB, EVE = (Identity.generate() for _ in range(3))
"""The client, the server, and somebody else."""


def trust(own: Identity, peer: Identity, *, is_client: bool) -> TlsTrust:
    return TlsTrust(
        is_client=is_client,
        identity=own,
        certificate=peer.certificate_der,
        fingerprint=peer.fingerprint,
        load=load,
    )


def connect(own: Identity = ALICE, peer: Identity = BOB, key: Secret = KEY, now: float = 0.0) -> TlsLink:
    return TlsLink.connect(
        destination=SERVER,
        local=CLIENT,
        trust=trust(own, peer, is_client=True),
        client_key=key,
        link_id=b"i" * LINK_ID_LENGTH,
        now=now,
    )


def accept(own: Identity = BOB, peer: Identity = ALICE, key: Secret = KEY, now: float = 0.0) -> TlsLink:
    return TlsLink.accept(
        destination=CLIENT, local=SERVER, trust=trust(own, peer, is_client=False), client_key=key, now=now
    )


@dataclass
class Wire:
    """A TCP connection between two links: `chunk` bytes arrive at a time, at once."""

    client: TlsLink = field(default_factory=connect)
    server: TlsLink = field(default_factory=accept)
    chunk: int = 1 << 20
    now: float = 0.0
    events: dict[str, list[LinkEvent]] = field(default_factory=lambda: {"client": [], "server": []})

    def run(self) -> Wire:
        """Carry bytes until neither side has any."""
        while self._carry(self.client, self.server) + self._carry(self.server, self.client):
            self.collect()
        return self.collect()

    def collect(self) -> Wire:
        for name, link in (("client", self.client), ("server", self.server)):
            while (event := link.next_event()) is not None:
                self.events[name].append(event)
        return self

    def data(self, side: str) -> bytes:
        return b"".join(bytes(e.data) for e in self.events[side] if isinstance(e, LinkData))

    def downs(self, side: str) -> list[str]:
        return [e.reason for e in self.events[side] if isinstance(e, LinkDown)]

    def has_risen(self, side: str) -> bool:
        return LinkUp() in self.events[side]

    def _carry(self, sender: TlsLink, receiver: TlsLink) -> int:
        carried = 0
        while (transmit := sender.next_transmit()) is not None:
            carried += len(transmit.data)
            for start in range(0, len(transmit.data), self.chunk):
                receiver.receive(transmit.data[start : start + self.chunk], sender.local, self.now)
        return carried
