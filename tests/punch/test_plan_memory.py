"""Which plans have worked between two networks: scores, bounds, and the order that follows."""

from __future__ import annotations

from crowline.punch.plan_choice import NatSummary, Opens, Way, choose_plans
from crowline.punch.plan_memory import (
    HIGHEST,
    LOWEST,
    MAX_BYTES,
    MAX_NETWORKS,
    MAX_PLANS,
    PlanMemory,
    in_order,
    name_of,
)

PLANS = choose_plans(NatSummary(), NatSummary(), leads=True)


def test_a_plan_that_works_every_second_time_keeps_its_place() -> None:
    """One point less for each try, three more for each success: two in all."""
    memory = PlanMemory()
    memory.tried("k", "spray/own")
    memory.worked("k", "spray/own")
    assert memory.scores("k") == {"spray/own": 2}
    memory.tried("k", "spray/own")
    assert memory.scores("k") == {"spray/own": 1}
    assert memory.scores("another") == {}


def test_scores_are_bounded_so_that_old_news_is_overtaken() -> None:
    """A hundred successes are forgotten after a handful of failures."""
    memory = PlanMemory()
    for _ in range(100):
        memory.worked("k", "spray/own")
        memory.tried("k", "low-ttl/both")
    assert memory.scores("k") == {"spray/own": HIGHEST, "low-ttl/both": LOWEST}


def test_the_networks_that_were_used_last_are_kept() -> None:
    """So many, with so many plans each, in so many bytes at most."""
    memory = PlanMemory()
    for number in range(MAX_NETWORKS + 10):
        for plan in range(MAX_PLANS + 10):
            memory.tried(f"{number:064}", f"{plan:032}")
        memory.tried(f"{0:064}", "low-ttl/both")
    assert memory.scores(f"{10:064}") == {} != memory.scores(f"{11:064}")
    assert memory.scores(f"{0:064}") and len(memory.scores(f"{11:064}")) == MAX_PLANS
    real = PlanMemory()
    for number in range(MAX_NETWORKS):
        for plan in PLANS:
            real.tried(f"{number:064}", name_of(plan.way, plan.opens))
    assert len(real.dump()) < MAX_BYTES
    assert PlanMemory.load(real.dump()).dump() == real.dump()


def test_what_has_worked_comes_before_what_should_work() -> None:
    """And what has failed after its equals only: a profile's promise is more than one failure."""
    scores = {"spray/peer": 2, "same-port/own": 5, "low-ttl/both": -3}
    order = [(plan.way, plan.opens) for plan in in_order(PLANS, scores)]
    assert order[:2] == [(Way.SAME_PORT, Opens.OWN), (Way.SPRAY, Opens.PEER)]
    others = in_order(PLANS, scores)[2:]
    assert [plan.fit for plan in others[:-1]] == sorted(plan.fit for plan in others[:-1])
    equals = [plan.way for plan in others[:-1] if plan.fit == others[0].fit]
    assert equals[-1] is Way.LOW_TTL
    assert others[-1].way is Way.RELAY
    assert in_order(PLANS, {}) == PLANS
