"""Our STUN and TURN server beside Debian's coturn: same machine, same run, same generator.

Each figure is measured for both in turns (A B A B…), the first round of each is dropped, the median counts.
CPU time is that of all threads of the server, from /proc. coturn runs with its defaults (one process, a
thread a core); it is only told where to listen, one user, and that loopback peers are allowed; ours is
`crowline serve` with the rates per source and user raised, since the load comes from few addresses. Where the
generator was busy all the time it may have set the rate, and not the server: then that is said.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import turn_load as load
from processes import cpu_of, rss_of

from crowline.base.addresses import Address

SESSIONS, SMALL, BULK = 20, 120, 1200
# Seconds between two packets of each session: with the first most packets find the server asleep.
CALM, BUSY = 0.002, 0.0006
OURS_CONFIG = """
listen = "127.0.0.1:0"
stun-listen = "127.0.0.1:{port}"
allow-peer = ["127.0.0.0/8"]
relay-ports = "20000-65000"
binding-rate = 100000000
allocations = 30000
allocations-per-user = 30000
allocations-per-source = 30000
bytes-per-second = 100000000000

[users]
user = "password"
"""


class Server:
    """A running server and what it has used."""

    def __init__(self, name: str, process: subprocess.Popen[Any], address: Address) -> None:
        self.name, self.process, self.address = name, process, address

    @property
    def cpu(self) -> float:
        """Seconds."""
        return cpu_of(self.process.pid)

    @property
    def rss(self) -> int:
        """Bytes."""
        return rss_of(self.process.pid)


@contextmanager
def server(name: str, command: str) -> Iterator[Server]:
    """`ours` or `coturn`, ready to answer."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        address = Address("127.0.0.1", port)
        if name == "ours":
            config = Path(folder) / "config.toml"
            config.write_text(OURS_CONFIG.format(port=port))
            argv = [*shlex.split(command), "--config", str(config)]
        else:
            argv = [
                "turnserver", "-n", "-L", address.host, "-E", address.host, "-p", str(port),
                "-r", "example.org",
                "--no-tls", "--no-dtls", "--no-cli", "--no-stdout-log", "-a", "-u", "user:password",
                "-l", f"{folder}/log", "--pidfile", f"{folder}/pid", "-b", f"{folder}/db",
                "--allow-loopback-peers", "--min-port", "20000", "--max-port", "65000",
            ]  # fmt: skip
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(address, process)
            yield Server(name, process, address)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Two neighbouring ports that were free a moment ago."""
    while True:
        with load.plain() as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as next_one:
            port = int(one.getsockname()[1])
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def wait_for(address: Address, process: subprocess.Popen[Any]) -> None:
    with load.plain() as sock:
        for _ in range(100):
            if process.poll() is not None:
                raise SystemExit(f"the server ended at once with code {process.returncode}")
            sock.sendto(b"\x00\x01\x00\x00" + load.COOKIE + bytes(12), load.tuple_of(address))
            time.sleep(0.1)
            try:
                sock.recv(2048)
            except BlockingIOError:
                continue
            return
    raise SystemExit("the server does not answer")


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a process of its own, so that no garbage of one figure slows the next."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


# --- the figures: each gives numbers of one round -------------------------------------------------------


def binding(at: Server, seconds: float) -> dict[str, float]:
    cpu = at.cpu
    told = apart(load.binding, at.address, seconds)
    used = at.cpu - cpu
    return {**told, "cpu": used / told["count"] * 1e6, "core": told["count"] / used}


def channel(at: Server, seconds: float) -> dict[str, float]:
    return apart(_channel, at.address, at.process.pid, seconds, CALM)


def busy_channel(at: Server, seconds: float) -> dict[str, float]:
    return apart(_channel, at.address, at.process.pid, seconds, BUSY)


def _channel(address: Address, pid: int, seconds: float, tick: float, burst: int = 1) -> dict[str, float]:
    sessions = load.Sessions(address, SESSIONS, SMALL)
    cpu = cpu_of(pid)
    told = sessions.run(seconds, tick, burst)
    used = cpu_of(pid) - cpu
    sessions.close()
    return {**told, "cpu": used / max(1, told["count"]) * 1e6, "lost": 1 - told["count"] / told["sent"]}


def bulk(at: Server, seconds: float) -> dict[str, float]:
    cpu = at.cpu
    told = apart(load.bulk, at.address, seconds, 40e6, BULK)
    lost = 1 - told["count"] / told["sent"]
    return {"cpu": (at.cpu - cpu) / told["count"] * 1e9, "lost": lost, "rate": told["count"] / seconds}


def allocations(at: Server, seconds: float) -> dict[str, float]:
    return apart(_allocations, at.address, at.process.pid, 1500)


def _allocations(address: Address, pid: int, count: int) -> dict[str, float]:
    first = load.allocations(address, 100)["clients"]  # kept, so that their ports are not used again
    before, cpu = rss_of(pid), cpu_of(pid)
    told = load.allocations(address, count)
    return {
        "rate": told["rate"], "busy": told["busy"], "cpu": (cpu_of(pid) - cpu) / told["count"] * 1e6,
        "memory": (rss_of(pid) - before) / told["count"], "first": len(first),
    }  # fmt: skip


def junk(at: Server, seconds: float) -> dict[str, float]:
    alone = apart(_channel, at.address, at.process.pid, 2.0, CALM)
    before = at.rss
    noise = multiprocessing.get_context("fork").Process(
        target=load.junk, args=(at.address, 50_000, seconds + 1)
    )
    noise.start()
    time.sleep(0.5)
    beside = apart(_channel, at.address, at.process.pid, seconds, CALM)
    noise.join()
    return {"kept": beside["rate"] / alone["rate"], "memory": at.rss - before}


def idle(at: Server, seconds: float) -> dict[str, float]:
    return apart(_idle, at.address, seconds)


def _idle(address: Address, seconds: float) -> dict[str, float]:
    told = load.allocations(address, 10_000)
    time.sleep(1.0)
    return {"count": told["count"], "p99": load.round_trips(address, seconds, 1000) * 1e3}


def delay(at: Server, seconds: float) -> dict[str, float]:
    """At half of the rate at which the server would use one core, found from its CPU time at a low rate."""
    low = apart(_channel, at.address, at.process.pid, 1.0, CALM)
    rate = 0.5 / (low["cpu"] / 1e6)
    told = apart(_channel, at.address, at.process.pid, seconds, 2 * SESSIONS / rate)
    return {"p99": told["p99"] * 1e3, "rate": told["rate"], "busy": told["busy"], "lost": told["lost"]}


# What is printed of each figure: the number's name, a label, its format, and the ratio or value to reach.
Line: TypeAlias = tuple[str, str, str, str]
FIGURES: dict[str, tuple[Callable[[Server, float], dict[str, float]], list[Line]]] = {
    "binding": (binding, [
        ("rate", "Binding/s", "{:,.0f}", "≥ 1.5"),
        ("core", "  Bindings a CPU second", "{:,.0f}", "≥ 1.5"),
        ("cpu", "  CPU a Binding, µs", "{:.2f}", ""),
    ]),
    "channel": (channel, [
        ("cpu", "20 × 120 B, CPU a packet, µs", "{:.2f}", "≤ 1.0"),
        ("rate", "  packets/s", "{:,.0f}", ""),
    ]),
    "busy": (busy_channel, [
        ("cpu", "  the same at 3.3 times the rate", "{:.2f}", "≤ 1.0"),
        ("rate", "  packets/s", "{:,.0f}", ""),
    ]),
    "bulk": (bulk, [
        ("cpu", "bulk of 1,200 B, CPU a byte, ns", "{:.3f}", "≤ 0.25"),
        ("rate", "  bytes/s", "{:,.0f}", ""),
    ]),
    "allocations": (allocations, [
        ("rate", "allocations/s", "{:,.0f}", "≥ 1"),
        ("cpu", "  CPU an allocation, µs", "{:.0f}", ""),
        ("memory", "memory an idle allocation, bytes", "{:,.0f}", "≤ 8,192 B"),
    ]),
    "junk": (junk, [
        ("kept", "rate kept beside 50,000 junk/s", "{:.2f}", "≥ 0.50"),
        ("memory", "  memory grown, bytes", "{:,.0f}", "flat"),
    ]),
    "idle": (idle, [
        ("p99", "Binding p99 at 10,000 idle, ms", "{:.2f}", "< 5 ms"),
        ("count", "  idle allocations", "{:,.0f}", ""),
    ]),
    "delay": (delay, [
        ("p99", "relayed at 50 % load, p99, ms", "{:.2f}", "printed"),
        ("rate", "  packets/s then", "{:,.0f}", ""),
    ]),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", help=f"of {', '.join(FIGURES)}; all without")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each server, beside the one that is dropped"
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--quick", action="store_true", help="one short round of each, nothing dropped")
    parser.add_argument("--long", action="store_true", help="junk for 60 s")
    parser.add_argument(
        "--ours",
        metavar="COMMAND",
        default=f"{Path(sys.executable).parent}/crowline serve",
        help="what serves; gets --config FILE",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if shutil.which("turnserver") is None:
        raise SystemExit("bench/turn.py needs coturn: apt install coturn")
    if options.quick:
        options.rounds, options.seconds = 1, 1.5
    print(f"{'':<34} {'ours':>12} {'coturn':>12} {'ratio':>7}   reach")
    for name in options.figures or FIGURES:
        show(name, measure(name, options), as_json=options.json)


def measure(name: str, options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """The rounds of both servers. `idle` and `junk` take long enough to need only one."""
    single = name in ("idle", "junk")
    seconds = (
        (60.0 if options.long else min(10.0, 3 * options.seconds)) if name == "junk" else options.seconds
    )
    rounds = 1 if single or options.quick else options.rounds + 1
    results: dict[str, list[dict[str, float]]] = {"ours": [], "coturn": []}
    for number in range(rounds):
        for kind in results:
            with server(kind, options.ours) as at:
                told = FIGURES[name][0](at, seconds)
            if number or rounds == 1:
                results[kind].append(told)
    return results


def show(name: str, results: dict[str, list[dict[str, float]]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"figure": name, **results}))
    for key, label, shape, reach in FIGURES[name][1]:
        ours, theirs = (statistics.median(r[key] for r in results[kind]) for kind in ("ours", "coturn"))
        ratio = f"{ours / theirs:7.2f}" if theirs else "      -"
        print(
            f"{label:<34} {shape.format(ours):>12} {shape.format(theirs):>12} {ratio}   {reach}", flush=True
        )
    for kind, rounds in results.items():
        busy = statistics.median(r.get("busy", 0.0) for r in rounds)
        if name == "binding" and busy < 0.8:
            print(
                f"  with {kind} the generator got {busy:.0%} of a core: others had the rest, and set the rate"
            )
        if busy > 0.9 and name in ("binding", "allocations"):
            print(f"  with {kind} the generator used {busy:.0%} of a core: the limit may be its own")
        lost = statistics.median(r.get("lost", 0.0) for r in rounds)
        if lost > 0.01:
            print(f"  with {kind} {lost:.0%} of what was sent did not arrive")


if __name__ == "__main__":
    main()
