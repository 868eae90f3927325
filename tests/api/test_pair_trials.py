"""What is noted of each pair while two agents try each other."""

from __future__ import annotations

from crowline.api.doctor.pair_trials import PairTrials
from crowline.base.addresses import Address
from crowline.base.send_problem import SendProblem
from crowline.diagnosis.pair_trial import Result
from crowline.ice.candidate import CandidateFactory, CandidateType
from crowline.ice.events import PairLost, SendRefused
from ice_pair import DELAY, IcePair

NOWHERE = Address("192.0.2.99", 1000)


class Watched:
    """Two agents; the first one's trials are noted."""

    def __init__(self, *, seconds: float = 5.0, bases: tuple[int, int] = (1, 2), **options: object) -> None:
        self.pair = IcePair(bases=bases, renominate=True, tells_moves=True, **options)
        self.side = self.pair.sides[0]
        self.trials = PairTrials(self.side.agent.pairs, clock=lambda: self.pair.now)
        self._told = 0
        self.pair.later(0.05, self._name_nowhere)
        self.pair.start()
        self.run(seconds)

    def run(self, seconds: float) -> None:
        self.pair.run(seconds, each_step=self._feed)

    def _name_nowhere(self) -> None:
        """One candidate of the other side leads nowhere."""
        candidate = CandidateFactory().host(NOWHERE)
        self.side.agent.add_remote_candidate(candidate, self.pair.now)

    def _feed(self) -> None:
        for _, event in self.side.events[self._told :]:
            self.trials.on_event(event)
        self._told = len(self.side.events)


def test_each_pair_has_its_result() -> None:
    """Two work, and one that leads nowhere says so after its last check."""
    watched = Watched(seconds=50.0)
    found = watched.trials.trials()
    assert [trial.result for trial in found] == [Result.WORKS, Result.WORKS, Result.SILENT]
    assert found[-1].remote == NOWHERE
    for trial in found[:2]:
        assert trial.after is not None and trial.rtt is not None
        assert abs(trial.rtt - 2 * DELAY) < 1e-6
        assert trial.name == "host⇄host" and trial.reason == "nothing translates in between"


def test_what_is_under_way_is_not_called_failed() -> None:
    """After 100 ms nobody can know whether an answer still comes."""
    watched = Watched(seconds=0.1)
    result = {trial.remote: trial.result for trial in watched.trials.trials()}
    assert result[NOWHERE] in (Result.OPEN, Result.UNTRIED)


def test_what_this_machine_refuses_is_not_blamed_on_the_way() -> None:
    """A firewall of this machine is the reason, in its own words."""
    watched = Watched(seconds=0.2)
    base = watched.side.bases[0]
    watched.trials.on_event(SendRefused(base, NOWHERE, SendProblem.FORBIDDEN))
    trial = next(trial for trial in watched.trials.trials() if trial.remote == NOWHERE)
    assert trial.result is Result.REFUSED
    assert SendProblem.FORBIDDEN.value in trial.reason


def test_a_pair_that_falls_silent_is_called_lost() -> None:
    """It worked once, which is not to be forgotten."""
    watched = Watched(bases=(1, 1))
    watched.pair.drops = lambda *_: True
    watched.run(60.0)
    assert watched.side.of(PairLost)
    (trial,) = (trial for trial in watched.trials.trials() if trial.remote != NOWHERE)
    assert trial.result is Result.LOST


def test_an_address_learnt_from_a_check_is_named_so() -> None:
    """A remote candidate that nobody signalled is peer-reflexive."""
    pair = IcePair(renominate=True, tells_moves=True)
    side, other = pair.sides
    trials = PairTrials(side.agent.pairs, clock=lambda: pair.now)
    ufrag, pwd = other.agent.ufrag, other.agent.pwd
    side.agent.set_remote(ufrag, pwd, 0.0)  # the other side's candidates never come
    side.describe()
    pair.run(2.0)
    for _, event in side.events:
        trials.on_event(event)
    (trial,) = trials.trials()
    assert (trial.result, trial.remote_type) == (Result.WORKS, CandidateType.PEER_REFLEXIVE)


def test_notes_are_bounded() -> None:
    """However many pairs come and go."""
    watched = Watched(seconds=0.2)
    for number in range(500):
        remote = CandidateFactory().host(Address("192.0.2.200", 1000 + number))
        watched.side.agent.add_remote_candidate(remote, watched.pair.now)
        watched.trials.trials()
        watched.side.agent.remove_remote_candidate(remote.address, watched.pair.now)
    assert len(watched.trials.trials()) <= 200


def test_pairs_with_one_result_are_in_the_order_of_preference() -> None:
    """Best first."""
    watched = Watched(bases=(2, 2))
    working = [trial.priority for trial in watched.trials.trials() if trial.result is Result.WORKS]
    assert working == sorted(working, reverse=True) and len(working) == 4
