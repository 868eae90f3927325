"""What the machine needs from its driver to have relayed addresses."""

from __future__ import annotations

from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.transport import Transport


class RelayPorts(Protocol):
    """Where relayed addresses come from: the driver's sockets.

    A UDP and a TCP relayed address may have the same IP address and port.
    """

    @property
    def can_set_dont_fragment(self) -> bool:
        """Whether datagrams can leave with the DF bit set."""

    def open(
        self,
        family: int,
        local: Address | None,
        *,
        even: bool = False,
        reserve: bool = False,
        transport: Transport = Transport.UDP,
    ) -> Address | None:
        """A relayed address of `family` (1 or 2) at a random port for a client that asked `local`.

        ``None`` when no port is left. `even` asks for an even port, and `reserve` opens the next one up
        too, which is given back by a `close` of its own. What arrives at UDP addresses goes to
        `TurnServer.receive_from_peer`; who connects to a TCP one, to `TurnServer.peer_connected`.
        """

    def close(self, relayed: Address, transport: Transport = Transport.UDP) -> None:
        """Give a relayed address back."""

    def has_family(self, family: int, local: Address | None) -> bool:
        """Whether addresses of that family can be opened at all for a client that asked `local`."""

    def is_relay_host(self, host: str) -> bool:
        """Whether relayed addresses of this server have that IP address."""

    def is_own_host(self, host: str) -> bool:
        """Whether that IP address is this machine's, as its clients or the machine itself sees it.

        Those of `is_relay_host` are.
        """
