"""What two agents have to tell each other, as lines of text for any signalling (RFC 8839, RFC 8838)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.mdns_name import is_mdns_name
from crowline.ice.agent import IceAgent
from crowline.ice.attribute_line import (
    ICE2,
    TRICKLE,
    EndOfCandidates,
    IceLite,
    IceOptions,
    IcePwd,
    IceUfrag,
    read_attribute,
)
from crowline.ice.candidate import Candidate
from crowline.ice.candidate_line import CandidateLine, MalformedIceLine
from crowline.ice.lite import LiteAgent

UFRAG = "ufrag"
"""The extension of a candidate line that says to which session, of those that restarts part, it belongs.

RFC 8838 §9.
"""


class LineSignals:
    """Joins an agent to the caller's signalling: `tell` takes each line that the other side must `hear`.

    The lines may be carried one by one as they come, or collected and carried at once; in their order, by a
    way that nobody else can write to: whoever can, says where packets go (RFC 8445 §19.1). They have neither
    ``a=`` nor a line end.
    """

    def __init__(
        self,
        agent: IceAgent | LiteAgent,
        tell: Callable[[str], object],
        *,
        on_name: Callable[[CandidateLine], object] | None = None,
    ) -> None:
        """`on_name` gets lines whose host is an mDNS name: look it up, and call `found`."""
        self._agent = agent
        self._tell = tell
        self._on_name = on_name
        self._private: set[Address] = set()
        self._names: dict[Address, str] = {}
        # What was heard of the other side's next credentials: they count when both parts are there.
        self._next_ufrag = self._next_pwd = ""
        self._remote_ufrag = ""
        self._remote_is_lite = False
        self.counters: Counter[str] = Counter()
        """Lines of the other side that nothing came of, by reason."""

    def begin(self) -> None:
        """Tell who we are; candidates follow."""
        if isinstance(self._agent, LiteAgent):
            self._tell(IceLite().write())
        self._tell(IceUfrag(self._agent.ufrag).write())
        self._tell(IcePwd(self._agent.pwd).write())
        self._tell(IceOptions((TRICKLE, ICE2)).write())

    def begin_anew(self) -> None:
        """After the event `Restarted`: who we are now, and the candidates that stay; call `end` again."""
        self.begin()
        for candidate in self._agent.local_candidates():
            self._tell(self._line(candidate))

    def offer(self, candidate: Candidate, now: float, *, private: bool = False, name: str = "") -> None:
        """Check from a candidate of ours, and tell it unless it is redundant (RFC 8445 §5.1.3).

        `private` as in `CandidateLine.of`; `name` is an mDNS name that is told in place of the address.
        Raises `UsageError` for one that cannot be told, or one too many.
        """
        if private:
            self._private.add(candidate.address)
        if name:
            self._names[candidate.address] = name
        line = self._line(candidate)
        known = {_identity(each) for each in self._agent.local_candidates()}
        self._agent.add_local_candidate(candidate, now)
        if _identity(candidate) not in known:
            self._tell(line)

    def end(self, now: float) -> None:
        """All our candidates have been told."""
        self._agent.end_of_local_candidates(now)
        self._tell(EndOfCandidates().write())

    def hear(self, line: str, now: float) -> Candidate | None:
        """Take a line of the other side; the candidate it names, if it names one for the present session.

        Other lines of a session description may come between. New credentials are the other side's restart.
        Raises nothing, whatever the line: one that cannot be read, or that this agent can do nothing with, is
        dropped and counted.
        """
        try:
            said = read_attribute(line)
        except MalformedIceLine:
            self.counters["malformed"] += 1
            return None
        if isinstance(said, CandidateLine):
            return self._hear_candidate(said, now)
        if isinstance(said, EndOfCandidates):
            self._agent.end_of_remote_candidates(now)
        elif isinstance(said, IceLite):
            self._remote_is_lite = True
        elif isinstance(said, IceUfrag):
            self._next_ufrag = said.value
            self._introduce(now)
        elif isinstance(said, IcePwd):
            self._next_pwd = said.value
            self._introduce(now)
        return None

    def found(self, line: CandidateLine, host: str, now: float) -> Candidate | None:
        """The name in that line stands for the IP address `host`: the candidate, if it is not too late.

        Raises `UsageError` where `host` is no IP address.
        """
        return self._take(line.candidate(host), now) if self._is_present(line) else None

    def _line(self, candidate: Candidate) -> str:
        is_private = candidate.address in self._private
        line = CandidateLine.of(candidate, extensions={UFRAG: self._agent.ufrag}, private=is_private)
        return replace(line, host=self._names.get(candidate.address, line.host)).write()

    def _hear_candidate(self, line: CandidateLine, now: float) -> Candidate | None:
        if not self._is_present(line):
            return None
        if not line.is_name:
            return self._take(line.candidate(), now)
        if self._on_name is not None and is_mdns_name(line.host):
            self._on_name(line)
        else:
            # It is found all the same, as the source of a check, once it has heard of a candidate of ours.
            self.counters["name"] += 1
        return None

    def _is_present(self, line: CandidateLine) -> bool:
        """Whether a candidate belongs to the session that is going on, as far as its line says."""
        ufrag = dict(line.extensions).get(UFRAG)
        if ufrag is None or self._remote_ufrag in ("", ufrag):
            return True
        self.counters["other session"] += 1
        return False

    def _take(self, candidate: Candidate, now: float) -> Candidate:
        self._agent.add_remote_candidate(candidate, now)
        return candidate

    def _introduce(self, now: float) -> None:
        if not (self._next_ufrag and self._next_pwd):
            return
        ufrag, pwd = self._next_ufrag, self._next_pwd
        self._next_ufrag = self._next_pwd = ""
        try:
            self._agent.set_remote(ufrag, pwd, now, lite=self._remote_is_lite)
        except UsageError:
            self.counters["credentials"] += 1  # of a restart that changes only one of them
            return
        self._remote_ufrag = ufrag


def _identity(candidate: Candidate) -> tuple[object, ...]:
    """What two candidates must not have in common (RFC 8445 §5.1.3, RFC 6544 §5.1)."""
    return (candidate.address, candidate.sending_base, candidate.transport, candidate.tcp_type)
