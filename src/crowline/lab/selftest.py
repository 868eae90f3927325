"""The self-test: finds out from outside, with packets, what stands between a host and the internet.

The probes know nothing of the translator: they see a `Bench`, as a user's program would see the world. The
methods are those of RFC 5780 and of RFC 4787 §12, with more samples than a program on a real network takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError
from crowline.lab.behaviour import (
    Allocation,
    AllocationKind,
    Filtering,
    Hairpin,
    Mapping,
)
from crowline.lab.bench import Answer, Bench, Endpoint
from crowline.lab.expectation import (
    BUSY_TIMES,
    LARGEST_BLOCK,
    LONGEST_GAP,
    SILENCES,
    block_size,
    expected,
    outlives,
)
from crowline.lab.measured import Bracket, Measured, TcpReach
from crowline.lab.profile import Ipv6, Profile

UDP_PORT, UDP_PORT_2, STRANGER_PORT = 3478, 3479, 3999  # of both servers
HTTPS_PORT, TCP_PORT, TCP_PORT_2 = 443, 8443, 8444
CLOSED_PORT = 2  # of the site, where nobody has ever sent from
SAMPLES = 24  # ports; enough that the parity of random ones is not the same by chance (1 in 8 million)
ATTEMPTS = 3  # sendings of a probe whose answer is due: a busy machine may lose one


class ProbeLost(CrowlineError):
    """A packet of the self-test that had to arrive did not."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a profile says and what was measured at the place built from it."""

    profile: Profile
    expected: Measured
    measured: Measured

    @property
    def passed(self) -> bool:
        return self.expected == self.measured

    @property
    def differences(self) -> list[str]:
        """One phrase for each field that is not as described: what is, and what should be."""
        return self.measured.differences(self.expected)


def run(profile: Profile, bench: Bench) -> Report:
    """Measure the place that `bench` has built from `profile`. Raises `ProbeLost`."""
    return Report(profile, expected(profile), measure(bench))


def measure(bench: Bench) -> Measured:
    """Everything that packets can tell, in some 150 seconds of the bench's time. Raises `ProbeLost`."""
    return _Probe(bench).measure()


