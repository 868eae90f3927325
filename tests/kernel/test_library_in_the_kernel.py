"""The library alone behind real NATs: the mapped address, and a connection that is made by copy and paste."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crowline.lab.demo_stage import STUN_PORT, seat, serve_on
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host, Site
from needs import needs_program

Factory = Callable[..., Internet]

CHAT = Path(__file__).parents[2] / "examples" / "ice_chat.py"
# Seconds until a process that does nothing any more is ended; what has to happen takes one or two.
PATIENCE = "60"
PASSWORD = "at least sixteen characters"
CONFIG = f'[users]\nuser = "{PASSWORD}"\n'


def start_ours(net: Internet, server: Host, folder: Path) -> None:
    """Our server, with a user of its relay."""
    config = folder / "crowline.toml"
    config.write_text(CONFIG)
    serve_on(net, server, folder, ["--config", str(config)])


def start_coturn(net: Internet, server: Host, folder: Path) -> None:
    """The relay that everybody runs."""
    argv = [needs_program("turnserver"), "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file", os.devnull]
    listen = ["-L", server.addresses[0], "-p", str(STUN_PORT), "--pidfile", str(folder / "turn.pid")]
    net.spawn(server, [*argv, *listen, "--userdb", str(folder / "turn.db")], stdout=subprocess.DEVNULL)


def start_stund(net: Internet, server: Host, folder: Path) -> None:
    """The server of 2004 (RFC 3489)."""
    hosts = ["-h", server.addresses[0], "-a", server.addresses[1]]
    net.spawn(server, [needs_program("stund"), *hosts, "-p", str(STUN_PORT)], stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "start",
    [
        start_ours,
        pytest.param(start_coturn, marks=pytest.mark.peer),
        pytest.param(start_stund, marks=pytest.mark.peer),
    ],
)
def test_crowline_stun_prints_the_address_of_the_nat(
    internet: Factory, tmp_path: Path, start: Callable[[Internet, Host, Path], None]
) -> None:
    """Behind one that keeps ports, behind one that does not, and behind two of them."""
    net = internet()
    server = net.server()
    sites = [net.site(preset) for preset in ("home", "symmetric", "cgn")]
    start(net, server, tmp_path)
    for site in sites:
        argv = ["timeout", PATIENCE, sys.executable, "-m", "crowline", "stun", "--timeout", "40"]
        asked = seat(net, site, tmp_path).spawn(
            [*argv, f"{server.addresses[0]}:{STUN_PORT}"], stdout=subprocess.PIPE, text=True
        )
        said, _ = asked.communicate()
        assert said.rpartition(":")[0] == site.outside[0]


@pytest.mark.parametrize(
    ("presets", "kind"),
    [(("home", "home"), "direct"), (("symmetric", "symmetric"), "relay")],
    ids=["direct", "relayed"],
)
def test_copy_and_paste_connects_two_terminals(
    internet: Factory, tmp_path: Path, presets: tuple[str, str], kind: str
) -> None:
    """Two NATs in between: directly where they allow it, by the relay where they do not."""
    net = internet()
    server = net.server()
    caller, answerer = (net.site(preset) for preset in presets)
    start_ours(net, server, tmp_path)
    address = f"{server.addresses[0]}:{STUN_PORT}"

    def start(site: Site, role: str) -> subprocess.Popen[str]:
        argv = ["timeout", PATIENCE, "env", f"TURN_PASSWORD={PASSWORD}", sys.executable, str(CHAT), role]
        servers = ["--stun", address, "--turn", address, "--user", "user"]
        place = seat(net, site, tmp_path)
        return place.spawn([*argv, *servers], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    one, two = start(caller, "call"), start(answerer, "answer")
    paste(one, two)
    paste(two, one)
    for process in (one, two):
        assert line_of(process).startswith(f"connected ({kind})")
    for speaker, listener in ((one, two), (two, one)):
        say(speaker, "hello")
        assert line_of(listener) == "> hello"


def paste(one: subprocess.Popen[str], other: subprocess.Popen[str]) -> None:
    """Carry what one side prints to the other, by hand."""
    line = ""
    while line != "end-of-candidates":
        line = line_of(one)
        say(other, line)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the program has ended"
    return line.strip()


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    print(line, file=process.stdin, flush=True)
