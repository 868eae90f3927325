"""How sure one may be of a share that was seen in a sample."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations


def wilson(hits: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval (1927) of a share: right also for few trials and for shares near 0 and 1."""
    if trials == 0:
        return 0.0, 1.0
    share = hits / trials
    spread = z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    low = 0.0 if hits == 0 else middle - half
    return low, 1.0 if hits == trials else middle + half
