"""Real programs send real files through real translators, and say truthfully by which way."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from certificates import self_signed
from crowline.lab.demo_files import make_file, make_folder
from crowline.lab.demo_stage import WEB_PORT, Seat, seat, serve_on
from crowline.lab.demo_transfer import Result, transfer
from crowline.lab.namespaces import Internet
from crowline.lab.profile import Ipv6
from places import with_ipv6

Factory = Callable[..., Internet]

MEBIBYTE = 1 << 20
HUB_BUDGET = 4 * MEBIBYTE  # what link zero carries of one meeting
TRANSLATORS = pytest.mark.parametrize("translator", ["kernel", "user"])


def send_file(
    net: Internet,
    left: Seat,
    right: Seat,
    folder: Path,
    size: int,
    options: tuple[str, ...] = (),
    serve_options: tuple[str, ...] = (),
    web_port: int = WEB_PORT,
) -> Result:
    """One file of that size from left to right by a server of this internet."""
    source = folder / "holiday.mov"
    make_file(source, size)
    url = serve_on(net, net.server(), folder, serve_options, web_port=web_port)
    return transfer(left.spawn, right.spawn, url, [source], folder / "case", options)


def received_by_server(net: Internet) -> int:
    """Bytes that the kernel counted into the server's device: a witness that believes no program."""
    argv = ["ip", "-n", f"{net.prefix}server", "-s", "-json", "link", "show", "eth0"]
    [device] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    count: int = device["stats64"]["rx"]["bytes"]
    return count


def assert_arrived(result: Result) -> None:
    for side in (result.sender, result.receiver):
        assert side.process.returncode == 0, f"{side.role}: {side.complaint()}"
    assert result.same


def last_remotes(result: Result) -> tuple[str, str]:
    """The hosts at which the receiver sees the sender, and the sender the receiver."""
    remotes = [side.paths()[-1]["remote"] for side in (result.receiver, result.sender)]
    hosts = [remote.rpartition(":")[0].strip("[]") for remote in remotes]
    return hosts[0], hosts[1]


@TRANSLATORS
def test_two_preserving_sites_go_direct(internet: Factory, tmp_path: Path, translator: str) -> None:
    """Both translators are crossed by a direct UDP path between the outside addresses."""
    net = internet(translator)
    left, right = net.site("home"), net.site("home")
    ends = seat(net, left, tmp_path), seat(net, right, tmp_path)
    result = send_file(net, *ends, tmp_path, 16 * MEBIBYTE)
    assert_arrived(result)
    assert (result.path["kind"], result.path["transport"]) == ("direct", "udp")
    assert last_remotes(result) == (left.outside[0], right.outside[0])
    assert result.done["direct_bytes"] > 8 * MEBIBYTE
    assert received_by_server(net) < HUB_BUDGET + MEBIBYTE
    assert 0 < result.done["setup_ms"] <= result.done["direct_ms"]


def test_a_preserving_site_reaches_a_public_host(internet: Factory, tmp_path: Path) -> None:
    """Only one side is translated, in either direction of the transfer."""
    net = internet()
    left, right = net.site("home"), net.site("public")
    ends = seat(net, left, tmp_path), seat(net, right, tmp_path)
    result = send_file(net, *ends, tmp_path, 16 * MEBIBYTE)
    assert_arrived(result)
    assert result.path["kind"] == "direct"
    assert last_remotes(result) == (left.outside[0], right.outside[0])


@TRANSLATORS
def test_two_symmetric_sites_use_the_relay_and_say_so(
    internet: Factory, tmp_path: Path, translator: str
) -> None:
    """No direct path exists: everything beyond link zero goes by the relay, and is counted as relayed."""
    net = internet(translator)
    ends = [seat(net, net.site("symmetric"), tmp_path) for _ in range(2)]
    result = send_file(net, *ends, tmp_path, 8 * MEBIBYTE)
    assert_arrived(result)
    for side in (result.sender, result.receiver):
        assert side.paths()[-1]["kind"] == "relay"
        assert "direct" not in [event["kind"] for event in side.paths()]
        assert side.last("done")["direct_bytes"] == 0
        assert side.last("done")["direct_ms"] is None
    assert result.done["relay_bytes"] > 0
    assert received_by_server(net) > 8 * MEBIBYTE


def test_hosts_behind_one_translator_stay_inside(internet: Factory, tmp_path: Path) -> None:
    """Neighbours find each other by their inside addresses; nothing is left to the hairpin."""
    net = internet()
    site = net.site("home", hosts=2)
    ends = [seat(net, site, tmp_path, host) for host in range(2)]
    result = send_file(net, *ends, tmp_path, 16 * MEBIBYTE)
    assert_arrived(result)
    assert result.path["kind"] in ("direct", "lan")
    assert received_by_server(net) < HUB_BUDGET + MEBIBYTE
    assert last_remotes(result) == (site.hosts[0].addresses[0], site.hosts[1].addresses[0])


@pytest.mark.parametrize("ipv6", [Ipv6.OPEN, Ipv6.FIREWALLED], ids=lambda kind: kind.value)
def test_ipv6_goes_direct_where_ipv4_cannot(internet: Factory, tmp_path: Path, ipv6: Ipv6) -> None:
    """Global IPv6 addresses need no translation, so symmetric IPv4 on both sides does not matter."""
    net = internet()
    sites = [net.site(with_ipv6("symmetric", ipv6)) for _ in range(2)]
    ends = [seat(net, site, tmp_path) for site in sites]
    result = send_file(net, *ends, tmp_path, 16 * MEBIBYTE)
    assert_arrived(result)
    assert result.path["kind"] == "direct"
    assert received_by_server(net) < HUB_BUDGET + MEBIBYTE
    expected = tuple(str(ipaddress.ip_address(site.hosts[0].addresses[1])) for site in sites)
    assert last_remotes(result) == expected


