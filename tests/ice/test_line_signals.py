"""Two agents that tell each other lines, in virtual time."""

from __future__ import annotations

import random

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.ice.agent import IceAgent
from crowline.ice.attribute_line import IceLite, IcePwd, IceUfrag
from crowline.ice.candidate import CandidateFactory
from crowline.ice.candidate_line import CandidateLine
from crowline.ice.events import PairNominated, Restarted
from crowline.ice.line_signals import LineSignals
from crowline.ice.lite import LiteAgent
from ice_pair import SIGNAL_DELAY, IcePair, IceSide

HOST = Address("192.0.2.1", 1000)
MAPPED = Address("203.0.113.5", 2000)
SERVER = Address("198.51.100.1", 3478)
OTHER = Address("192.0.2.11", 1000)


class LineSide:
    """What a side of an `IcePair` says and hears by lines."""

    def __init__(self, pair: IcePair, side: IceSide) -> None:
        self.pair = pair
        self.side = side
        self.lines: list[str] = []
        self.signals = LineSignals(side.agent, self._tell)
        side.describe = self.describe  # type: ignore[method-assign]

    def connect(self, other: LineSide) -> None:
        self.other = other

    def describe(self) -> None:
        self.signals.begin_anew()
        self.signals.end(self.pair.now)

    def _tell(self, line: str) -> None:
        self.lines.append(line)
        self.pair.later(SIGNAL_DELAY, lambda: self.other.signals.hear(line, self.pair.now))


def line_pair() -> tuple[IcePair, LineSide, LineSide]:
    pair = IcePair()
    one, two = (LineSide(pair, side) for side in pair.sides)
    one.connect(two)
    two.connect(one)
    return pair, one, two


def lone(lines: list[str] | None = None) -> tuple[IceAgent, LineSignals]:
    """An agent with one socket, and what it says."""
    agent = IceAgent(True, entropy=random.Random(1).randbytes)
    return agent, LineSignals(agent, (lines if lines is not None else []).append)


def test_lines_are_all_that_two_agents_need() -> None:
    """They agree on a pair."""
    pair, one, two = line_pair()
    one.describe()
    two.describe()
    pair.run(1.0)
    for line_side in (one, two):
        assert len(line_side.side.of(PairNominated)) == 1
        assert not line_side.signals.counters


def test_what_a_side_says() -> None:
    """Who it is, what it can, its candidates with the session they belong to, and that these are all."""
    lines: list[str] = []
    agent, signals = lone(lines)
    signals.begin()
    signals.offer(CandidateFactory().host(HOST), 0.0)
    signals.end(0.0)
    assert lines == [
        f"ice-ufrag:{agent.ufrag}",
        f"ice-pwd:{agent.pwd}",
        "ice-options:trickle ice2",
        f"candidate:1 1 udp 2130706431 192.0.2.1 1000 typ host ufrag {agent.ufrag}",
        "end-of-candidates",
    ]


def test_a_lite_side_says_so() -> None:
    """Before its credentials, so that the other side knows who controls when it hears them."""
    lines: list[str] = []
    LineSignals(LiteAgent(False, entropy=random.Random(1).randbytes), lines.append).begin()
    assert [line.partition(":")[0] for line in lines] == ["ice-lite", "ice-ufrag", "ice-pwd", "ice-options"]


def test_a_redundant_candidate_is_not_told() -> None:
    """Two servers see the same address of one socket (RFC 8445 §5.1.3)."""
    lines: list[str] = []
    _, signals = lone(lines)
    factory = CandidateFactory()
    for server in (SERVER, SERVER, Address("198.51.100.2", 3478)):
        signals.offer(factory.server_reflexive(MAPPED, HOST, server), 0.0)
    assert len(lines) == 1


def test_a_private_candidate_says_nothing_of_where_we_are() -> None:
    """Neither at first nor after a restart."""
    lines: list[str] = []
    agent, signals = lone(lines)
    signals.offer(CandidateFactory().relayed(MAPPED, HOST, SERVER), 0.0, private=True)
    agent.set_remote("theirs", "p" * 22, 0.0)
    assert agent.restart(0.0)
    signals.begin_anew()
    told = [CandidateLine.parse(line) for line in lines if line.startswith("candidate")]
    assert [(line.related_host, line.related_port) for line in told] == [("0.0.0.0", 9)] * 2
    assert told[0].extensions != told[1].extensions


def test_a_restart_needs_no_more_than_lines() -> None:
    """The other side hears new credentials and restarts too; both agree on a pair again."""
    pair, one, two = line_pair()
    one.describe()
    two.describe()
    pair.run(1.0)
    before = one.side.agent.ufrag
    assert one.side.restart()
    pair.run(1.0)
    assert one.side.agent.ufrag != before
    for line_side, by_peer in ((one, False), (two, True)):
        assert line_side.side.of(Restarted) == [Restarted(by_peer)]
        assert len(line_side.side.of(PairNominated)) == 2
        assert line_side.side.agent.selected is not None


