"""What two sides found out together: the answer to "can we two connect, and if not, why?"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crowline.diagnosis.pair_messages import SideFacts, SideResult
from crowline.diagnosis.pair_trial import PairTrial

SCHEMA = "doctor/1"


@dataclass(frozen=True, slots=True)
class Measure:
    """One path as it was measured. `rtt` is in seconds, `loss` a share of 1, `up` and `down` bytes a second.

    Each is None where it was not measured: loss over a stream, rates beside the path in use.
    """

    kind: str
    transport: str
    local: str
    remote: str
    reason: str
    rtt: float | None = None
    loss: float | None = None
    up: float | None = None
    down: float | None = None

    @property
    def is_direct(self) -> bool:
        return self.kind in ("direct", "lan")

    def to_fields(self) -> dict[str, Any]:
        """Plain values for JSON; rates in bytes a second."""
        return {
            "kind": self.kind,
            "transport": self.transport,
            "local": self.local,
            "remote": self.remote,
            "rtt_ms": _rounded(self.rtt, 1000, 1),
            "loss": _rounded(self.loss, 1, 4),
            "up": _rounded(self.up, 1, 0),
            "down": _rounded(self.down, 1, 0),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class PairReport:
    """`best` is the path in use at the end, `relay` the relayed one beside it. `obstacle` says why there is
    no direct path, "" where there is one. Times are in milliseconds from the moment when both were there.
    """

    own: SideFacts
    peer: SideFacts
    trials: tuple[PairTrial, ...]
    best: Measure | None
    relay: Measure | None
    obstacle: str
    setup_ms: float | None
    direct_ms: float | None
    peer_result: SideResult = field(default_factory=SideResult)

    @property
    def result(self) -> SideResult:
        """What the other side is told of this one's trials."""
        tried = sum(trial.was_tried for trial in self.trials)
        return SideResult(tried, sum(trial.works for trial in self.trials))

    @property
    def is_direct(self) -> bool:
        return self.best is not None and self.best.is_direct

    @property
    def verdict(self) -> str:
        """``direct``, ``relay`` or ``server``."""
        if self.best is None or self.best.kind == "hub":
            return "server"
        return "direct" if self.is_direct else "relay"

    @property
    def exit_code(self) -> int:
        """0 direct · 20 through a relay or the server · 21 the same, and no UDP gets out here."""
        if self.is_direct:
            return 0
        return 20 if self.own.has_udp else 21

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        if self.is_direct:
            return "You two connect directly."
        way = "a relay" if self.verdict == "relay" else "the server's own connection"
        return f"You two connect through {way} only: {self.obstacle}."

    def to_fields(self) -> dict[str, Any]:
        """The body of the JSON object."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "exit": self.exit_code,
            "obstacle": self.obstacle,
            "you": _side(self.own),
            "peer": _side(self.peer),
            "pairs": [_trial(trial) for trial in self.trials],
            "peer_tried": self.peer_result.tried,
            "peer_worked": self.peer_result.worked,
            "best": None if self.best is None else self.best.to_fields(),
            "relay": None if self.relay is None else self.relay.to_fields(),
            "setup_ms": _rounded(self.setup_ms, 1, 1),
            "direct_ms": _rounded(self.direct_ms, 1, 1),
        }


def _side(side: SideFacts) -> dict[str, Any]:
    return {
        "verdict": side.verdict,
        "nat": side.nat,
        "mapping": side.mapping.lower(),
        "filtering": side.filtering.lower(),
        "ports": side.ports.lower(),
        "tcp_mapping": side.tcp_mapping.lower(),
        "udp": side.has_udp,
        "ipv6": side.has_ipv6,
        "double_nat": side.is_double,
        "routers": list(side.routers),
        "firewall": side.firewall,
    }


def _trial(trial: PairTrial) -> dict[str, Any]:
    return {
        "local": str(trial.local),
        "local_type": trial.local_type.value,
        "base": str(trial.base),
        "remote": str(trial.remote),
        "remote_type": trial.remote_type.value,
        "transport": trial.transport.value,
        "result": trial.result.name.lower(),
        "after_ms": _rounded(trial.after, 1000, 1),
        "rtt_ms": _rounded(trial.rtt, 1000, 1),
        "reason": trial.reason,
    }


def _rounded(value: float | None, scale: float, digits: int) -> float | None:
    return None if value is None else round(value * scale, digits)
