"""`crowline doctor` on hosts of the laboratory, by real sockets and tools: what it says of each place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from crowline.lab.bed import Bed
from crowline.lab.namespaces import Internet
from crowline.lab.presets import PRESETS
from crowline.lab.profile import PortMapping
from needs import needs_program

pytestmark = pytest.mark.kernel

Factory = Callable[..., Internet]

PATIENCE = 60.0  # seconds until a doctor that does not end is given up
# A measurement of two seconds on a busy machine may miss; a wrong diagnosis is wrong every time.
ATTEMPTS = 3

# The exit code and the key of the first fix.
DIAGNOSES = {
    "public": (0, ""),
    "home": (0, "router-mapping"),
    "full-cone": (0, ""),
    "address-restricted": (0, ""),
    "address-dependent": (0, "router-mapping"),
    "symmetric": (0, "router-mapping"),
    "symmetric-sequential": (0, "router-mapping"),
    "symmetric-block": (0, "provider-address"),
    "parity": (0, "router-mapping"),
    "hairpin": (0, "router-mapping"),
    "cgn": (0, "provider-address"),
    "cgn-symmetric": (0, "provider-address"),
    "mobile": (0, "router-mapping"),
    "short-lived": (0, "router-mapping"),
    "rst-sender": (0, "router-mapping"),
    "upnp-home": (0, ""),
    "ipv6-home": (0, "router-mapping"),
    "udp-blocked": (21, "network-udp"),
    "https-only": (21, "network-udp"),
    "proxy-only": (21, "network-udp"),
    "nat64": (0, ""),
}


class Clinic:
    """One internet with one server; hosts come to it one after the other."""

    def __init__(self, internet: Internet) -> None:
        self._internet = internet
        self._server = internet.server()
        self._first: Bed | None = None

    def bed(self, preset: str) -> Bed:
        """A host in such a place, as side a, and the server that is the same for all."""
        site = self._internet.site(preset)
        folder = self._internet.folder()
        if self._first is None:
            self._first = Bed(self._internet, folder, self._server, {"a": site})
            self._first.serve()
            return self._first
        return Bed(self._internet, folder, self._server, {"a": site}, self._first.servers)


def start(bed: Bed, *options: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "crowline", "doctor", "--timeout", "30", *options]
    return bed.spawn("a", argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    said, complaints = process.communicate(timeout=PATIENCE)
    assert said, complaints
    return process.returncode, json.loads(said)


def first_fix(said: dict[str, Any]) -> str:
    return said["fixes"][0]["key"] if said["fixes"] else ""


def examined(bed: Bed, is_right: Callable[[int, dict[str, Any]], bool]) -> tuple[int, dict[str, Any]]:
    """What the doctor says; it is asked again as long as that is not right."""
    for _ in range(ATTEMPTS):
        code, said = result(start(bed, "--json"))
        if is_right(code, said):
            break
    return code, said


# As many at a time as wait for silent routers together without crowding out each other's measurements.
NAMES = list(DIAGNOSES)
FOURS = [NAMES[first : first + 4] for first in range(0, len(NAMES), 4)]
# What the first routers on the way are, where there are two translators.
LAYERS = {"cgn": "44.100.", "cgn-symmetric": "100.64."}


@pytest.fixture
def clinic(internet: Factory) -> Clinic:
    return Clinic(internet("auto"))


@pytest.mark.parametrize("names", FOURS, ids="+".join)
def test_each_place_gets_its_verdict_and_its_first_fix(clinic: Clinic, names: Sequence[str]) -> None:
    """By the real server's two addresses, and whatever of a router answers."""
    if any(PRESETS[name].port_mapping is not PortMapping.NONE for name in names):
        needs_program("miniupnpd")
    beds = {name: clinic.bed(name) for name in names}
    running = {name: start(bed, "--json") for name, bed in beds.items()}
    for name, process in running.items():
        code, said = result(process)
        if (code, first_fix(said)) != DIAGNOSES[name]:
            code, said = examined(beds[name], lambda c, s, name=name: (c, first_fix(s)) == DIAGNOSES[name])
        assert (code, first_fix(said)) == DIAGNOSES[name], said
        assert (said["schema"], said["exit"]) == ("doctor/1", code)
        assert said["server"]["reached"] and not said["left_out"]
        assert said["captive_portal"]["found"] is (None if name == "proxy-only" else False)
        assert said["carrier_nat"] is (name in LAYERS or name == "symmetric-block")
        if name in LAYERS:
            assert said["hops"][0] == said["routers"][0]["gateway"]
            assert said["hops"][1].startswith(LAYERS[name])


def test_no_place_is_forgotten() -> None:
    """Whoever adds a preset says what the doctor is to say there."""
    assert set(DIAGNOSES) == set(PRESETS)


def test_a_firewall_of_the_host_that_blocks_udp_is_found_and_blamed(clinic: Clinic) -> None:
    """Its rules are read, and the command that is told does help."""
    nft = needs_program("nft")
    bed = clinic.bed("home")
    rules = "add table inet filter; add chain inet filter output { type filter hook output priority 0; }; "
    rules += "add rule inet filter output meta l4proto udp drop"
    assert bed.spawn("a", [nft, rules]).wait(PATIENCE) == 0
    code, said = result(start(bed, "--json"))
    assert (code, first_fix(said)) == (21, "local-firewall-out")
    assert said["firewalls"] == [{"name": "nftables", "inbound": "lets", "outbound": "blocks", "note": ""}]
    (command,) = said["fixes"][0]["commands"]
    assert command == "sudo nft insert rule inet filter output meta l4proto udp accept"
    assert bed.spawn("a", [nft, *command.split()[2:]]).wait(PATIENCE) == 0
    code, said = examined(bed, lambda code, _: code == 0)
    assert (code, said["firewalls"][0]["outbound"]) == (0, "lets")


def test_a_network_that_lets_out_few_ports_needs_a_relay(clinic: Clinic) -> None:
    """UDP to the server's first port answers, and packets to others do not get as far: nobody is reached."""
    nft = needs_program("nft")
    bed = clinic.bed("full-cone")
    rules = "add table inet filter; add chain inet filter output { type filter hook output priority 0; }; "
    rules += "add rule inet filter output udp dport { 1024-3477, 3479-65535 } drop; "
    rules += "add rule inet filter output tcp dport != 443 drop"
    assert bed.spawn("a", [nft, rules]).wait(PATIENCE) == 0
    code, said = examined(bed, lambda code, _: code == 20)
    assert (code, first_fix(said)) == (20, "network-udp-ports")
    assert said["udp_ports"] == {"answering": [3478], "silent": [3479], "leaves": False}


def test_a_path_for_small_packets_alone_is_found(clinic: Clinic) -> None:
    """The way out takes 1,100 bytes, as in a tunnel of tunnels, and the doctor says what still fits."""
    bed = clinic.bed("home")
    ip = needs_program("ip")
    assert bed.spawn("a", [ip, "link", "set", "eth0", "mtu", "1100"]).wait(PATIENCE) == 0
    _, said = examined(bed, lambda _, said: said["mtu"]["lost"] is not None)
    assert said["mtu"] == {"passed": 1000, "lost": 1228}
    assert first_fix(said) == "mtu"


def test_without_a_server_it_is_said_at_once_and_the_rest_is_told_all_the_same(clinic: Clinic) -> None:
    """Exit code 22; a person reads why on standard error, and nothing is on standard output."""
    bed = clinic.bed("home")
    bed.servers["crowline"].kill()
    process = start(bed)
    said, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (22, "")
    assert "Verdict    No server can be reached." in complaints
    assert "Router     192.168.1.1" in complaints
