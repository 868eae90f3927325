"""Whole meetings across NATs that nothing else leads through: a router opens a port when asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crowline.lab.demo_stage import serve_on
from crowline.lab.kernel_attempt import kernel_attempt
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host
from crowline.lab.presets import PRESETS
from crowline.lab.profile import PortMapping
from miniupnpd import Miniupnpd
from needs import needs_program

pytestmark = pytest.mark.peer

Factory = Callable[..., Internet]

PATIENCE = 30.0  # seconds for what must happen
SYMMETRIC = PRESETS["symmetric"]


@pytest.fixture(autouse=True)
def programs() -> None:
    needs_program("miniupnpd")
    needs_program("nft")


@pytest.mark.parametrize(
    ("kind", "side"),
    [
        (PortMapping.UPNP, "waiting"),
        (PortMapping.UPNP, "joining"),
        (PortMapping.NAT_PMP, "waiting"),
        (PortMapping.PCP, "joining"),
    ],
)
def test_two_random_nats_meet_directly_by_an_open_port(kind: PortMapping, side: str) -> None:
    """Both draw a new random port for each destination: without a mapping there would be the relay."""
    mapped = replace(SYMMETRIC, port_mapping=kind)
    sides = (mapped, SYMMETRIC) if side == "waiting" else (SYMMETRIC, mapped)
    outcome = kernel_attempt(*sides)
    assert outcome.kind == "direct", outcome


def test_a_side_without_udp_dials_an_open_tcp_port() -> None:
    """TCP is mapped as randomly as UDP there, so that it could not be punched."""
    outcome = kernel_attempt(replace(SYMMETRIC, port_mapping=PortMapping.PCP), PRESETS["udp-blocked"])
    assert outcome.kind == "direct", outcome


def test_ports_are_closed_on_exit_and_a_router_can_be_left_alone(internet: Factory, tmp_path: Path) -> None:
    """While `send` waits its port is open, after Ctrl-C it is not; --no-port-mapping asks no router."""
    net = internet("kernel")
    url = serve_on(net, net.server(), tmp_path)
    site = net.site("home", hosts=2)
    daemon = Miniupnpd(net, site)
    daemon.start()
    file = tmp_path / "letter.txt"
    file.write_text("hello")

    def send(host: Host, *options: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "crowline", "send", str(file), "--server", url, *options]
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / host.name)}
        return net.spawn(host, argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    quiet, helped = send(site.hosts[1], "--no-port-mapping"), send(site.hosts[0])
    assert quiet.stdout is not None and quiet.stdout.readline()  # it has its code, and waits
    deadline = time.monotonic() + PATIENCE
    while {rule[0] for rule in daemon.forwards()} != {"udp"}:
        assert time.monotonic() < deadline and helped.poll() is None and quiet.poll() is None
        time.sleep(0.05)
    assert {rule[2] for rule in daemon.forwards()} == {site.hosts[0].addresses[0]}
    for process in (helped, quiet):
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert daemon.forwards() == set()
    assert site.hosts[0].addresses[0] in daemon.log()
    assert site.hosts[1].addresses[0] not in daemon.log()
