"""What an ICE agent's events ask of whoever has its TCP connections (RFC 6544 §4.1, §7.1)."""

from __future__ import annotations

from typing import Protocol

from crowline.base.addresses import Address
from crowline.ice.events import ConnectionUnwanted, ConnectionWanted, IceEvent, PairValid, Restarted
from crowline.punch.syn_budget import SynBudget


class TcpConnections(Protocol):
    """The connections of one agent, as `net/tcp_pairs.py` has them."""

    def want(self, local: Address, remote: Address, *, simultaneous: bool) -> None: ...

    def unwant(self, local: Address, remote: Address) -> None: ...

    def authenticated(self, local: Address, remote: Address) -> None: ...


def obey(event: IceEvent, connections: TcpConnections, budget: SynBudget) -> None:
    """Do what `event` asks for; most are not about TCP.

    A restart of this side gives every address its SYNs anew, one of the other side does not.
    """
    if isinstance(event, ConnectionWanted):
        connections.want(event.local, event.remote, simultaneous=event.simultaneous)
    elif isinstance(event, ConnectionUnwanted):
        connections.unwant(event.local, event.remote)
    elif isinstance(event, PairValid) and event.pair.transport.is_stream:
        connections.authenticated(event.pair.base, event.pair.remote.address)
    elif isinstance(event, Restarted) and event.by_peer:
        budget.forget_proven()
    elif isinstance(event, Restarted):
        budget.renew()
