"""Where this machine stands: what others meet of it, and how many of them it reaches."""

from __future__ import annotations

from dataclasses import dataclass

from crowline.diagnosis.facts import Facts
from crowline.diagnosis.prospects import Prospect, ease, own_summary, prospects, reach
from crowline.punch.plan_choice import NatSummary


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts of the facts for whom one reaches. Compare two of them to weigh a change."""

    summary: NatSummary
    has_ipv6: bool
    has_tcp: bool

    @classmethod
    def of(cls, facts: Facts) -> Standing:
        """As it is now. TCP that nobody tried is taken for free."""
        return cls(own_summary(facts), facts.ipv6.works is True, facts.tcp is not False)

    @property
    def prospects(self) -> tuple[Prospect, ...]:
        return prospects(self.summary, has_tcp=self.has_tcp)

    @property
    def reach(self) -> float:
        """The share of peers that are reached directly."""
        return reach(self.prospects, has_ipv6=self.has_ipv6)

    @property
    def ease(self) -> float:
        """The same, less where that takes guesses."""
        return ease(self.prospects, has_ipv6=self.has_ipv6)
