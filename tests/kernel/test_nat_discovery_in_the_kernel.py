"""What discovery says of each place, with real sockets through real translators, our server and coturn."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from socket import SOCK_STREAM, socket

import pytest

from crowline.base.addresses import Address
from crowline.base.nat64 import Nat64Prefix
from crowline.lab import behaviour
from crowline.lab.boundary import embedded
from crowline.lab.demo_stage import STUN_PORT, serve_on
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host, Site
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Firewall, Ipv6, Profile
from crowline.net.nat_discovery import discover_nat
from crowline.punch.nat_profile import AllocationPattern, Facet, Filtering, Hairpinning, Mapping, NatProfile
from crowline.punch.nat_profile import Reason as Why
from needs import needs_program

Factory = Callable[..., Internet]

PREFIX = Nat64Prefix.parse("64:ff9b::/96")
PATIENCE = 30.0  # seconds until a server must listen
TRIES = 4  # a busy machine may keep an answer for longer than a filter is listened at
AT_ONCE = 3  # places that are measured at the same time: each is behind translators of its own

MAPPINGS = list(behaviour.Mapping)
FILTERINGS = list(behaviour.Filtering)
PATTERNS = {
    behaviour.AllocationKind.PRESERVING: AllocationPattern.PRESERVING,
    behaviour.AllocationKind.SEQUENTIAL: AllocationPattern.SEQUENTIAL,
    behaviour.AllocationKind.BLOCK: AllocationPattern.BLOCK,
    behaviour.AllocationKind.RANDOM: AllocationPattern.RANDOM,
    behaviour.AllocationKind.PARITY: AllocationPattern.PARITY,
}


def start_ours(net: Internet, server: Host, folder: Path) -> None:
    """With a second address, as `serve --alternate-address` has it."""
    serve_on(net, server, folder)


def start_coturn(net: Internet, server: Host, folder: Path) -> None:
    """The one that everybody runs: with two addresses it does RFC 5780."""
    argv = [needs_program("turnserver"), "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file", os.devnull]
    hosts = ["-L", server.addresses[0], "-L", server.addresses[1], "-p", str(STUN_PORT)]
    files = ["--pidfile", str(folder / "turn.pid"), "--userdb", str(folder / "turn.db")]
    net.spawn(server, [*argv, *hosts, *files], stdout=subprocess.DEVNULL)
    await_listening(net, server)


def await_listening(net: Internet, server: Host) -> None:
    deadline = time.monotonic() + PATIENCE
    while not net.inside(server, lambda: _accepts(server.addresses[0])):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _accepts(host: str) -> bool:
    with closing(socket(type=SOCK_STREAM)) as probe:
        return probe.connect_ex((host, STUN_PORT)) == 0


def measure(net: Internet, site: Site, server: Host) -> NatProfile:
    """Ask from the first host of that site."""
    address, prefix = Address(server.addresses[0], STUN_PORT), None
    if site.profile.ipv6 is Ipv6.NAT64:
        address, prefix = embedded(address), PREFIX
    return net.inside(site.hosts[0], lambda: asyncio.run(discover_nat([address], prefix=prefix)))


def described(profile: Profile) -> tuple[Mapping, Filtering, Hairpinning, AllocationPattern]:
    """The strictest layer's mapping and filtering; the outermost one turns packets round, and gives ports."""
    if not profile.nats:
        return Mapping.NONE, Filtering.ENDPOINT_INDEPENDENT, Hairpinning.UNKNOWN, AllocationPattern.UNKNOWN
    mapping = Mapping(max((nat.mapping for nat in profile.nats), key=MAPPINGS.index).value)
    filtering = Filtering(max((nat.filtering for nat in profile.nats), key=FILTERINGS.index).value)
    hairpin = Hairpinning.UNKNOWN
    if mapping is Mapping.ENDPOINT_INDEPENDENT:
        hairpin = Hairpinning(profile.nats[-1].hairpin.value)
    return mapping, filtering, hairpin, PATTERNS[profile.nats[-1].allocation.kind]


