"""Candidates as signals carry them between the two sides, and which of the other side's may be checked."""

from __future__ import annotations

import ipaddress

from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.transport import Transport
from crowline.ice.candidate import Candidate, CandidateType, TcpType
from crowline.rendezvous.signals import CandidateGone, CandidateSignal

# Ports below are services of somebody; a NAT maps none of them to a client's socket.
LOWEST_PORT = 1024
# Seconds between questions that keep mappings while nobody is there: NATs forget a silent flow after 30.
REFRESH_INTERVAL = 20.0


def to_signal(candidate: Candidate, *, private: bool, host: str = "") -> CandidateSignal:
    """`private`: do not tell what the candidate was derived from (RFC 8445 §19.1). `host`: a name to tell in
    place of its address.
    """
    related = None if private else candidate.related
    return CandidateSignal(
        foundation=candidate.foundation,
        component=candidate.component,
        transport=candidate.transport,
        priority=candidate.priority,
        host=host or candidate.address.host,
        port=candidate.address.port,
        kind=candidate.type.value,
        related_host=related.host if related else "",
        related_port=related.port if related else 0,
        tcp_type=candidate.tcp_type.value if candidate.tcp_type else "",
    )


def from_signal(signal: CandidateSignal) -> Candidate | None:
    """A candidate as the other side described it; None where that makes no sense."""
    try:
        return Candidate(
            signal.foundation,
            signal.component,
            signal.transport,
            signal.priority,
            Address.parse(signal.host, signal.port),
            CandidateType(signal.kind),
            tcp_type=TcpType(signal.tcp_type) if signal.tcp_type else None,
        )
    except ValueError:
        return None


def gone_signal(address: Address, transport: Transport = Transport.UDP, *, host: str = "") -> CandidateGone:
    """Nothing leads here by `address` any more, which was told as `host` if there is one."""
    return CandidateGone(host or address.host, address.port, "tcp" if transport is Transport.TCP else "udp")


def address_of(host: str, port: int) -> Address | None:
    """An address that the other side names; None where it makes no sense."""
    try:
        return Address.parse(host, port)
    except ValueError:
        return None


def may_be_checked(address: Address, *, own: list[str], loopback: bool) -> bool:
    """Whether checks may go to `address`, which the authenticated other side named.

    Global unicast may. Private addresses may where this machine has one of the same kind, since the other
    side may be its neighbour. Loopback may only where the meeting's hub is on this machine too.
    """
    if address.port < LOWEST_PORT:
        return False
    kind = classify(address.host)
    if kind is AddressClass.OPEN:
        return True
    host = ipaddress.ip_address(address.host)
    if host.is_loopback:
        return loopback
    return (
        kind is AddressClass.CLOSED
        and not host.is_link_local
        and any(classify(each) is AddressClass.CLOSED and (":" in each) == address.is_ipv6 for each in own)
    )


class OwnCandidates:
    """This side's candidates while it waits for the other, which may take an hour.

    Mappings are asked for again every `REFRESH_INTERVAL`, which keeps them; one that moved all the same
    takes the place of the one before it, so that the other side is only told what still leads here.
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[str, Address], Candidate] = {}
        self._met = False

    @property
    def met(self) -> bool:
        """Whether the other side is there."""
        return self._met

    def add(self, candidate: Candidate) -> list[Candidate]:
        """Take a candidate; what is to be offered now."""
        key = (candidate.foundation, candidate.sending_base)
        if self._latest.get(key) == candidate:
            return []
        self._latest[key] = candidate
        return [candidate] if self._met else []

    def remove(self, base: Address) -> list[Candidate]:
        """Nothing leaves by `base` any more; what the other side has been told of it."""
        gone = [each for each in self.offered() if each.sending_base == base]
        self._latest = {key: each for key, each in self._latest.items() if each.sending_base != base}
        return gone

    def meet(self) -> list[Candidate]:
        """The other side is there: what is to be offered now."""
        self._met = True
        return self.offered()

    def offered(self) -> list[Candidate]:
        """What the other side has been told and what still leads here."""
        return list(self._latest.values()) if self._met else []
