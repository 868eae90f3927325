"""TCP as the virtual internet knows it: segments, and what routers answer to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crowline.lab.behaviour import TCP, UnsolicitedSyn
from crowline.lab.network import Packet

HEADERS = 40  # bytes of IPv4 and TCP header; what IPv6 adds matters to nothing here


class Flag(Enum):
    """What a segment is; the last two are ICMP errors about a segment that was sent (RFC 5508 §4)."""

    SYN = "syn"
    SYN_ACK = "syn-ack"
    ACK = "ack"
    DATA = "data"
    FIN = "fin"
    RST = "rst"
    UNREACHABLE = "unreachable"
    TIME_EXCEEDED = "time-exceeded"


@dataclass(frozen=True, slots=True)
class Segment:
    """`number` counts the DATA and FIN segments of one direction, so that their order can be restored.

    `messages` are those that were sent at one time.
    """

    flag: Flag
    number: int = 0
    messages: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the IP packet."""
        return HEADERS + sum(len(message) for message in self.messages)


_REFUSALS = {UnsolicitedSyn.RST: Flag.RST, UnsolicitedSyn.ICMP: Flag.UNREACHABLE}


def refusal_of(packet: Packet, how: UnsolicitedSyn) -> Packet | None:
    """The answer of a translator to a packet that it filtered: to a SYN, and unless it drops silently."""
    if packet.protocol != TCP or packet.data.flag is not Flag.SYN or how not in _REFUSALS:
        return None
    return _reply(packet, _REFUSALS[how])


def time_exceeded(packet: Packet) -> Packet | None:
    """The ICMP error about a TCP segment that died on its way."""
    return _reply(packet, Flag.TIME_EXCEEDED) if packet.protocol == TCP else None


def _reply(packet: Packet, flag: Flag) -> Packet:
    return Packet(TCP, packet.destination, packet.source, Segment(flag), HEADERS, sent_at=packet.sent_at)
