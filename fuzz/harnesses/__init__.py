"""All harnesses by name."""

from __future__ import annotations

from fuzz.harness import Harness
from fuzz.harnesses import (
    chat,
    doctor,
    files,
    flows,
    forwarding,
    hub,
    ice,
    lab,
    serverless,
    sessions,
    settings,
    stun,
    turn,
)

HARNESSES: dict[str, Harness] = {
    harness.name: harness
    for part in (
        stun,
        turn,
        ice,
        hub,
        sessions,
        files,
        flows,
        settings,
        lab,
        doctor,
        serverless,
        chat,
        forwarding,
    )
    for harness in part.HARNESSES
}
