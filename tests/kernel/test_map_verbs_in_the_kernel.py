"""`crowline map` as people use it, in a home whose router is a real miniupnpd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crowline.lab.namespaces import Internet
from crowline.lab.places import Host, Site
from crowline.lab.presets import PRESETS
from miniupnpd import Miniupnpd
from needs import needs_program

pytestmark = pytest.mark.peer

Factory = Callable[..., Internet]
PATIENCE = 30.0
# With each, other things are needed to close a port again: a nonce, nothing, the outside port.
DAEMONS: dict[str, dict[str, Any]] = {
    "pcp": {"upnp": False},
    "nat-pmp": {"upnp": False, "pcp": False},
    "upnp": {"natpmp": False},
}


@pytest.fixture(autouse=True)
def programs() -> None:
    needs_program("miniupnpd")
    needs_program("nft")


class Home:
    """A site with the daemon, and somebody at its host's keyboard."""

    def __init__(self, net: Internet, folder: Path, **daemon: Any) -> None:
        self._net = net
        self.site: Site = net.site(PRESETS["home"])
        self.host: Host = self.site.hosts[0]
        self.daemon = Miniupnpd(net, self.site, **daemon)
        self.daemon.start()
        self._environment = {**os.environ, "XDG_STATE_HOME": str(folder)}

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """`crowline map` with these arguments."""
        return self._net.spawn(
            self.host,
            [sys.executable, "-m", "crowline", "map", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """What it wrote to standard output."""
        process = self.spawn(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        return str(out)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_port_outlives_the_command_and_is_closed_by_another(
    internet: Factory, tmp_path: Path, daemon: str
) -> None:
    """`add`, `list`, `remove`, by each protocol."""
    home = Home(internet("kernel"), tmp_path, **DAEMONS[daemon])
    inside = (home.host.addresses[0], 4000)
    assert home.run("add", "4000", "--tcp").strip() == f"{home.site.outside[0]}:4000"
    assert home.daemon.forwards() == {("tcp", 4000, *inside)}
    (row,) = [json.loads(line) for line in home.run("list", "--json").splitlines()]
    assert (row["transport"], row["inside"], row["ours"]) == ("tcp", f"{inside[0]}:{inside[1]}", True)
    home.run("remove", "4000", "--tcp")
    assert home.daemon.forwards() == set()
    assert home.run("list", "--json") == ""


def test_watched_ports_come_back_with_the_router_and_go_with_ctrl_c(
    internet: Factory, tmp_path: Path
) -> None:
    """The router loses its power in between."""
    home = Home(internet("kernel"), tmp_path)
    process = home.spawn("watch", "4000", "--json")
    try:
        expected = {("udp", 4000, home.host.addresses[0], 4000)}
        _await(process, lambda: home.daemon.forwards() == expected)
        home.daemon.grow_old()
        home.daemon.restart()
        _await(process, lambda: home.daemon.forwards() == expected)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert home.daemon.forwards() == set()
    opened = [json.loads(line) for line in out.splitlines()]
    assert any(row["t"] == "port" and row["open"] for row in opened)


def _await(process: subprocess.Popen[str], is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
