"""How fast one stream is, beside the same stream of rivals in the same run: MB/s, CPU seconds a GB, memory.

Each row is two processes on this machine. The rows are measured in turns, `--rounds` times, and the medians
count. The rivals are fetched from PyPI into an environment of their own (`rivals.py`); as root all of it runs
in a network namespace without a way out. With `--kernel`, as root, also through two NATs (`veth_homes.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rivals
from processes import cpu_of
from veth_homes import SERVER, homes

PROGRAMS = Path(__file__).resolve().parent / "streams"
# Seconds for one row of one round.
PATIENCE = 120
WEB, STUN = 18080, 13478
# The server as it comes, but for the rate that it grants to each user of the relay.
UNLIMITED = 'bytes-per-second = "100G"\n'
# What the project wants; of rivals, how many times faster one stream over one QUIC link is to be.
OURS, RELAYED, HOMES = "Crowline, QUIC link", "Crowline, its own TURN relay", "Crowline, two kernel NATs"
FREE = "Crowline, the link it takes"
REACH = {
    OURS: "250 MB/s",
    HOMES: "250 MB/s",
    RELAYED: "1/2",
    "qh3's asyncio": "3 x",
    "aioquic": "10 x",
    "iroh": "20 x",
    "aiortc": "10 x",
}


@dataclass
class Row:
    """`program` of the folder of streams, with its last argument."""

    name: str
    python: str
    program: str
    size: int
    more: tuple[str, ...] = ()
    rounds: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    # What runs the receiver's command, and the sender's.
    places: tuple[list[str], list[str]] = ([], [])

    @property
    def rate(self) -> float:
        """Bytes a second as the receiver counts them."""
        return statistics.median(there["bytes"] / there["seconds"] for there, _ in self.rounds)

    def cpu(self, side: int) -> float:
        """CPU seconds for 10^9 bytes of the receiver (0) or the sender (1)."""
        return statistics.median(each[side]["cpu"] / each[side]["bytes"] * 1e9 for each in self.rounds)

    def memory(self, side: int) -> float:
        """Bytes at the peak."""
        return max(each[side]["memory"] for each in self.rounds)

    def measure(self, environment: dict[str, str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [self.python, str(PROGRAMS / self.program)]
            options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": environment}
            at_receiver, at_sender = self.places
            receiver = subprocess.Popen([*at_receiver, *command, "receive", folder, *self.more], **options)
            sender = subprocess.Popen(
                [*at_sender, *command, "send", folder, str(self.size), *self.more], **options
            )
            try:
                there = json.loads(receiver.communicate(timeout=PATIENCE)[0])
                here = json.loads(sender.communicate(timeout=PATIENCE)[0])
            finally:
                for process in (receiver, sender):
                    process.kill()
                    process.wait()
        if there["bytes"] != self.size:
            raise SystemExit(f"{self.name}: {there['bytes']} of {self.size} bytes came")
        self.rounds.append((there, here))


@dataclass
class RelayedRow(Row):
    """By the server, whose CPU time counts too. `server` is its process."""

    server: int = 0
    used: list[float] = field(default_factory=list)

    def measure(self, environment: dict[str, str]) -> None:
        before = cpu_of(self.server)
        super().measure(environment)
        self.used.append(cpu_of(self.server) - before)

    @property
    def server_cpu(self) -> float:
        """CPU seconds of the server for 10^9 bytes, with the meeting's."""
        return statistics.median(self.used) / self.size * 1e9


class HomesRow(Row):
    """The same programs as `OURS` on two hosts behind NATs of the kernel, with a server between them."""

    def measure(self, environment: dict[str, str]) -> None:
        """In a bed of its own, where `environment` names no server."""
        with homes() as bed, tempfile.TemporaryDirectory() as folder:
            at_server = ["ip", "netns", "exec", bed.server]
            with served(Path(folder), f"{SERVER}:{WEB}", f"{SERVER}:{STUN}", at_server) as (url, _):
                self.places = (["ip", "netns", "exec", bed.left], ["ip", "netns", "exec", bed.right])
                super().measure({**environment, "CROWLINE_SERVER": url})


@contextmanager
def served(
    folder: Path,
    web: str = f"127.0.0.1:{WEB}",
    stun: str = f"127.0.0.1:{STUN}",
    place: Sequence[str] = (),
) -> Iterator[tuple[str, int]]:
    """A server of ours, on loopback where nothing else is said: its URL and its process. `place`: what runs
    its command."""
    config = folder / "server.toml"
    config.write_text(UNLIMITED)
    command = [*place, sys.executable, "-m", "crowline", "serve", "--config", str(config)]
    command += ["--listen", web, "--stun-listen", stun]
    if not place:
        command += ["--allow-peer", "127.0.0.0/8"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        time.sleep(2)
        yield f"ws://{web}", server.pid
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def rows(scale: float, server: int, *, kernel: bool) -> list[Row]:
    """Sizes take one to three seconds each. `server`: the process by which what is relayed goes."""
    other = rivals.python()

    def size(megabytes: int) -> int:
        return int(megabytes * scale) * 1_000_000

    found = [
        Row(OURS, sys.executable, "crowline_stream.py", size(1000), ("quic",)),
        Row(FREE, sys.executable, "crowline_stream.py", size(1000)),
        RelayedRow(RELAYED, sys.executable, "crowline_stream.py", size(1000), ("relay",), server=server),
        Row("qh3's asyncio", other, "quic_stream.py", size(100), ("qh3",)),
        Row("aioquic", other, "quic_stream.py", size(40), ("aioquic",)),
        Row("iroh", other, "iroh_stream.py", size(20)),
        Row("aiortc", other, "aiortc_stream.py", size(20)),
        Row("asyncio's TLS", other, "tls_stream.py", size(1000)),
    ]
    if kernel:
        found.insert(1, HomesRow(HOMES, sys.executable, "crowline_stream.py", size(1000), ("quic",)))
    return found


def show(table: list[Row]) -> None:
    own = next(row for row in table if row.name == OURS)
    print(f"{'':30}{'MB/s':>8}{'ours is':>10}{'to reach':>10}{'CPU s/GB':>20}{'MiB, both':>16}")
    for row in table:
        ratio = "" if row is own else f"{own.rate / row.rate:.1f} x"
        reach = REACH.get(row.name, "")
        cpu = f"{row.cpu(1):.2f} + {row.cpu(0):.2f}"
        if isinstance(row, RelayedRow):
            cpu += f" + {row.server_cpu:.2f}"
            ratio = f"1/{own.rate / row.rate:.2f}"
        memory = f"{row.memory(1) / 2**20:.0f} + {row.memory(0) / 2**20:.0f}"
        print(f"{row.name:30}{row.rate / 1e6:8.1f}{ratio:>10}{reach:>10}{cpu:>20}{memory:>16}")
    print("CPU and memory: sender + receiver, and the CPU time of the relay.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the amounts of data")
    parser.add_argument("--kernel", action="store_true", help="also through two NATs, as root")
    arguments = parser.parse_args()
    rivals.go_inside()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (url, server):
        table = rows(arguments.scale, server, kernel=arguments.kernel)
        environment = {**os.environ, "CROWLINE_SERVER": url}
        for _ in range(arguments.rounds):
            for row in table:
                row.measure(environment)
    show(table)


if __name__ == "__main__":
    main()
