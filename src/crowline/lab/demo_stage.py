"""Where the demo plays: network namespaces behind translators, or plain processes on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowline.base.errors import CrowlineError
from crowline.lab.demo_transfer import CROWLINE, GRACE, Spawn, TransferFailed
from crowline.lab.namespaces import Internet, TranslatorChoice
from crowline.lab.places import Host, Site

WEB_PORT = 8080
STUN_PORT = 3478
SERVER_PATIENCE = 20.0  # seconds until the server must listen
_POLL = 0.02  # seconds between looks at it


@dataclass(frozen=True, slots=True)
class Seat:
    """A place for one side of a transfer. `outside` is the host that others see; "" where it is not told."""

    name: str
    spawn: Spawn
    outside: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """The server's URL, the seats, and how to describe them. `strict` is empty where no such pair exists."""

    server: str
    home: tuple[Seat, Seat]
    strict: tuple[Seat, ...]
    scenery: tuple[tuple[str, str], ...]


def missing_for_namespaces() -> str:
    """Why no namespaces can be made here; empty where they can."""
    if os.name != "posix" or not Path("/proc/self/ns/net").exists():
        return "this is not Linux"
    if os.geteuid() != 0:
        return "this is not root"
    if not Path("/dev/net/tun").exists():
        return "this kernel has no TUN"
    try:
        with Internet() as internet:
            internet.server()
    except (CrowlineError, OSError) as failure:  # root in a container may not be allowed to
        return f"no network namespaces here: {failure}"
    return ""


@contextmanager
def namespace_stage(folder: Path, delay: float, translator: TranslatorChoice = "auto") -> Iterator[Stage]:
    """One server with two addresses, a pair behind port-preserving NATs, a pair behind symmetric ones."""
    with Internet(translator=translator) as internet:
        server = internet.server()
        left = internet.site("home", name="left", delay=delay)
        right = internet.site("home", name="right", delay=delay)
        strict = [
            internet.site("symmetric", name=name, delay=delay) for name in ("strict-left", "strict-right")
        ]
        yield Stage(
            serve_on(internet, server, folder),
            (seat(internet, left, folder), seat(internet, right, folder)),
            tuple(seat(internet, site, folder) for site in strict),
            (
                ("server", f"{server.addresses[0]} and {server.addresses[1]}"),
                *((site.name, _describe(site)) for site in (left, right, *strict)),
                ("distance", f"{delay * 1e3:g} ms one way to the server, {delay * 2e3:g} ms to each other"),
            ),
        )


@contextmanager
def loopback_stage(folder: Path) -> Iterator[Stage]:
    """The same programs side by side on 127.0.0.1."""
    processes: list[subprocess.Popen[Any]] = []

    def spawner(name: str) -> Spawn:
        def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
            environment = _environment(folder / name)
            process = subprocess.Popen(argv, start_new_session=True, env=environment, **options)
            processes.append(process)
            return process

        return spawn

    web, stun = f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"
    try:
        argv = ["--listen", web, "--stun-listen", stun, "--allow-peer", "127.0.0.0/8"]
        _start_server(spawner("server"), argv, folder, lambda: _accepts(web))
        seats = (Seat("left", spawner("left")), Seat("right", spawner("right")))
        yield Stage(f"ws://{web}", seats, (), (("server", web),))
    finally:
        for process in processes:
            _end(process)


def serve_on(
    internet: Internet, server: Host, folder: Path, options: Sequence[str] = (), *, web_port: int = WEB_PORT
) -> str:
    """Start the real server on a host with two addresses and wait until it listens; its URL."""
    web, stun = (f"{server.addresses[0]}:{port}" for port in (web_port, STUN_PORT))
    argv = ["--listen", web, "--stun-listen", stun, "--alternate-address", server.addresses[1], *options]
    spawn = _on_host(internet, server, folder)
    _start_server(spawn, argv, folder, lambda: internet.inside(server, lambda: _accepts(web)))
    return f"ws://{web}"


def seat(internet: Internet, site: Site, folder: Path, host: int = 0) -> Seat:
    """The place for a program on that host of the site, counted from 0."""
    outside = site.outside[0] if site.is_translated else site.outside[host]
    return Seat(site.hosts[host].name, _on_host(internet, site.hosts[host], folder), outside)


def _on_host(internet: Internet, host: Host, folder: Path) -> Spawn:
    def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return internet.spawn(host, argv, env=_environment(folder / host.name), **options)

    return spawn


def _describe(site: Site) -> str:
    by = "nftables" if "kernel" in site.translators else "a user-space NAT"
    kind = "keeps ports" if site.profile.name == "home" else "symmetric: a random port for each destination"
    return f"{site.hosts[0].addresses[0]} behind {site.outside[0]} ({by}, {kind})"


def _environment(home: Path) -> dict[str, str]:
    """This process's environment, but with a home of its own, no server chosen and no proxy."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("XDG_", "CROWLINE_"))
    }
    return kept | {"HOME": str(home), "PYTHONUNBUFFERED": "1"}


def _start_server(spawn: Spawn, argv: Sequence[str], folder: Path, ready: Callable[[], bool]) -> None:
    complaints = folder / "server.err"
    with complaints.open("wb") as errors:
        process = spawn(
            [*CROWLINE, "serve", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
    deadline = time.monotonic() + SERVER_PATIENCE
    while not ready():
        if process.poll() is not None:
            raise TransferFailed(f"The server ended at once: {_last_line(complaints)}")
        if time.monotonic() > deadline:
            raise TransferFailed(f"The server does not listen: {_last_line(complaints)}")
        time.sleep(_POLL)


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it did not say why"


def _end(process: subprocess.Popen[Any]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return