def test_a_folder_arrives_with_everything_in_it(internet: Factory, tmp_path: Path) -> None:
    """Names, sub-folders, an empty file, an empty folder and the executable bit."""
    net = internet()
    ends = [seat(net, net.site("home"), tmp_path) for _ in range(2)]
    source = tmp_path / "notes"
    make_folder(source)
    url = serve_on(net, net.server(), tmp_path)
    result = transfer(ends[0].spawn, ends[1].spawn, url, [source], tmp_path / "case")
    assert_arrived(result)
    script = tmp_path / "case" / "received" / "notes" / "tools" / "greet.sh"
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("blocked", [0, 1], ids=["sender", "receiver"])
def test_without_udp_a_large_file_arrives_directly_by_tcp(
    internet: Factory, tmp_path: Path, blocked: int
) -> None:
    """One side has no UDP: both punch a hole for TCP, and the server carries next to nothing."""
    net = internet()
    sites = [net.site("udp-blocked" if number == blocked else "home") for number in range(2)]
    ends = [seat(net, site, tmp_path) for site in sites]
    result = send_file(net, *ends, tmp_path, 16 * MEBIBYTE)
    assert_arrived(result)
    for side in (result.sender, result.receiver):
        assert (side.paths()[-1]["kind"], side.paths()[-1]["transport"]) == ("direct", "tcp")
    assert received_by_server(net) < 16 * MEBIBYTE


@pytest.mark.parametrize("blocked", [0, 1], ids=["sender", "receiver"])
def test_without_udp_or_a_foreseeable_port_a_large_file_arrives_by_turn_over_tcp(
    internet: Factory, tmp_path: Path, blocked: int
) -> None:
    """One side has no UDP, the other no port to foresee: a relay by TCP carries what link zero may not."""
    net = internet()
    sites = [net.site("udp-blocked" if number == blocked else "symmetric") for number in range(2)]
    ends = [seat(net, site, tmp_path) for site in sites]
    result = send_file(net, *ends, tmp_path, 3 * HUB_BUDGET)
    assert_arrived(result)
    without_udp = (result.sender, result.receiver)[blocked]
    assert (without_udp.paths()[-1]["kind"], without_udp.paths()[-1]["transport"]) == ("relay", "tcp")
    assert result.done["relay_bytes"] > 2 * HUB_BUDGET


def test_where_only_https_leaves_turn_over_tls_carries_the_file(internet: Factory, tmp_path: Path) -> None:
    """TLS to port 443 with a certificate that nobody knows, pinned by what the hub said of it."""
    net = internet()
    ends = [seat(net, net.site(name), tmp_path) for name in ("https-only", "home")]
    certificate, server = self_signed(tmp_path), net.server()
    secure = f"{server.addresses[1]}:443"
    options = ("--tls-listen", secure, "--cert", str(certificate.certificate), "--key", str(certificate.key))
    url = serve_on(net, server, tmp_path, options, web_port=443)
    source = tmp_path / "holiday.mov"
    make_file(source, 3 * HUB_BUDGET)
    result = transfer(ends[0].spawn, ends[1].spawn, url, [source], tmp_path / "case")
    assert_arrived(result)
    path = result.sender.paths()[-1]
    assert (path["kind"], path["transport"]) == ("relay", "tls")


@pytest.mark.parametrize("blocked", [0, 1], ids=["sender", "receiver"])
def test_without_a_relay_a_small_file_arrives_by_the_hub(
    internet: Factory, tmp_path: Path, blocked: int
) -> None:
    """One side reaches nothing but the hub: link zero carries what its budget allows."""
    net = internet()
    sites = [net.site("https-only" if number == blocked else "home") for number in range(2)]
    ends = [seat(net, site, tmp_path) for site in sites]
    result = send_file(net, *ends, tmp_path, MEBIBYTE, web_port=443)
    assert_arrived(result)
    assert result.path["kind"] == "hub"


def test_without_a_relay_a_large_file_arrives_where_the_server_has_a_rate(
    internet: Factory, tmp_path: Path
) -> None:
    """`crowline serve --hub-rate` lets link zero go on beyond its budget: nothing is lost on the way."""
    net = internet()
    ends = [seat(net, net.site(name), tmp_path) for name in ("https-only", "home")]
    options = ("--hub-rate", "4M")
    result = send_file(net, *ends, tmp_path, 3 * HUB_BUDGET, serve_options=options, web_port=443)
    assert_arrived(result)
    assert result.path["kind"] == "hub"


def test_without_a_relay_a_large_file_ends_with_a_clear_sentence(internet: Factory, tmp_path: Path) -> None:
    """Beyond the budget both sides stop with exit code 6 and say why; nothing half-written looks whole."""
    net = internet()
    ends = [seat(net, net.site(name), tmp_path) for name in ("https-only", "home")]
    result = send_file(net, *ends, tmp_path, 3 * HUB_BUDGET, web_port=443)
    assert result.exit_codes == (6, 6), json.dumps(result.sender.events[-3:] + result.receiver.events[-3:])
    for side in (result.sender, result.receiver):
        error = side.last("error")
        assert error is not None and error["exit"] == 6
        assert error["message"].endswith(".") and "Traceback" not in side.complaints.read_text()
    assert not (tmp_path / "case" / "received" / "holiday.mov").exists()
