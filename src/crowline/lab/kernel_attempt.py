"""One complete attempt to connect two places of the world, with real programs in network namespaces."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crowline.lab.bed import STUN_PORT, Bed, build_bed
from crowline.lab.outcome import Outcome
from crowline.lab.peer_script import PATIENCE, Role, Spawn, Surroundings, run_script
from crowline.lab.profile import Profile

# A program of its own, which uses what people import: the laboratory itself stays below the public API.
_OURS = Path(__file__).with_name("crowline_peer.py")

RTT = 0.04  # seconds between the two hosts and back
# Seconds that an attempt of ours may take: plans that have missed are tried again after a rest.
OUR_PATIENCE = 75.0
_ROLES: tuple[Role, ...] = ("server", "a", "b")


def kernel_attempt(a: Profile, b: Profile, *, rtt: float = RTT, patience: float = OUR_PATIENCE) -> Outcome:
    """Crowline behind `a` opens a room, Crowline behind `b` joins it, and both look for their best path.

    `rtt` in seconds between the two hosts; each is half as far from the server. Raises `LocalProblem` where
    this machine cannot build the places; everything else that goes wrong is in the outcome.
    """
    # The folder of our own script is not where Python should look for the standard library.
    ours = {"PYTHONSAFEPATH": "1"}
    outcome = _attempt(a, b, _OURS, rtt, patience, ours)
    # Public hosts leave it to the other side to say what it is behind.
    return outcome if outcome.technique or not outcome.is_direct else replace(outcome, technique="host")


def peer_attempt(
    a: Profile, b: Profile, script: Path, *, rtt: float = RTT, patience: float = PATIENCE
) -> Outcome:
    """The same with a foreign program: `lab/peer_script.py` says what its script is told and must answer."""
    return _attempt(a, b, script, rtt, patience, {})


def _attempt(
    a: Profile, b: Profile, script: Path, rtt: float, patience: float, more: Mapping[str, str]
) -> Outcome:
    with build_bed(a, b, rtt=rtt) as bed:
        work = bed.internet.folder()
        bed.serve()
        surroundings = Surroundings(
            bed.folder,
            bed.server.addresses,
            {role: bed.host(role).addresses for role in ("a", "b")},
            f"{bed.server.addresses[0]}:{STUN_PORT}",
            bed.facts("server")["CROWLINE_LAB_URL"],
            patience,
        )
        return run_script(script, {role: _spawn(bed, role, more) for role in _ROLES}, surroundings, work)


def _spawn(bed: Bed, role: Role, more: Mapping[str, str]) -> Spawn:
    """Starts processes there; addresses that this host cannot reach are replaced by those that it can."""

    def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        environment = {**options.pop("env"), **more}
        return bed.spawn(role, argv, env=environment, **options)

    return spawn
