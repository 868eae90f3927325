"""A hand-moved other side for agents with TCP candidates, and what tests say about connections."""

from __future__ import annotations

from typing import Any

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.ice.candidate import (
    COMPONENT,
    TCP,
    Candidate,
    CandidateType,
    TcpType,
    candidate_priority,
    tcp_local_preference,
)
from crowline.ice.events import (
    ConnectionWanted,
    IceEvent,
)
from puppet import BASE, REMOTE, Puppet, events

ACTIVE, PASSIVE, MEETING = TcpType.ACTIVE, TcpType.PASSIVE, TcpType.SIMULTANEOUS_OPEN
SERVER = Address("203.0.113.1", 3478)
MAPPED = Address("203.0.113.7", 40000)
EPHEMERAL = Address("198.51.100.2", 50123)
PRIORITY = candidate_priority(CandidateType.HOST, tcp_local_preference(CandidateType.HOST, PASSIVE), 1, TCP)


def tcp_remote(
    address: Address = REMOTE, kind: TcpType = PASSIVE, priority: int = PRIORITY, foundation: str = "9"
) -> Candidate:
    return Candidate(foundation, COMPONENT, TCP, priority, address, CandidateType.HOST, tcp_type=kind)


class TcpPuppet(Puppet):
    """Before an agent that has TCP candidates too, or only these."""

    def __init__(self, controlling: bool, *kinds: TcpType, udp: bool = False, **options: Any) -> None:
        super().__init__(controlling, **options)
        if not udp:
            self.agent.remove_local_candidate(BASE, 0.0)
        for kind in kinds or (ACTIVE, PASSIVE, MEETING):
            self.agent.add_local_candidate(self.factory.host(BASE, kind), 0.0)

    def receive(self, data: bytes, source: Address = REMOTE, now: float = 0.0) -> None:
        self.agent.receive(data, source, now, self.base, Transport.TCP)

    def connect(self, now: float = 0.0, address: Address = REMOTE) -> None:
        self.agent.connected(BASE, address, now)


def wanted(happened: list[IceEvent]) -> list[ConnectionWanted]:
    return [event for event in happened if isinstance(event, ConnectionWanted)]


def nominated(controlling: bool = True, **options: Any) -> TcpPuppet:
    """An agent with a selected pair over TCP that it has dialled."""
    puppet = TcpPuppet(controlling, ACTIVE, **options)
    puppet.meet(tcp_remote())
    puppet.connect(0.01)
    puppet.answer(puppet.one(), 0.02)
    puppet.answer(puppet.one(), 0.03)
    assert puppet.agent.selected.transport is Transport.TCP
    events(puppet.agent)
    return puppet
