"""One complete attempt to connect two places of the world, in virtual time and with the real machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crowline.ice.candidate import CandidateType
from crowline.ice.pair import ValidPair
from crowline.lab.impairment import Impairment
from crowline.lab.network import Packet
from crowline.lab.outcome import Kind, Outcome
from crowline.lab.profile import Profile
from crowline.lab.virtual import Internet
from crowline.lab.virtual_peer import VirtualPeer
from crowline.lab.virtual_server import VirtualServer
from crowline.lab.virtual_site import VirtualSite, build_site
from crowline.punch.obstacle import merit, obstacle
from crowline.punch.plan_choice import Way
from crowline.rendezvous.code import Code

# Seconds in which both sides must have come together; the hub's own limits are far longer.
MEETING_LIMIT = 60.0
# Seconds after both are there in which a better path may still be found: three checks of each pair, which
# leave at 0, 0.5 and 1.5 s (RFC 8489 §6.2.1), and two round trips. More on lines that lose much.
SETTLE = 2.0
# Seconds more for plans for hard NATs, as long as one of them may lead through: measuring, and two sprays.
PLAN_PATIENCE = 20.0
# Seconds more for a relay, where datagrams reach the server from both sides: on bad lines its set-up of five
# exchanges, some of them lost, takes longer than any check.
RELAY_PATIENCE = 10.0

# What a plan is called in reports.
_TECHNIQUES = {
    Way.LOW_TTL: "fresh ports",
    Way.PEER_FIRST: "fresh ports",
    Way.SAME_PORT: "fresh ports",
    Way.PREDICT_ONE: "prediction",
    Way.PREDICT_BOTH: "prediction",
    Way.SPRAY: "spray",
}
_WORST_FIRST: tuple[Kind, ...] = ("failed", "hub", "relay", "direct", "lan")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Distances in seconds one way, the share of packets lost between any two places, and what the two access
    lines do, each direction alike."""

    to_server: float = 0.01
    between: float = 0.02
    loss: float = 0.0
    line_a: Impairment | None = None
    line_b: Impairment | None = None


def virtual_attempt(
    a: Profile,
    b: Profile,
    seed: int = 0,
    *,
    geometry: Geometry | None = None,
    wait: float = 0.0,
    settle: float = SETTLE,
    observe: Callable[[float, Packet], None] | None = None,
) -> Outcome:
    """A host behind `a` gets a code; `wait` seconds later the other side, behind `b`, joins with it.

    The same arguments give the same packets at the same times. `observe` is told each of them as it leaves
    its host. The attempt ends when both use a direct path, or `settle` seconds after both were there, or as
    soon as there is a relay after that.
    """
    attempt = VirtualAttempt(a, b, seed, geometry=geometry, wait=wait, observe=observe)
    attempt.run(settle)
    return attempt.outcome()