def seen(profile: NatProfile) -> tuple[Mapping, Filtering, Hairpinning, AllocationPattern]:
    return profile.mapping, profile.filtering, profile.hairpinning, profile.ports.kind


def is_right(profile: NatProfile, place: Profile) -> bool:
    """UDP as it is described, and TCP, which all these places treat alike."""
    tcp = profile.tcp
    assert tcp is not None
    mapping, _, hairpinning, ports = described(place)
    # Six random ports all keep the parity once in 64 times.
    patterns = {ports, AllocationPattern.PARITY} if ports is AllocationPattern.RANDOM else {ports}
    tcp_is_right = tcp.mapping is mapping and tcp.hairpinning is hairpinning and tcp.ports.kind in patterns
    if place.firewall is Firewall.UDP_BLOCKED:
        return not profile.answers and tcp_is_right
    if place.firewall is not Firewall.NONE:
        return not profile.answers and not tcp.answers
    return seen(profile) == described(place) and tcp_is_right


@pytest.mark.parametrize("start", [start_ours, pytest.param(start_coturn, marks=pytest.mark.peer)])
def test_every_place_is_recognised(
    internet: Factory, tmp_path: Path, start: Callable[[Internet, Host, Path], None]
) -> None:
    """Mapping, filtering, hairpinning and ports for UDP, and all but filtering for TCP: as described."""
    net = internet()
    server = net.server()
    start(net, server, tmp_path)
    sites = [net.site(preset) for preset in PRESETS]

    def until_right(site: Site) -> NatProfile:
        for _ in range(TRIES):
            profile = measure(net, site, server)
            if is_right(profile, site.profile):
                break
        return profile

    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = dict(zip(PRESETS, threads.map(until_right, sites), strict=True))
    wrong = {name: each.words() for name, each in found.items() if not is_right(each, PRESETS[name])}
    assert wrong == {}


def test_one_address_and_two_ports_tell_the_mapping_apart(internet: Factory, tmp_path: Path) -> None:
    """As far as a server without options can: what varies by ports is known, the rest is the likeliest."""
    net = internet()
    server = net.server(addresses=1)
    argv = ["--listen", f"{server.addresses[0]}:8080", "--stun-listen", f"{server.addresses[0]}:{STUN_PORT}"]
    sites = [net.site(preset) for preset in ("home", "symmetric")]
    command = [sys.executable, "-m", "crowline", "serve", *argv]
    settings = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    net.spawn(server, command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await_listening(net, server)

    def until_the_mapping_is_known(site: Site) -> NatProfile:
        for _ in range(TRIES):
            profile = measure(net, site, server)
            if profile.mapping is not Mapping.UNKNOWN:
                break
        return profile

    home, symmetric = map(until_the_mapping_is_known, sites)
    for profile in (home, symmetric):
        assert profile.unknown[Facet.FILTERING] is Why.ONE_ADDRESS
    assert (home.mapping, home.unknown[Facet.MAPPING]) == (Mapping.ENDPOINT_INDEPENDENT, Why.ONE_ADDRESS)
    assert symmetric.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT
    assert Facet.MAPPING not in symmetric.unknown


def test_mapping_and_ports_are_said_before_the_end(internet: Factory, tmp_path: Path) -> None:
    """While silence is still listened to; the end confirms them."""
    net = internet()
    server, site = net.server(), net.site("symmetric-sequential")
    start_ours(net, server, tmp_path)
    address = Address(server.addresses[0], STUN_PORT)
    early: list[NatProfile] = []

    def foresee() -> NatProfile:
        early.clear()
        return asyncio.run(discover_nat([address], tcp=False, on_early=early.append))

    for _ in range(TRIES):
        final = net.inside(site.hosts[0], foresee)
        # A sample that was late is in the end's ports alone.
        if early and early[0].ports == final.ports:
            break
    (first,) = early
    assert (first.mapping, first.ports) == (final.mapping, final.ports)
    assert first.unknown[Facet.FILTERING] is Why.STILL_ASKED
    assert first.summary() == final.summary()
