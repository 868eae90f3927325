"""Datagrams for peers whose permission is on its way: the server would drop them (RFC 8656 §11.2)."""

from __future__ import annotations

from crowline.base.machine import Transmit

# Datagrams that wait at once: a few checks for each of a few peers.
MAX_HELD = 32


class HeldDatagrams:
    """Knows what the server has answered about each peer's host, and keeps what waits for an answer."""

    def __init__(self) -> None:
        self._granted: dict[str, bool] = {}
        self._held: list[Transmit] = []

    def admit(self, transmit: Transmit) -> bool:
        """Whether to send it now. One that must wait is kept, one for a refused peer is dropped."""
        granted = self._granted.get(transmit.destination.host)
        if granted is None and len(self._held) < MAX_HELD:
            self._held.append(transmit)
        return bool(granted)

    def answered(self, host: str, granted: bool) -> list[Transmit]:
        """The server's answer about the peers at `host`; what may be sent now."""
        self._granted[host] = granted
        waiting = [transmit for transmit in self._held if transmit.destination.host == host]
        self._held = [transmit for transmit in self._held if transmit.destination.host != host]
        return waiting if granted else []
