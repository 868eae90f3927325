"""Pairs of sessions that a restart has ended: they end with consent, and are not hoarded."""

from __future__ import annotations

from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.ice.events import FailureReason, IceFailed, LossReason, PairLost
from crowline.ice.former import MAX_SESSIONS
from crowline.ice.lite import LiteAgent
from puppet import REMOTE, Puppet, events, remote, requests


class LitePuppet(Puppet):
    """Moves the full side before a lite agent."""

    def make(self, controlling: bool, **options: Any) -> Any:
        return LiteAgent(controlling, entropy=self.random.randbytes, **options)


def asked_for_consent() -> LitePuppet:
    """A lite agent that has been asked for consent, and has restarted since."""
    puppet = LitePuppet(False)
    puppet.meet()
    puppet.receive(puppet.check(use_candidate=True), now=0.1)
    pair = puppet.agent.selected
    puppet.agent.use(pair, 0.1)
    puppet.receive(puppet.check(), now=6.0)
    ufrag, pwd = puppet.agent.ufrag, puppet.agent.pwd
    assert puppet.agent.restart(7.0)
    puppet.former = (f"{ufrag}:{puppet.ufrag}", pwd)  # type: ignore[attr-defined]
    assert puppet.agent.valid_pairs() == [pair]
    events(puppet.agent)
    return puppet


def test_a_lite_agent_hears_a_silence_that_begins_with_a_restart() -> None:
    """The other side never says its new credentials, and asks no more: 30 s after the last question."""
    puppet = asked_for_consent()
    pair = puppet.agent.selected
    puppet.sent_by(35.9)
    assert events(puppet.agent) == []
    puppet.sent_by(36.1)
    assert events(puppet.agent) == [PairLost(pair, LossReason.CONSENT_EXPIRED)]


def test_questions_of_the_former_session_keep_its_pair() -> None:
    """They are asked with the former credentials until the new session has agreed on a pair."""
    puppet = asked_for_consent()
    username, key = puppet.former  # type: ignore[attr-defined]
    for now in range(10, 200, 5):
        puppet.sent_by(now)
        puppet.receive(puppet.check(username=username, key=key), now=now)
        assert puppet.agent.selected is not None
    puppet.sent_by(400.0)
    assert puppet.agent.valid_pairs() == []


def test_a_lite_agent_has_not_failed_while_a_former_pair_works() -> None:
    """Two lite sides, of which one says nothing new after its restart: it fails when the old way is gone."""
    agent = LitePuppet(True).agent
    agent.set_remote("lite", "a password of the lite side", 0.0, lite=True)
    agent.add_remote_candidate(remote(REMOTE), 0.0)
    agent.end_of_local_candidates(0.0)
    agent.end_of_remote_candidates(0.0)
    assert (pair := agent.selected) is not None
    agent.set_remote("lite-2", "another password of the lite side", 1.0, lite=True)
    agent.end_of_local_candidates(1.0)
    agent.end_of_remote_candidates(1.0)
    assert agent.selected is pair
    events(agent)
    agent.remove_remote_candidate(REMOTE, 2.0)
    assert events(agent) == [
        PairLost(pair, LossReason.REMOTE_REMOVED),
        IceFailed(FailureReason.NO_CANDIDATES),
    ]


@pytest.mark.parametrize("renominate", [False, True])
def test_restarts_without_end_hoard_no_pairs(renominate: bool) -> None:
    """Whoever restarts again and again, each time from elsewhere, and goes on answering everything."""
    puppet = Puppet(False, renominate=renominate)
    for number in range(60):
        now = 2.0 * number
        puppet.ufrag, puppet.pwd = f"puppet{number}", f"a password of the puppet {number}"
        there = Address(REMOTE.host, 1000 + number)
        puppet.meet(remote(there), now=now)
        puppet.receive(puppet.check(use_candidate=True), there, now)
        for transmit in requests(puppet.sent()):
            puppet.answer(transmit, now)
        assert puppet.agent.selected.remote.address == there
        puppet.agent.use(puppet.agent.selected, now)
    assert len(puppet.agent.valid_pairs()) <= MAX_SESSIONS + 1
    lost = [event for event in events(puppet.agent) if isinstance(event, PairLost)]
    assert lost[0].reason is LossReason.RESTARTED