class VirtualAttempt:
    """The internet of one attempt, the server, and the two sides: `peers`, the host first."""

    def __init__(
        self,
        a: Profile,
        b: Profile,
        seed: int = 0,
        *,
        geometry: Geometry | None = None,
        wait: float = 0.0,
        observe: Callable[[float, Packet], None] | None = None,
    ) -> None:
        geometry = geometry or Geometry()
        self._internet = Internet(seed, delay=geometry.between, loss=geometry.loss, observe=observe)
        self._server = VirtualServer(self._internet)
        self._wait = wait
        self._sites = (build_site(self._internet, a, 1), build_site(self._internet, b, 2))
        for site, line in zip(self._sites, (geometry.line_a, geometry.line_b), strict=True):
            self._internet.set_delay(site.place, self._server.host, geometry.to_server)
            if line is not None:
                self._internet.set_line(site.place, up=line, down=line)
        self.peers: list[VirtualPeer] = []
        self._have_met = self._is_over = self._is_linked = self._is_direct = False
        self.peers.append(self._peer(self._sites[0]))

    def pass_time(self, seconds: float) -> None:
        """What happens in so many seconds more."""
        self._internet.run(lambda: False, limit=seconds)

    def run(self, settle: float = SETTLE) -> None:
        """Until both use a direct path, or the time is over."""
        internet = self._internet
        internet.run(lambda: self._have_met or self._is_over, limit=self._wait + MEETING_LIMIT)
        if self._have_met:
            internet.run(lambda: self._is_direct, limit=settle)
            internet.run(lambda: self._is_direct or not self._has_hope(), limit=PLAN_PATIENCE)
            if any(peer.punching.adopted for peer in self.peers):
                internet.run(lambda: self._is_direct, limit=settle)
            if all(peer.reached_server_by_udp for peer in self.peers):
                internet.run(lambda: self._is_linked, limit=RELAY_PATIENCE)

    def outcome(self) -> Outcome:
        if len(self.peers) < 2 or any(peer.greeted is None for peer in self.peers):
            return Outcome("failed", reason=self._failure() or "no byte came through")
        kind = min((_kind_of(peer) for peer in self.peers), key=_WORST_FIRST.index)
        host = self.peers[0]
        pair = host.link.pair if host.link is not None else None
        return Outcome(
            kind,
            setup_ms=_latest([_since_present(peer, peer.usable) for peer in self.peers]),
            direct_ms=_latest([_since_present(peer, peer.direct) for peer in self.peers]),
            technique=kind if kind in ("hub", "relay") or pair is None else self._technique(pair),
            reason=self._reason(kind, pair),
        )

    def _peer(self, site: VirtualSite, code: Code | None = None) -> VirtualPeer:
        hub = self._server.address_for(site.addresses)
        return VirtualPeer(
            self._internet, site, hub, code=code, on_code=self._on_code, on_progress=self._look
        )

    def _on_code(self, code: Code) -> None:
        self._internet.call_at(self._internet.now + self._wait, lambda: self._join(code))

    def _join(self, code: Code) -> None:
        self.peers.append(self._peer(self._sites[1], code))

    def _look(self) -> None:
        """See how far the two have come."""
        peers = self.peers
        self._is_over = any(peer.failure for peer in peers)
        self._have_met = len(peers) == 2 and all(peer.present is not None for peer in peers)
        self._is_linked = all(peer.greeted is not None and peer.link is not None for peer in peers)
        self._is_direct = all(
            peer.greeted is not None and peer.link is not None and peer.link.category == "direct"
            for peer in peers
        )

    def _has_hope(self) -> bool:
        return len(self.peers) == 2 and any(peer.punching.is_hopeful for peer in self.peers)

    def _failure(self) -> str:
        return next((peer.failure for peer in self.peers if peer.failure), "")

    def _technique(self, pair: ValidPair) -> str:
        """By a plan, where one of its sockets carries the path."""
        way = self._plan_of(pair)
        return technique_of(pair) if way is None else _TECHNIQUES[way]

    def _plan_of(self, pair: ValidPair | None) -> Way | None:
        return None if pair is None else self.peers[0].punching.adopted.get(pair.base)

    def _reason(self, kind: Kind, pair: ValidPair | None) -> str:
        own, peer = (each.punching.summary for each in self.peers)
        if kind in ("lan", "direct") and pair is not None:
            return merit(pair, own, peer, self._plan_of(pair))
        if kind == "relay":
            return obstacle(own, peer)
        without = [
            site.profile.name
            for site, peer in zip(self._sites, self.peers, strict=True)
            if not peer.reached_server_by_udp
        ]
        if without:
            return f"no UDP reaches the server from {' and '.join(without)}"
        return "neither a direct nor a relayed path works"


def technique_of(pair: ValidPair) -> str:
    """What made a direct path: ``ipv6``, or the least of the two sides' candidate types."""
    if pair.local.address.is_ipv6:
        return "ipv6"
    types = {pair.local.type, pair.remote.type}
    for kind in (CandidateType.PEER_REFLEXIVE, CandidateType.SERVER_REFLEXIVE):
        if kind in types:
            return str(kind.value)
    return CandidateType.HOST.value


def _kind_of(peer: VirtualPeer) -> Kind:
    if peer.chosen is None:
        return "failed"
    if peer.link is None:
        return "hub"
    kind = peer.link.pair.kind
    return "relay" if kind == "relay" else "lan" if kind == "lan" else "direct"


def _since_present(peer: VirtualPeer, at: float | None) -> float | None:
    return None if at is None or peer.present is None else (at - peer.present) * 1000


def _latest(times: list[float | None]) -> float | None:
    """The later of both sides' times; ``None`` while one of them has none."""
    known = [time for time in times if time is not None]
    return round(max(known), 3) if len(known) == len(times) else None
