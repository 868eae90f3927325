"""The links of a session: which one carries the streams, and when it is left for another.

Rules of this file
1. A link that has been sending for max(3 round trips, 500 ms) without receipt is silent. After max(1.25 round
   trips, 40 ms) it is in doubt, and so that no stream waits longer than needed, it and the others are asked:
   where another one answers, max(2.5 round trips, 100 ms) are enough. A link by which nothing of what it
   carries arrives for max(6 round trips, 1.25 s) is stuck, although it is heard: it may pass small packets
   only, or those of one direction. Either is left for the best link that is neither.
2. A link that was left so comes back when full-size pings have been answered for a time that doubles with
   each fall (`ways.py`). Until then the streams stay where they are: a path that flaps does not take them
   along.
3. A link of a higher rank goes before all of a lower one. Among those of one rank, one of higher merit takes
   over at once unless its round trip is longer; after that only a round trip that is shorter by a margin,
   for a time, moves the streams.
4. Bulk may go by another link of the same rank than everything else (`bulk_route.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from crowline.base.machine import Buffer
from crowline.session.bulk_route import BulkRoute, Natural, Other
from crowline.session.doubt import Doubt
from crowline.session.load import Load, NoLoad
from crowline.session.member import Carrier, DatagramCarrier, Hints, Member, Trust
from crowline.session.ways import FIRST_HOLD, Way, Ways

__all__ = ["BETTER_PATH", "FIRST_PATH", "RETURNED", "Carrier", "Hints", "LinkSet", "LinkTransmit"]

# Seconds after which the chosen link, when it carries unacknowledged bytes and owes no answer, is asked for
# one: so that one that falls silent with the last bytes on it is noticed, although no more follow them.
_PROBE_INTERVAL = 0.1
# The same where another link could take over.
_QUICK_PROBE_INTERVAL = 0.025
# The token of those pings; the round trip of one that waits behind bulk would say nothing.
_PROBE_TOKEN = 0
# Seconds without any progress of what the chosen link carries that it is not blamed for.
MIN_STUCK = 1.25
_STUCK_ROUND_TRIPS = 6
# Seconds after the last stream bytes in which more are expected.
_BUSY_FOR = 1.0
# Seconds for which another link of the same rank must have a shorter round trip.
SHORTER_FOR = 3.0
# Reasons for a choice that lie in the chosen link itself.
FIRST_PATH = "the first path"
BETTER_PATH = "a better path"
# It had fallen silent before.
RETURNED = "it works again"


class LinkTransmit(Struct, frozen=True):
    """Bytes to append to a link, in this order."""

    link: int
    data: tuple[Buffer, ...]


class LinkSet:
    """The attached links by their numbers, and the chosen one."""

    def __init__(self, carriers: Callable[[], set[int]], load: Load | None = None) -> None:
        """`carriers`: the links that carry what each stream's other end waits for, if it waits."""
        self.chosen: int | None = None
        self.bulk = BulkRoute()
        # Stream bytes sent and received by each link that ever was, and the link that brought the last ones.
        self.sent: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        self.bringer = -1
        # Since when there has been no link that works.
        self.unheard_since: float | None = None
        self._members: dict[int, Member] = {}
        self._ways = Ways()
        self._token = 0
        self._chosen_at = 0.0
        self._carriers = carriers
        self._load = load or NoLoad()
        # The best link for everything but bulk, and the one whose bytes are to go again by another.
        self._natural: int | None = None
        self._left: int | None = None
        # Since when the other side has not said that more has arrived of what waits for that.
        self._waiting_since: float | None = None
        self._probe_at: float | None = None
        self._doubt = Doubt()
        # When stream bytes last came, and whether it matters to either side how soon more can be sent.
        self._took_at = -math.inf
        self._is_busy = False

    def add(
        self,
        link: int,
        carrier: Carrier,
        rank: int,
        now: float,
        hints: Hints,
    ) -> None:
        member = Member(carrier, _way(link, rank, hints.merit), hints, now, fading=hints.is_fading)
        member.datagrams = carrier if isinstance(carrier, DatagramCarrier) else None
        self._members[link] = member
        if hold := self._ways.hold(member.way):
            member.begin_trial(now, hold)

    def rerank(self, link: int, rank: int, merit: int) -> bool:
        """Have another rank and merit for `link` from now on; False where there is none."""
        member = self._members.get(link)
        if member is not None:
            member.way = _way(link, rank, merit)
        return member is not None

    def remove(self, link: int, now: float) -> bool:
        member = self._members.pop(link, None)
        if member is not None:
            self._judge(member, now)
        return member is not None

    def rtt(self, link: int) -> float | None:
        """The last measured round trip over `link`, seconds."""
        member = self._members.get(link)
        return member.rtt if member else None

    def idle_rtt(self) -> float | None:
        """The round trip of the chosen link's path without what waits on it, seconds."""
        member = None if self.chosen is None else self._members.get(self.chosen)
        return None if member is None else self._idle_rtt(member)

    def carried(self, link: int) -> tuple[int, int]:
        """Stream bytes sent and received by `link`, also after it ended."""
        return self.sent[link], self.received[link]

    def outlet(self) -> tuple[int, int] | None:
        """The link that takes the next stream bytes, and how many; None while there is no room."""
        if self.chosen is None:
            return None
        if (room := self._members[self.chosen].carrier.room()) <= 0:
            self.bulk.meter.full()
            return None
        return self.chosen, room

    @property
    def datagram_carrier(self) -> DatagramCarrier | None:
        """What takes datagrams as packets of their own now."""
        carrier = None if self.chosen is None else self._members[self.chosen].datagrams
        return carrier if carrier is not None and carrier.max_datagram_size > 0 else None

    @property
    def answering(self) -> int | None:
        """By what the other side is told what has arrived: a link for bulk that brought it, if that works, or
        the chosen one. A connection that is at work anyway costs less."""
        member = self._members.get(self.bringer)
        is_fit = member is not None and member.hints.is_for_bulk and member.trust is Trust.SOUND
        return self.bringer if is_fit else self.chosen

    def is_ailing(self, link: int) -> bool:
        """Whether the link is silent or stuck."""
        member = self._members.get(link)
        return member is not None and member.is_ailing

    def gave(self, link: int, size: int, now: float) -> None:
        """The chosen link was given stream bytes."""
        self.sent[link] += size
        if self._probe_at is None:
            self._probe_at = now + self._probe_interval()

    def took(self, link: int, size: int, now: float) -> None:
        """A link brought stream bytes."""
        self.received[link] += size
        self.bringer = link
        self._took_at = now

    def progressed(self, size: int, now: float) -> None:
        """The other side said that so many bytes more have arrived."""
        self.bulk.meter.arrived(size, now)
        self._waiting_since = now if self._carriers() else None

    def choose(self, now: float) -> tuple[int | None, str] | None:
        """Choose the best link; on a change, the one it was before and why."""
        for member in self._members.values():
            member.look(now, lambda member=member: self._hold(member, now))  # type: ignore[misc]
        self._is_busy = self._load.in_flight > 0 or now < self._took_at + _BUSY_FOR
        self._doubt.leave(*self._suspects(), now)
        if any(not member.is_ailing for member in self._members.values()):
            self.unheard_since = None
        elif self.unheard_since is None:
            self.unheard_since = now
        best, reason = self._for_bulk(*self._best(now), now)
        if best == self.chosen:
            return None
        was, self.chosen = self.chosen, best
        before = None if was is None else self._members.get(was)
        if before is not None and before.doubted_since is not None:
            before.carried_before = now - self._chosen_at
        elif before is not None and before.is_ailing:
            self._ways.fell(before.way, now - self._chosen_at)
        self._chosen_at = now
        for member in self._members.values():
            member.shorter_since = None
        return was, self._reason(was, before) or reason

    def abandon(self, now: float) -> list[int]:
        """Ailing links that are not chosen, each told once for each time it ails: others carry it again."""
        found = []
        for link, member in self._members.items():
            if member.is_ailing and link != self.chosen and not member.abandoned:
                member.abandoned = True
                found.append(link)
        if self._left is not None:
            found.append(self._left)
            self._left = None
        if found and self._waiting_since is not None:
            self._waiting_since = now
        return found

    def ping(self, at: float) -> None:
        """Have every link pinged at `at` at the latest."""
        for member in self._members.values():
            member.ping_at = min(member.ping_at, at)

    def start_over(self, now: float) -> None:
        """The network is another one: what fell silent in the old one may be used as soon as it answers."""
        self._ways.clear()
        for member in self._members.values():
            member.trial = member.doubted_since = None
        self.ping(now)

    def fade(self, link: int) -> None:
        """The path of `link` will not last: another of its rank is to take over as soon as there is one."""
        if link in self._members:
            self._members[link].fading = True

    def due_pings(self, now: float) -> list[tuple[int, int, bool]]:
        """Links to ping now, each with the token to send, and whether the ping must be full-size."""
        self._is_busy = self._load.in_flight > 0 or now < self._took_at + _BUSY_FOR
        self._doubt.ask(*self._suspects(), now)
        due = []
        for link, member in self._members.items():
            if now >= member.ping_at:
                self._token += 1
                member.sent_ping(self._token, now)
                due.append((link, self._token, member.needs_proof))
        if self._probe_at is not None and now >= self._probe_at:
            due += self._probes(now)
        return due

    def pong(self, link: int, token: int, now: float) -> None:
        member = self._members.get(link)
        if member is not None and member.got_pong(token, now, self._ways.hold(member.way)):
            self._waiting_since = None if self._waiting_since is None else now

    def next_timeout(self) -> float | None:
        times = [at for member in self._members.values() for at in member.timeouts()]
        shorter = [member.shorter_since for member in self._members.values()]
        times += [since + SHORTER_FOR for since in shorter if since is not None]
        doubt = self._doubt.next_timeout(*self._suspects())
        times += [at for at in (doubt, self._probe_at, self.bulk.next_timeout()) if at is not None]
        return min(times, default=None)

    # ------------------------------------------------------------------------------------------------

    def _probes(self, now: float) -> list[tuple[int, int, bool]]:
        """See whether the other side still waits, and for how long."""
        carriers = self._carriers()
        self._probe_at = now + self._probe_interval() if carriers else None
        if not carriers or self._waiting_since is None:
            self._waiting_since = now if carriers else None
        else:
            self._see_stuck([self._members[link] for link in carriers], self._waiting_since, now)
        if self.chosen is None or not carriers:
            return []
        is_quiet = self._members[self.chosen].carrier.unanswered_since is None
        return [(self.chosen, _PROBE_TOKEN, False)] if is_quiet else []

    @staticmethod
    def _see_stuck(carriers: list[Member], since: float, now: float) -> None:
        longest = max(member.rtt or 0.0 for member in carriers)
        if now < since + max(_STUCK_ROUND_TRIPS * longest, MIN_STUCK):
            return
        for member in carriers:
            if not member.is_ailing:
                member.stuck_since = member.ping_at = now

    def _probe_interval(self) -> float:
        return _QUICK_PROBE_INTERVAL if self._rivals() else _PROBE_INTERVAL

    def _rivals(self) -> list[Member]:
        """Links that could take over at once."""
        others = (member for link, member in self._members.items() if link != self.chosen)
        return [member for member in others if member.trust is Trust.SOUND]

    def _suspects(self) -> tuple[Member | None, list[Member]]:
        """The chosen link and its rivals. A session at rest has none: it has time, and paths that sleep."""
        chosen = None if self.chosen is None else self._members.get(self.chosen)
        return chosen, self._rivals() if self._is_busy else []

    def _hold(self, member: Member, now: float) -> float:
        """Seconds for which a link that answers again must go on doing so."""
        was_early = self._judge(member, now)
        return max(self._ways.hold(member.way), FIRST_HOLD if was_early else 0.0)

    def _judge(self, member: Member, now: float) -> bool:
        """Whether the link was left early; that counts as a fall where it was right, of a link in use."""
        since, member.doubted_since = member.doubted_since, None
        carried, member.carried_before = member.carried_before, None
        if since is not None and carried is not None and now >= since + member.longest_silence():
            self._ways.fell(member.way, carried)
        return since is not None

    def _best(self, now: float) -> tuple[int | None, str]:
        """The link to use, and why if it is not the chosen one."""
        if not self._members:
            return None, ""
        first = max(self._class_of(member) for member in self._members.values())
        peers = [link for link, member in self._members.items() if self._class_of(member) == first]
        for link, member in self._members.items():
            if link not in peers or link == self._natural:
                member.shorter_since = None  # it is compared with nothing, so no time is waited for
        if self._natural not in peers:
            best = max(peers, key=lambda link: self._members[link].way)
            return best, RETURNED if self._ways.hold(self._members[best].way) else BETTER_PATH
        best, reason = self._natural, ""
        for link in peers:
            if link != best and (why := self._outdoes(self._members[link], self._members[best], now)):
                best, reason = link, why
        return best, reason

    def _for_bulk(self, best: int | None, reason: str, now: float) -> tuple[int | None, str]:
        """The link to use, with bulk in mind, where `best` is the one for everything else."""
        self._natural = best
        if self._load.waits_for_path:
            self.bulk.meter.full()
        member = None if best is None else self._members[best]
        natural = None if best is None or member is None else Natural(best, self._idle_rtt(member) or 0.0)
        verdict = self.bulk.decide(natural, self._other_for_bulk(member), self._load.in_flight, now)
        if verdict is None:
            return best, reason
        if verdict.link == best:
            left = None if self.chosen in (None, best) else self._members.get(self.chosen)
            if left is not None and left.hints.is_for_bulk:
                left.measure_anew(now)
            return best, reason or verdict.reason or BETTER_PATH
        if verdict.resends and self.chosen is not None:
            self._left = self.chosen
        return verdict.link, verdict.reason

    def _idle_rtt(self, member: Member) -> float | None:
        # What was made while another link of the path was busy has only been measured behind its queues.
        same = (one for one in self._members.values() if one is member or one.shares_path(member))
        return min((rtt for one in same if (rtt := one.idle_rtt) is not None), default=None)

    def _other_for_bulk(self, natural: Member | None) -> Other | None:
        """The best link for bulk that is as sound as `natural`, and of its rank."""
        if natural is None or natural.hints.is_for_bulk:
            return None
        for link, member in sorted(self._members.items(), key=lambda item: item[1].way, reverse=True):
            if member.hints.is_for_bulk and self._class_of(member) == self._class_of(natural):
                return Other(link, member.recent_rtt)
        return None

    @staticmethod
    def _class_of(member: Member) -> tuple[Trust, int, bool]:
        return (member.trust, member.way[0], not member.fading)

    @staticmethod
    def _outdoes(other: Member, chosen: Member, now: float) -> str:
        """Why `other`, as trusted and of the same rank, is to be used in place of `chosen`; empty if not."""
        if other.shares_path(chosen):
            other.shorter_since = None
            return BETTER_PATH if other.way > chosen.way else ""
        if not other.is_shorter_than(chosen) or not (other.is_measured() and chosen.is_measured()):
            other.shorter_since = None
            is_better = other.way > chosen.way and not other.outdone and not chosen.is_shorter_than(other)
            return BETTER_PATH if is_better else ""
        if other.shorter_since is None:
            other.shorter_since = now
        if now < other.shorter_since + SHORTER_FOR:
            return ""
        chosen.outdone = True
        return f"its round trip is shorter: {_ms(other.rtt)} against {_ms(chosen.rtt)}"

    @staticmethod
    def _reason(was: int | None, before: Member | None) -> str:
        """A reason that lies in what was before."""
        if was is None:
            return FIRST_PATH
        return "the path before ended" if before is None else before.ailment


def _way(link: int, rank: int, merit: int) -> Way:
    """Without a merit, a link has a path of its own."""
    return rank, merit or -1 - link


def _ms(seconds: float | None) -> str:
    return f"{(seconds or 0.0) * 1000:.1f} ms"
