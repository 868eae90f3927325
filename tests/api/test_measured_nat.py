"""Which servers are asked for the NAT, by which family, and what is asked at all."""

from __future__ import annotations

from typing import Any

import pytest

from crowline.api import measured_nat as module
from crowline.api.measured_nat import measured_nat
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, ServerUnreachable
from crowline.base.nat64 import Nat64Prefix
from crowline.punch.nat_profile import Lifetimes, NatProfile
from crowline.stun.nat_findings import Findings, Sample

PREFIX = Nat64Prefix.parse("64:ff9b::/96")
OLD, NEW = "192.0.2.1", "2001:db8::1"
OWN = "2001:db8:7::2"
SERVERS: list[tuple[str, int | None]] = [(NEW, None), (OLD, 5000)]


class Network:
    """What this machine can reach, and what was asked of it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, families: set[str], prefix: Nat64Prefix | None
    ) -> None:
        self.asked: list[tuple[list[Address], Nat64Prefix | None]] = []
        self.lifetimes = 0
        self.answers = True

        class Discovery:
            async def prefixes(self) -> tuple[Nat64Prefix, ...]:
                return () if prefix is None else (prefix,)

            def close(self) -> None:
                """Nothing is open."""

        def source(server: Address) -> str | None:
            return "own" if ("6" if server.is_ipv6 else "4") in families else None

        async def discover(servers: list[Address], prefix: Nat64Prefix | None) -> NatProfile:
            self.asked.append((servers, prefix))
            sample = Sample(Address(OWN, 5), Address(OWN, 5), 0.0)
            return NatProfile.of(Findings(servers[0], samples=(sample,) if self.answers else ()))

        async def measure(servers: list[Address], prefix: Nat64Prefix | None) -> Lifetimes:
            self.lifetimes += 1
            return Lifetimes(alive=25.0)

        replaced: dict[str, Any] = {
            "source_towards": source,
            "discover_nat": discover,
            "measure_lifetimes": measure,
            "Nat64Discovery": Discovery,
            "local_addresses": lambda: [OWN] if "6" in families else ["192.0.2.7"],
        }
        for name, value in replaced.items():
            monkeypatch.setattr(module, name, value)


async def test_ipv4_is_asked_where_there_is_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """NATs are of IPv4, whatever else there is."""
    network = Network(monkeypatch, families={"4", "6"}, prefix=PREFIX)
    await measured_nat(SERVERS)
    assert network.asked == [([Address(OLD, 5000)], None)]


async def test_a_nat64_is_a_way_to_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers are written as they are reached, and the prefix says how."""
    network = Network(monkeypatch, families={"6"}, prefix=PREFIX)
    await measured_nat(SERVERS)
    assert network.asked == [([Address(PREFIX.synthesize(OLD), 5000)], PREFIX)]


async def test_ipv6_is_asked_where_nothing_else_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its firewall shows."""
    network = Network(monkeypatch, families={"6"}, prefix=None)
    await measured_nat(SERVERS)
    assert network.asked == [([Address(NEW, 3478)], None)]


@pytest.mark.parametrize(("ipv6", "host"), [(False, OLD), (True, NEW)])
async def test_the_family_can_be_chosen(monkeypatch: pytest.MonkeyPatch, ipv6: bool, host: str) -> None:
    """As `-4` and `-6` do."""
    network = Network(monkeypatch, families={"4", "6"}, prefix=None)
    await measured_nat(SERVERS, ipv6=ipv6)
    ((servers, _),) = network.asked
    assert [each.host for each in servers] == [host]


async def test_a_family_that_no_server_has_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent."""
    network = Network(monkeypatch, families={"4", "6"}, prefix=None)
    with pytest.raises(ServerUnreachable, match="no IPv6 address"):
        await measured_nat([(OLD, None)], ipv6=True)
    assert network.asked == []


async def test_a_machine_without_any_way_is_a_local_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is offline, or has the wrong family."""
    Network(monkeypatch, families=set(), prefix=None)
    with pytest.raises(LocalProblem):
        await measured_nat(SERVERS)


@pytest.mark.parametrize(
    ("wanted", "answers", "times"), [(True, True, 1), (True, False, 0), (False, True, 0)]
)
async def test_lifetimes_are_measured_where_they_are_wanted_and_somebody_answers(
    monkeypatch: pytest.MonkeyPatch, wanted: bool, answers: bool, times: int
) -> None:
    """They take minutes."""
    network = Network(monkeypatch, families={"4"}, prefix=None)
    network.answers = answers
    profile = await measured_nat(SERVERS, lifetimes=wanted)
    assert network.lifetimes == times
    assert profile.lifetimes.alive == (25.0 if times else None)
