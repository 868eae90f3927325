"""When the steps of a meeting happened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """Seconds of the loop's clock: the hub's word that both are there, the first byte that could be sent,
    the first direct path in use."""

    present: float | None = None
    usable: float | None = None
    direct: float | None = None

    @property
    def setup_ms(self) -> float | None:
        return _milliseconds(self.present, self.usable)

    @property
    def direct_ms(self) -> float | None:
        return _milliseconds(self.present, self.direct)


def _milliseconds(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else (end - start) * 1000
