"""The worlds in which a matrix can be tried, behind one face."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from crowline.base.errors import LocalProblem
from crowline.lab.demo_stage import missing_for_namespaces
from crowline.lab.kernel_attempt import OUR_PATIENCE, kernel_attempt, peer_attempt
from crowline.lab.outcome import Outcome
from crowline.lab.peer_script import PATIENCE, command
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Profile
from crowline.lab.trial import Trial
from crowline.lab.virtual_attempt import Geometry, virtual_attempt

_WITHOUT_KERNEL = (
    "The virtual world works everywhere (--world virtual); the kernel world needs root on Linux with TUN and "
    "iproute2, and nftables where Linux itself is to be the NAT."
)


class World(Protocol):
    """Makes attempts between places. Objects can be pickled, so that workers may have their own."""

    @property
    def default_runs(self) -> int:
        """How many attempts of a pair are worth their time here."""

    def parameters(self) -> dict[str, Any]:
        """What the results depend on, beside the program and the places."""

    def attempt(self, trial: Trial) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class VirtualWorld:
    """Virtual time: the same seed gives the same outcomes. `rtt`: seconds between the two hosts and back."""

    seed: int = 1
    rtt: float = 0.04
    places: Mapping[str, Profile] = field(default_factory=lambda: PRESETS)

    default_runs: ClassVar[int] = 5

    def parameters(self) -> dict[str, Any]:
        return {"seed": self.seed, "rtt_ms": round(self.rtt * 1e3, 3)}

    def attempt(self, trial: Trial) -> Outcome:
        geometry = Geometry(to_server=self.rtt / 4, between=self.rtt / 2)
        a, b = self.places[trial.a], self.places[trial.b]
        return virtual_attempt(a, b, trial.seed(self.seed), geometry=geometry)


@dataclass(frozen=True, slots=True)
class KernelWorld:
    """Namespaces, and real programs in them: Crowline, or those of a peer script. `rtt` as above.

    `patience`: seconds that an attempt may take; by default what such a program may need.
    """

    rtt: float = 0.04
    places: Mapping[str, Profile] = field(default_factory=lambda: PRESETS)
    peer: Path | None = None
    patience: float | None = None

    default_runs: ClassVar[int] = 1

    def parameters(self) -> dict[str, Any]:
        about: dict[str, Any] = {"rtt_ms": round(self.rtt * 1e3, 3)}
        if self.peer is not None:
            about["script"] = hashlib.sha256(self.peer.read_bytes()).hexdigest()[:12]
        return about

    def check(self) -> None:
        """Raise `LocalProblem` where this machine cannot have this world or start this script."""
        if self.peer is not None:
            command(self.peer, "server")
        require_kernel()

    def attempt(self, trial: Trial) -> Outcome:
        a, b = self.places[trial.a], self.places[trial.b]
        if self.peer is None:
            return kernel_attempt(a, b, rtt=self.rtt, patience=self.patience or OUR_PATIENCE)
        return peer_attempt(a, b, self.peer, rtt=self.rtt, patience=self.patience or PATIENCE)


def require_kernel() -> None:
    """Raise `LocalProblem`, which says what works all the same, where no namespaces can be made."""
    if reason := missing_for_namespaces():
        raise LocalProblem(f"The kernel world cannot be built: {reason}.", hint=_WITHOUT_KERNEL)
