"""How often the NAT in front of a host is measured rightly, how fast, and with how many packets.

    python bench/nat_profile.py [--runs N]

In virtual time: every place of the laboratory, a server with two addresses 20 ms away, three shares of lost
packets. Right is a profile whose mapping, filtering, hairpinning and pattern of ports are as described.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.nat64 import Nat64Prefix
from crowline.lab import behaviour
from crowline.lab.boundary import embedded
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Firewall, Ipv6, Profile
from crowline.lab.virtual import Internet
from crowline.lab.virtual_server import STUN_PORT, VirtualServer
from crowline.lab.virtual_site import build_site
from crowline.punch.nat_profile import AllocationPattern, Filtering, Hairpinning, Mapping, NatProfile
from crowline.stun.nat_discovery import BasesWanted, Discovered, DiscoveryEvent, NatDiscovery

LOSSES = (0.0, 0.01, 0.03)
PREFIX = Nat64Prefix.parse("64:ff9b::/96")
_MAPPINGS = list(behaviour.Mapping)
_FILTERINGS = list(behaviour.Filtering)


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement: what is not as it is described, and what it took."""

    wrong: tuple[str, ...]
    seconds: float
    packets: int


class Counted:
    """A discovery whose packets are counted."""

    def __init__(self, inner: NatDiscovery) -> None:
        self.inner = inner
        self.sent = 0

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        self.inner.receive(data, source, now, local)

    def handle_timeout(self, now: float) -> None:
        self.inner.handle_timeout(now)

    def next_timeout(self) -> float | None:
        return self.inner.next_timeout()

    def next_transmit(self) -> Transmit | None:
        transmit = self.inner.next_transmit()
        self.sent += transmit is not None
        return transmit

    def next_event(self) -> DiscoveryEvent | None:
        return self.inner.next_event()


def measure(place: Profile, seed: int, loss: float) -> Run:
    """One host behind such a place asks the server."""
    internet = Internet(seed, loss=loss)
    server = VirtualServer(internet)
    site = build_site(internet, place, 1)
    asked, prefix = Address(server.ipv4, STUN_PORT), None
    if place.ipv6 is Ipv6.NAT64:
        asked, prefix = embedded(asked), PREFIX
    own = site.address_like(asked.host)
    assert own is not None
    machine = Counted(NatDiscovery(asked, entropy=internet.random.randbytes, prefix=prefix))
    wanted = machine.next_event()
    assert isinstance(wanted, BasesWanted)
    node = internet.attach(machine)
    bases = tuple(Address(own, port) for port in internet.random.sample(range(20000, 60000), wanted.count))
    for base in bases:
        internet.bind(node, site.host, base)
    machine.inner.start(bases, internet.now)
    internet.poke(node)
    internet.run(lambda: bool(node.events), limit=10.0)
    ((time, event),) = node.events
    assert isinstance(event, Discovered)
    return Run(wrong_facets(place, NatProfile.of(event.findings)), time, machine.sent)


def wrong_facets(place: Profile, found: NatProfile) -> tuple[str, ...]:
    """What is not as the strictest layer, and for hairpins and ports the outermost one, is described."""
    if place.firewall is not Firewall.NONE:
        return ("answers",) if found.answers else ()
    mapping, filtering = Mapping.NONE, Filtering.ENDPOINT_INDEPENDENT
    hairpin, ports = Hairpinning.UNKNOWN, AllocationPattern.UNKNOWN
    if place.nats:
        mapping = Mapping(max((nat.mapping for nat in place.nats), key=_MAPPINGS.index).value)
        filtering = Filtering(max((nat.filtering for nat in place.nats), key=_FILTERINGS.index).value)
        ports = AllocationPattern(place.nats[-1].allocation.kind.value)
        if mapping is Mapping.ENDPOINT_INDEPENDENT:
            hairpin = Hairpinning(place.nats[-1].hairpin.value)
    checks = {
        "mapping": found.mapping is mapping,
        "filtering": found.filtering is filtering,
        "hairpinning": found.hairpinning is hairpin,
        "ports": found.ports.kind is ports,
    }
    return tuple(name for name, is_right in checks.items() if not is_right)


def share(answers: Iterable[bool]) -> str:
    known = list(answers)
    return f"{100 * sum(known) / len(known):.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="of each place and each share of lost packets")
    runs_each = parser.parse_args().runs
    facets = ("mapping", "filtering", "hairpinning", "ports")
    print(f"| lost | runs | all right | {' | '.join(facets)} | median | longest | packets |")
    print("| ---: " * (len(facets) + 6) + "|")
    for loss in LOSSES:
        runs = [measure(place, seed, loss) for place in PRESETS.values() for seed in range(runs_each)]
        right = [share(name not in run.wrong for run in runs) for name in facets]
        times = [run.seconds for run in runs]
        print(
            f"| {loss:.0%} | {len(runs)} | {share(not run.wrong for run in runs)} | {' | '.join(right)} "
            f"| {statistics.median(times):.2f} s | {max(times):.2f} s | {max(run.packets for run in runs)} |"
        )


if __name__ == "__main__":
    main()
