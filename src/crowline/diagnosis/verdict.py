"""The one word that a script acts on."""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What is to be expected with somebody of whom nothing is known."""

    DIRECT_LIKELY = "direct-likely"
    RELAY_NEEDED = "relay-needed"
    UDP_BLOCKED = "udp-blocked"
    NO_SERVER = "no-server"

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Verdict.DIRECT_LIKELY: 0,
    Verdict.RELAY_NEEDED: 20,
    Verdict.UDP_BLOCKED: 21,
    Verdict.NO_SERVER: 22,
}
