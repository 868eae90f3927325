"""All harnesses by name."""

from __future__ import annotations

from fuzz.harness import Harness
from fuzz.harnesses import files, hub, ice, lab, sessions, settings, stun, turn

HARNESSES: dict[str, Harness] = {
    harness.name: harness
    for part in (stun, turn, ice, hub, sessions, files, settings, lab)
    for harness in part.HARNESSES
}