class _Probe:
    """One run: every question has inside ports of its own, so that none disturbs another."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._inside_ports = _scattered_ports()
        self._tokens = (f"crowline self-test {number}".encode() for number in count())
        self._servers = [
            {port: bench.outside(server, port) for port in (UDP_PORT, UDP_PORT_2, STRANGER_PORT)}
            for server in (0, 1)
        ]

    def measure(self) -> Measured:
        """What takes time comes last: mappings that have expired in one layer only would be met again."""
        found = self._measure_tcp(self._measure_udp())
        if found.udp:
            found = self._lifetimes(found)
        closed = Address(self._bench.external_host, CLOSED_PORT)
        return replace(found, unsolicited_syn=self._bench.connect_in(1, closed))

    def _measure_udp(self) -> Measured:
        first = self._first_contact()
        found = Measured(first is not None, TcpReach.NONE, Ipv6.NONE, Answer.SILENCE)
        if first is None:
            return found
        local, outside = first
        return replace(
            found,
            translated=local != outside,
            mapping=self._mapping(),
            filtering=self._filtering(),
            allocation=self._allocation(),
            hairpin=self._hairpin() if local != outside else None,
            ipv6=self._ipv6(),
        )

    def _measure_tcp(self, found: Measured) -> Measured:
        reach = self._tcp_reach()
        return replace(found, tcp=reach, tcp_mapping=self._tcp_mapping() if reach is TcpReach.ANY else None)

    # --- UDP ------------------------------------------------------------------------------------------

    def _first_contact(self) -> tuple[Address, Address] | None:
        """The inside and the outside address of a socket, ``None`` when no UDP gets out."""
        end = self._open(0)
        seen = self._sources([end], self._servers[0][UDP_PORT])[0]
        return None if seen is None else (end.local, seen)

    def _mapping(self) -> Mapping:
        end = self._open(0)
        to = (self._servers[0][UDP_PORT], self._servers[0][UDP_PORT_2], self._servers[1][UDP_PORT])
        return _mapping_of([self._outside_of(end, server) for server in to])

    def _filtering(self) -> Filtering:
        """A socket that has written to one server hears that one, its other ports, or everybody."""
        end = self._open(0)
        friend, same_host, stranger = (
            self._servers[0][UDP_PORT],
            self._servers[0][STRANGER_PORT],
            self._servers[1][STRANGER_PORT],
        )
        outside = self._outside_of(end, friend)
        heard = [self._hears(end, who, outside) for who in (stranger, same_host, friend)]
        if not heard[2]:
            raise ProbeLost("The answer of a server that was written to did not get in.")
        return list(Filtering)[heard.index(True)]

    def _allocation(self) -> Allocation:
        """The outside ports of fresh sockets in a row."""
        ends = [self._open(0) for _ in range(SAMPLES)]
        sources = self._sources(ends, self._servers[0][UDP_PORT])
        given = [source.port for source in sources if source is not None]
        if len(given) < SAMPLES:
            raise ProbeLost("Packets from fresh sockets did not get out.")
        return _allocation_of([end.local.port for end in ends], given)

    def _hairpin(self) -> Hairpin:
        """Two hosts of the site write to what a server says they are, again and again: both filters open."""
        one, other = self._open(0), self._open(1)
        to = [self._outside_of(end, self._servers[0][UDP_PORT]) for end in (other, one)]
        for _ in range(ATTEMPTS):
            for end, outside in zip((one, other), to, strict=True):
                end.send(next(self._tokens), self._bench.named(outside))
            self._bench.settle()
        sources = {arrival.source for arrival in one.take()}
        if not sources:
            return Hairpin.NONE
        site = self._bench.named(Address(self._bench.external_host, 0)).host
        is_outside = all(source.host == site for source in sources)
        return Hairpin.EXTERNAL_SOURCE if is_outside else Hairpin.INTERNAL_SOURCE

    def _ipv6(self) -> Ipv6:
        server = self._servers[0][UDP_PORT].local
        if self._bench.named(server) != server:
            return Ipv6.NAT64
        end = self._bench.inside(0, next(self._inside_ports), ipv6=True)
        if end is None:
            return Ipv6.NONE
        friend, stranger = (self._bench.outside(number, UDP_PORT, ipv6=True) for number in (0, 1))
        outside = self._sources([end], friend)[0]
        if outside is None:
            return Ipv6.NONE
        if not self._hears(end, friend, outside):
            raise ProbeLost("The answer of a server that was written to over IPv6 did not get in.")
        return Ipv6.OPEN if self._hears(end, stranger, outside) else Ipv6.FIREWALLED

    def _lifetimes(self, found: Measured) -> Measured:
        """One mapping for each length of silence, one that is kept open from outside alone, if it can be, and
        two that are kept busy from inside: one alone might come back with the same port by chance."""
        server = self._servers[0][UDP_PORT]
        busy, called = [self._open(0), self._open(0)], self._open(0)
        silent = {silence: self._open(0) for silence in SILENCES}
        sources = self._sources([*busy, called, *silent.values()], server)
        before, door, outside = sources[:2], sources[2], dict(zip(SILENCES, sources[3:], strict=True))
        start = self._bench.now
        idle, heard, use = _Looks(), _Looks(), _Looks()
        for time in sorted({*SILENCES, *BUSY_TIMES}):
            self._bench.pass_time(max(0.0, start + time - self._bench.now))
            if time in silent and idle.goes_on:
                idle.note(time, self._hears(silent[time], server, outside[time]))
            if time in BUSY_TIMES and heard.goes_on:
                heard.note(time, self._hears(called, server, door))
            if time in BUSY_TIMES and use.goes_on:
                use.note(time, self._sources(busy, server) == before)
        silence = idle.bracket
        died_of_silence = silence.dead is not None and silence.dead <= LONGEST_GAP
        return replace(
            found,
            udp_idle=silence,
            inbound_refreshes=outlives(heard.bracket.alive, silence),
            absolute=None if use.goes_on or died_of_silence else use.bracket,
        )

    def _hears(self, end: Endpoint, who: Endpoint, outside: Address | None) -> bool:
        """Whether what `who` sends to `outside` arrives at `end`."""
        if outside is None:
            return False
        token = next(self._tokens)
        for _ in range(ATTEMPTS):
            who.send(token, outside)
            self._bench.settle()
            if any(arrival.data == token for arrival in end.take()):
                return True
        return False

    def _outside_of(self, end: Endpoint, server: Endpoint) -> Address:
        seen = self._sources([end], server)[0]
        if seen is None:
            raise ProbeLost("A packet from inside did not get out, others did.")
        return seen

    def _sources(self, ends: Sequence[Endpoint], server: Endpoint) -> list[Address | None]:
        """As what the server sees each of these sockets, which write to it one after the other."""
        tokens = [next(self._tokens) for _ in ends]
        to = server.local if server.local.is_ipv6 else self._bench.named(server.local)
        seen: dict[bytes, Address] = {}
        for _ in range(ATTEMPTS):
            for end, token in zip(ends, tokens, strict=True):
                if token not in seen:
                    end.send(token, to)
            self._bench.settle()
            seen.update({arrival.data: arrival.source for arrival in server.take()})
            if all(token in seen for token in tokens):
                break
        return [seen.get(token) for token in tokens]

    def _open(self, host: int) -> Endpoint:
        end = self._bench.inside(host, next(self._inside_ports))
        if end is None:
            raise ProbeLost("The inside host has no way to IPv4.")
        return end

    # --- TCP ------------------------------------------------------------------------------------------

    def _tcp_reach(self) -> TcpReach:
        for reach, port in ((TcpReach.ANY, TCP_PORT), (TcpReach.HTTPS, HTTPS_PORT)):
            if self._bench.connect_out(0, next(self._inside_ports), 0, port) is not None:
                return reach
        return TcpReach.NONE

    def _tcp_mapping(self) -> Mapping:
        port = next(self._inside_ports)
        seen = [
            self._bench.connect_out(0, port, server, there)
            for server, there in ((0, TCP_PORT), (0, TCP_PORT_2), (1, TCP_PORT))
        ]
        sources = [source for source in seen if source is not None]
        if len(sources) < len(seen):
            raise ProbeLost("A TCP connection from inside did not come about, others did.")
        return _mapping_of(sources)


class _Looks:
    """Looks at something that ends at some time."""

    def __init__(self) -> None:
        self.bracket = Bracket(0.0, None)

    @property
    def goes_on(self) -> bool:
        return self.bracket.dead is None

    def note(self, time: float, is_alive: bool) -> None:
        self.bracket = Bracket(time, None) if is_alive else replace(self.bracket, dead=time)


def _mapping_of(seen: Sequence[Address]) -> Mapping:
    """From what a first server, another port of it and a second server see."""
    first, other_port, other_host = seen
    if first == other_port == other_host:
        return Mapping.ENDPOINT_INDEPENDENT
    return Mapping.ADDRESS_DEPENDENT if first == other_port else Mapping.ADDRESS_AND_PORT_DEPENDENT


def _allocation_of(inside: Sequence[int], outside: Sequence[int]) -> Allocation:
    """A port or two may have been taken by something else, and a sequence may pass the end of the range."""
    if sum(before == after for before, after in zip(inside, outside, strict=True)) >= len(outside) - 2:
        return Allocation.PRESERVING
    step, times = Counter(after - before for before, after in pairwise(outside)).most_common(1)[0]
    if times >= len(outside) - 3:
        return Allocation.sequential(step)
    span = max(outside) - min(outside) + 1
    if span <= LARGEST_BLOCK:
        return Allocation.block(block_size(span))
    if all((before - after) % 2 == 0 for before, after in zip(inside, outside, strict=True)):
        return Allocation(AllocationKind.PARITY)
    return Allocation.RANDOM


def _scattered_ports() -> Iterator[int]:
    """Ports between 20000 and 29973 in no order that a sequence of outside ports could be mistaken for."""
    return (20000 + number * 3137 % 9973 for number in count(1))
