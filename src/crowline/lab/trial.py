"""One attempt that is to be made: between which places in the world, and which one of several."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Trial:
    """`a` and `b` name the presets of the side that hosts and of the side that joins; `number` counts the
    attempts of that pair from 0."""

    a: str
    b: str
    number: int = 0

    def seed(self, base: int) -> int:
        """A seed of 63 bits for this attempt, which no other attempt of the run changes."""
        text = f"{base}/{self.a}/{self.b}/{self.number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
