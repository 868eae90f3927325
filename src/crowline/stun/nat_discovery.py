"""How a translator treats our UDP: mapping, filtering and hairpinning, asked from one server (RFC 5780 §4).

The machine asks its driver for fresh sockets (`BasesWanted`). Each asks the server for its mapping, a few
milliseconds apart, which also shows how ports are given out; until that is over nothing else is sent, since
each test makes mappings of its own. Then the tests run side by side, each on sockets that no other one uses:

    base 0        mapping: tests II and III (§4.3) towards the server's other address, or its next port where
                  there is none; and towards other servers, where some are known
    base 1        filtering: tests II and III (§4.4); it has talked to the server's first address alone
    bases 2, 3    hairpinning (§4.5), in both directions, so that each opens its filter for the other

A second address or an outside address that a server names is not asked where it is of another family, or
less global than the server itself: no server of the internet leads packets into an inside network. A liar
there can have a dozen sent to other hosts of the internet. A packet is one of at most `MAX_PACKETS`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.addresses import Address, AddressClass
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.nat64 import Nat64Prefix
from crowline.stun.attributes import (
    AnyAttribute,
    ChangeRequest,
    ErrorCode,
    MappedAddress,
    OtherAddress,
    Software,
    XorMappedAddress,
)
from crowline.stun.message import TRANSACTION_ID_SIZE, MalformedStun, Message, MessageClass, Method, parse
from crowline.stun.nat_evidence import (
    FILTERING_BASE,
    HAIRPIN_BACK_BASE,
    HAIRPIN_BASE,
    MAPPING_BASE,
    MAPPING_TESTS,
    NatEvidence,
    NatTest,
)
from crowline.stun.nat_findings import Findings, Hairpinning, Reason, Sample
from crowline.stun.transaction import Schedule, Transaction

BASES = 10
"""Sockets asked for: of ten random ports all keep the parity once in 1,000 times, and never fill a block."""
SPACING = 0.012  # seconds between them: apart enough to keep their order, short enough for little traffic
MAX_OTHERS = 2  # further servers: one answer is enough, and one may be silent
MAX_PACKETS = 64  # ten sockets, four mapping, two filtering and two hairpin tests, three times each: 54

QUICK = Schedule(rto=0.25, rc=3, rm=3)
"""Sends at 0, 0.25 and 0.75 s, silence after 1.5 s: a filter is known by silence, and two seconds are all."""

# Where nothing was lost, tests are repeated after twice the longest round trip, and not before this many
# seconds: the answer to a test that passes is there several times before its silence is believed.
LEAST_RTO = 0.12

# Servers answer with at most three times the bytes of a request. With this one OTHER-ADDRESS fits over IPv6.
_SOFTWARE = Software("NAT behaviour discovery")

_CHANGES = (NatTest.CHANGE_BOTH, NatTest.CHANGE_PORT)
_LAST_PORT = 65535
_ROLES = 4  # bases that have tests of their own


@dataclass(frozen=True, slots=True)
class BasesWanted:
    """Give so many fresh sockets to `NatDiscovery.start`: nothing was sent from them, nothing else will be.

    Their ports should not stand in a row, or a translator that shifts ports looks like one that counts.
    """

    count: int


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What will probably be learnt: mapping and ports are known, and silence has lasted twice as long as any
    answer took that shows the mapping. Facets that silence is for have a reason for doubt until the end."""

    findings: Findings


@dataclass(frozen=True, slots=True)
class Discovered:
    """The end: all that could be learnt."""

    findings: Findings


DiscoveryEvent: TypeAlias = BasesWanted | Foreseen | Discovered


@dataclass(slots=True)
class _Question:
    """One request: `sources` are the addresses of which an answer may come, `index` the base's number."""

    test: NatTest
    index: int
    transaction: Transaction
    sources: tuple[Address, ...]


