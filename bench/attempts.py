"""How many complete attempts to connect the virtual world makes in a second of one core.

Each has two meetings through the hub, STUN, TURN, ICE, links and a session, from the first SYN to the first
byte on the best path.
"""

from __future__ import annotations

import time

from crowline.lab.population import load_population
from crowline.lab.population_run import PopulationAttempt
from crowline.lab.presets import PRESETS
from crowline.lab.virtual_attempt import virtual_attempt

PAIRS = (("home", "home"), ("ipv6-home", "ipv6-home"), ("home", "symmetric"), ("home", "udp-blocked"))
ATTEMPTS = 150
DRAWN = 600


def main() -> None:
    virtual_attempt(PRESETS["home"], PRESETS["home"])
    for a, b in PAIRS:
        start = time.process_time()
        kinds = {virtual_attempt(PRESETS[a], PRESETS[b], seed).kind for seed in range(ATTEMPTS)}
        spent = time.process_time() - start
        print(f"{a} × {b}: {ATTEMPTS / spent:.0f} attempts/s ({', '.join(sorted(kinds))})")
    attempt = PopulationAttempt(load_population(), 1)
    start = time.process_time()
    direct = sum(attempt(number).outcome.is_direct for number in range(DRAWN))
    spent = time.process_time() - start
    print(f"the population: {DRAWN / spent:.0f} attempts/s ({direct / DRAWN:.0%} direct)")


if __name__ == "__main__":
    main()