def test_candidates_of_another_session_are_dropped() -> None:
    """The signalling was slow: the other side has restarted since, or has not told that yet."""
    _, signals = lone()
    for line in ("ice-ufrag:theirs", f"ice-pwd:{'p' * 22}"):
        signals.hear(line, 0.0)
    of_this = "candidate:1 1 udp 2130706431 192.0.2.11 1000 typ host"
    assert signals.hear(f"{of_this} ufrag former", 0.0) is None
    for line in (of_this, f"{of_this} ufrag theirs"):
        candidate = signals.hear(line, 0.0)
        assert candidate is not None and candidate.address == OTHER
    assert signals.counters == {"other session": 1}


def test_candidates_may_come_before_the_credentials() -> None:
    """Signalling that carries them apart may swap them: they are checked once the password is there."""
    agent, signals = lone()
    signals.offer(CandidateFactory().host(HOST), 0.0)
    signals.hear("candidate:1 1 udp 2130706431 192.0.2.11 1000 typ host ufrag theirs", 0.0)
    assert agent.next_transmit() is None
    for line in (f"ice-pwd:{'p' * 22}", "ice-ufrag:theirs"):
        signals.hear(line, 0.0)
    check = agent.next_transmit()
    assert check is not None and check.destination == OTHER


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("candidate:", "malformed"),
        ("ice-pwd:short", "malformed"),
        ("\0", "malformed"),
        ("candidate:1 1 udp 1 6d1f2b3c-0000-4000-8000-000000000000.local 9 typ host", "name"),
    ],
)
def test_lines_of_no_use_are_counted(line: str, reason: str) -> None:
    """Nothing is raised, whatever comes."""
    _, signals = lone()
    assert signals.hear(line, 0.0) is None
    assert signals.counters == {reason: 1}


NAMED = "candidate:1 1 udp 2130706431 6d1f2b3c-0000-4000-8000-000000000000.local 1000 typ host ufrag theirs"


def test_a_name_is_handed_on_and_taken_when_it_is_found() -> None:
    """Unless the other side has begun anew meanwhile."""
    names: list[CandidateLine] = []
    signals = LineSignals(IceAgent(True, entropy=random.Random(1).randbytes), [].append, on_name=names.append)
    for line in ("ice-ufrag:theirs", f"ice-pwd:{'p' * 22}", NAMED):
        assert signals.hear(line, 0.0) is None
    assert [line.is_name for line in names] == [True]
    candidate = signals.found(names[0], OTHER.host, 0.0)
    assert candidate is not None and candidate.address == OTHER
    for line in ("ice-ufrag:again", f"ice-pwd:{'q' * 22}"):
        signals.hear(line, 0.0)
    assert signals.found(names[0], OTHER.host, 0.0) is None
    assert signals.counters == {"other session": 1}


def test_a_name_that_is_found_to_be_no_address_is_misuse() -> None:
    """Whoever looks names up gives IP addresses."""
    _, signals = lone()
    with pytest.raises(UsageError, match="not an IP address"):
        signals.found(CandidateLine.parse(NAMED), "somewhere", 0.0)


@pytest.mark.parametrize("line", ["v=0", "a=rtcp-mux", "ice-options:trickle", "", "a=sendrecv"])
def test_other_lines_of_a_description_mean_nothing(line: str) -> None:
    """They are no errors either."""
    _, signals = lone()
    assert signals.hear(line, 0.0) is None
    assert not signals.counters


def test_a_restart_that_changes_only_one_credential_is_dropped() -> None:
    """RFC 8445 §9 wants both changed; the session goes on."""
    agent, signals = lone()
    for line in (IceUfrag("theirs").write(), IcePwd("p" * 22).write()):
        signals.hear(line, 0.0)
    ufrag = agent.ufrag
    for line in (IceUfrag("theirs").write(), IcePwd("q" * 22).write()):
        signals.hear(line, 0.0)
    assert signals.counters == {"credentials": 1}
    assert agent.ufrag == ufrag


def test_a_lite_side_is_told_by_its_line() -> None:
    """This side controls, whatever it was made as (RFC 8445 §6.1.1)."""
    agent = IceAgent(False, entropy=random.Random(1).randbytes)
    signals = LineSignals(agent, [].append)
    for line in (IceLite().write(), IceUfrag("theirs").write(), IcePwd("p" * 22).write()):
        signals.hear(line, 0.0)
    assert agent.controlling


def test_a_candidate_that_cannot_be_told_is_an_error_of_the_caller() -> None:
    """And it is not checked from either: the other side would not know whose checks these are."""
    agent, signals = lone()
    with pytest.raises(UsageError):
        signals.offer(CandidateFactory().host(Address("a name", 1)), 0.0)
    assert agent.local_candidates() == []