class NatDiscovery:
    """Give it the bases it wants, drive it by the five verbs, and take `Discovered`.

    `prefix` is the NAT64 prefix by which an IPv4 server is reached as `server`: what it says is of IPv4 then.
    `others` are further servers of the same family, two at most, of which nothing but the mapping is asked.
    With `foresees` there is `Foreseen` before the end, where it comes much sooner.
    """

    def __init__(
        self,
        server: Address,
        *,
        entropy: Callable[[int], bytes],
        prefix: Nat64Prefix | None = None,
        others: Sequence[Address] = (),
        schedule: Schedule = QUICK,
        foresees: bool = False,
    ) -> None:
        self.server = server
        self.counters: Counter[str] = Counter()
        self._entropy = entropy
        self._foresees = foresees
        self._foresight_at = 0.0
        self._schedule = schedule
        self._round_trips: list[float | None] = []
        self._others = [each for each in others if each.host != server.host][:MAX_OTHERS]
        self._bases: tuple[Address, ...] = ()
        self._started = 0.0
        self._asked = 0
        self._is_testing = False
        self._is_over = False
        self._sent = 0
        self._questions: dict[bytes, _Question] = {}
        self._evidence = NatEvidence(server, prefix)
        self._transmits: deque[Transmit] = deque()
        self._events: deque[DiscoveryEvent] = deque([BasesWanted(BASES)])

    def start(self, bases: tuple[Address, ...], now: float) -> None:
        """Begin with these fresh sockets; with fewer than wanted less is learnt. More are not used.

        Raises `UsageError` for none, for two that are the same, and for a second start.
        """
        if self._bases:
            raise UsageError("a discovery starts once")
        if not bases or len(set(bases)) != len(bases):
            raise UsageError("a discovery needs sockets, each of them once")
        self._bases = bases[:BASES]
        self._started = now
        self.handle_timeout(now)

    # --- the five verbs ---------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        try:
            message = parse(data).message
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        question = self._questions.get(message.transaction_id)
        if question is None or message.method is not Method.BINDING:
            self.counters["not_ours"] += 1
            return
        if question.test is NatTest.HAIRPIN:
            self._came_back(question, message, source, local)
        elif source not in question.sources or local != self._bases[question.index]:
            self.counters["from_elsewhere"] += 1
            return
        elif message.message_class is MessageClass.SUCCESS:
            self._answered(question, message, source, now)
        elif message.message_class is MessageClass.ERROR:
            self._refused(question, message)
        else:
            self.counters["not_an_answer"] += 1
        self._proceed(now)

    def handle_timeout(self, now: float) -> None:
        if not self._bases or self._is_over:
            return
        while self._asked < len(self._bases) and self._started + self._asked * SPACING <= now:
            self._ask(NatTest.SAMPLE, self._asked, self.server, now)
            self._asked += 1
        for key, question in list(self._questions.items()):
            if question.transaction.is_expired(now):
                del self._questions[key]
            else:
                self._send(question.transaction, now)
        self._proceed(now)

    def next_timeout(self) -> float | None:
        if not self._bases or self._is_over:
            return None
        times = [question.transaction.next_timeout() for question in self._questions.values()]
        if self._asked < len(self._bases):
            times.append(self._started + self._asked * SPACING)
        if self._is_foreseeable():
            times.append(self._foresight_at)
        return min(times, default=None)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> DiscoveryEvent | None:
        return self._events.popleft() if self._events else None

    # --- asking -----------------------------------------------------------------------------------------

    def _ask(
        self,
        test: NatTest,
        index: int,
        destination: Address,
        now: float,
        *attributes: AnyAttribute,
        sources: tuple[Address, ...] = (),
    ) -> None:
        key = self._entropy(TRANSACTION_ID_SIZE)
        request = Message(Method.BINDING, MessageClass.REQUEST, key, (*attributes, _SOFTWARE)).encode()
        transaction = Transaction(
            key, request, destination, now, schedule=self._schedule, local=self._bases[index]
        )
        self._questions[key] = _Question(test, index, transaction, sources or (destination,))
        self._send(transaction, now)

    def _send(self, transaction: Transaction, now: float) -> None:
        transmit = transaction.due(now)
        if transmit is None:
            return
        if self._sent >= MAX_PACKETS:
            self.counters["over_budget"] += 1
            return
        self._sent += 1
        self._transmits.append(transmit)

    def _proceed(self, now: float) -> None:
        """Begin the tests when the samples they rest on are there, and end when nothing is open."""
        if not self._is_testing and self._asked == len(self._bases) and not self._awaits_samples():
            self._is_testing = True
            self._schedule = self._pace()
            self._foresight_at = now + self._schedule.rto
            self._begin_tests(now)
        if self._is_testing and not self._questions and not self._is_over:
            self._is_over = True
            self._events.append(Discovered(self._evidence.findings()))
        elif self._is_foreseeable() and now >= self._foresight_at:
            self._foresees = False
            self._events.append(Foreseen(self._evidence.foreseen(self._open_tests())))

    def _awaits_samples(self) -> bool:
        return any(question.index < _ROLES for question in self._questions.values())

    def _is_foreseeable(self) -> bool:
        """Whether the mapping is known as well as it will be, for somebody who wants to know early."""
        if not self._is_testing or not self._foresees:
            return False
        awaited = self._open_tests() & MAPPING_TESTS
        # Where the server's second address has answered, those of others say nothing new.
        return not awaited or (awaited == {NatTest.OTHER_SERVER} and self._evidence.has_heard_other())

    def _open_tests(self) -> set[NatTest]:
        return {question.test for question in self._questions.values()}

    def _pace(self) -> Schedule:
        """The schedule of the tests, by what the samples showed of the way to the server."""
        known = [each for each in self._round_trips if each is not None]
        if not known or len(known) < len(self._round_trips):
            return self._schedule
        rto = min(self._schedule.rto, max(LEAST_RTO, 2 * max(known)))
        return Schedule(rto, self._schedule.rc, self._schedule.rm)

    def _begin_tests(self, now: float) -> None:
        seen, other = self._evidence.samples, self._evidence.other()
        if other is not None and MAPPING_BASE in seen:
            self._ask(NatTest.OTHER_HOST, MAPPING_BASE, Address(other.host, self.server.port), now)
            self._ask(NatTest.OTHER_BOTH, MAPPING_BASE, other, now)
        if MAPPING_BASE in seen and seen[MAPPING_BASE].mapped != seen[MAPPING_BASE].local:
            self._begin_plain_mapping_tests(now)
        if other is not None and FILTERING_BASE in seen:
            server, port = self.server, Address(self.server.host, other.port)
            both, one = ChangeRequest(True, True), ChangeRequest(False, True)
            self._ask(NatTest.CHANGE_BOTH, FILTERING_BASE, server, now, both, sources=(other, server))
            self._ask(NatTest.CHANGE_PORT, FILTERING_BASE, server, now, one, sources=(port, server))
        if self._evidence.why_no_hairpin() is None:
            there = self._evidence.reached(seen[HAIRPIN_BACK_BASE].mapped)
            here = self._evidence.reached(seen[HAIRPIN_BASE].mapped)
            self._ask(NatTest.HAIRPIN, HAIRPIN_BASE, there, now)
            self._ask(NatTest.HAIRPIN, HAIRPIN_BACK_BASE, here, now)

    def _begin_plain_mapping_tests(self, now: float) -> None:
        """What servers show that do not know RFC 5780."""
        server = self.server
        if self._evidence.has_one_address() and server.port < _LAST_PORT:
            # Ours have a second port there, with or without a second address.
            self._ask(NatTest.SECOND_PORT, MAPPING_BASE, Address(server.host, server.port + 1), now)
        for each in self._others:
            self._ask(NatTest.OTHER_SERVER, MAPPING_BASE, each, now)

    # --- answers ----------------------------------------------------------------------------------------

    def _answered(self, question: _Question, message: Message, source: Address, now: float) -> None:
        test, evidence = question.test, self._evidence
        self._close(question)
        other = message.get(OtherAddress)
        if other is not None and question.transaction.destination == self.server:
            evidence.others.add(other.address)
        round_trip = question.transaction.round_trip(now)
        self._round_trips.append(round_trip)
        if round_trip is not None:
            evidence.round_trip = min(round_trip, evidence.round_trip or round_trip)
        if test in _CHANGES:
            self._got_through(test, source)
            return
        mapped = message.get(XorMappedAddress) or message.get(MappedAddress)
        if mapped is None or not evidence.is_possible(mapped.address, AddressClass.CLOSED):
            self.counters["impossible_address"] += 1
            evidence.problems[test] = Reason.IMPOSSIBLE_ADDRESS
        elif test is NatTest.SAMPLE:
            local, sent_at = self._bases[question.index], question.transaction.started
            evidence.samples[question.index] = Sample(local, mapped.address, sent_at)
        else:
            evidence.mapped[question.transaction.destination] = mapped.address
            # Tests that are still open left at the same time.
            taken = now - question.transaction.started
            self._foresight_at = max(self._foresight_at, now + taken)
            if test is NatTest.OTHER_SERVER:
                self._close_all(test)

    def _got_through(self, test: NatTest, source: Address) -> None:
        """An answer to a request for one from elsewhere."""
        if source == self.server:
            self._evidence.problems[test] = Reason.NOT_CHANGED
            return
        self._evidence.passed.add(test)
        if test is NatTest.CHANGE_BOTH:
            # Whoever lets in a stranger lets in an acquaintance at another port.
            self._close_all(NatTest.CHANGE_PORT)

    def _refused(self, question: _Question, message: Message) -> None:
        """An error: of a server that has one address, or that will not talk to us."""
        if message.get(ErrorCode) is None:
            self.counters["error_without_code"] += 1
            return
        self._close(question)
        reason = Reason.ONE_ADDRESS if question.test in _CHANGES else Reason.REFUSED
        self._evidence.problems[question.test] = reason

    def _came_back(
        self, question: _Question, message: Message, source: Address, local: Address | None
    ) -> None:
        """One of the two hairpin requests arrived at the other socket, or somebody else says something."""
        back = HAIRPIN_BASE if question.index == HAIRPIN_BACK_BASE else HAIRPIN_BACK_BASE
        sender = self._evidence.samples[question.index]
        is_request = message.message_class is MessageClass.REQUEST and local == self._bases[back]
        if is_request and source.host == self._evidence.reached(sender.mapped).host:
            # Behind a mapping that depends on the destination the port is another one.
            self._evidence.hairpin = Hairpinning.EXTERNAL_SOURCE
        elif is_request and source == sender.local:
            self._evidence.hairpin = Hairpinning.INTERNAL_SOURCE
        else:
            self.counters["from_elsewhere"] += 1
            return
        self._close_all(NatTest.HAIRPIN)

    def _close_all(self, test: NatTest) -> None:
        for question in [each for each in self._questions.values() if each.test is test]:
            self._close(question)

    def _close(self, question: _Question) -> None:
        del self._questions[question.transaction.transaction_id]
