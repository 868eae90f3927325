"""Whether a router has started anew, told by what it says to everybody."""

from __future__ import annotations

from crowline.portmap.upnp.ssdp import SsdpAnswer, SsdpNotice, is_about_gateways

RESTART_GAP = 5.0
"""Seconds between two restarts that are believed: notices can be made up by any host of the network."""

MAX_DEVICES = 16
"""Devices and services of one box whose restarts are counted; a gateway announces itself as a handful."""


class Restarts:
    """A router is several devices, each of which counts its own restarts. Only what opens ports matters: its
    media server may come and go as it likes.
    """

    def __init__(self) -> None:
        self._boots: dict[str, int] = {}
        self._has_gone = False
        self._believed_at: float | None = None

    def answered(self, answer: SsdpAnswer) -> None:
        """It is there, as said to a search."""
        self._note(answer.usn, answer.target, answer.boot)

    def noticed(self, notice: SsdpNotice, now: float) -> bool:
        """It is there or goes, as said to everybody: whether it started anew, as far as that is believed."""
        if not is_about_gateways(notice.target):
            return False
        if notice.location is None:
            self._has_gone = True
            return False
        is_new = self._note(notice.usn, notice.target, notice.boot) or self._has_gone
        self._has_gone = False
        return is_new and self.may_believe(now)

    def may_believe(self, now: float) -> bool:
        """Whether enough time has passed since something was believed the last time."""
        if self._believed_at is not None and now < self._believed_at + RESTART_GAP:
            return False
        self._believed_at = now
        return True

    def _note(self, usn: str, target: str, boot: int | None) -> bool:
        """Whether that device has another number than before."""
        if boot is None or not is_about_gateways(target):
            return False
        before = self._boots.get(usn)
        if before is not None or len(self._boots) < MAX_DEVICES:
            self._boots[usn] = boot
        return before is not None and before != boot
