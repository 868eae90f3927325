"""Our ICE beside aioice and libnice: same machine, same run, in turns (A B C A B C…), medians.

Bare agents over loopback and in the kernel laboratory, which needs root; the product there and in virtual
time. libnice needs the system's Python with its bindings. What is missing is left out and said. With
`--markdown FILE` the tables go there too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import tcp_punch
from ice_programs import virtual
from ice_programs.relay import Relay

from crowline.lab.bed import STUN_PORT, Bed, build_bed
from crowline.lab.peer_script import Role
from crowline.lab.presets import PRESETS

PROGRAMS = Path(__file__).with_name("ice_programs")
AGENTS, PAIRS, MEETING = (str(PROGRAMS / f"{name}.py") for name in ("agents", "libnice_pairs", "meeting"))
NICE_AGENT = str(Path(__file__).parents[1] / "tests" / "nice_agent.py")
SYSTEM_PYTHON = "/usr/bin/python3"
NAMES = ("ours", "aioice", "libnice")
TRICKLING = "libnice that trickles"  # which it does where its user asks for it

IDLE_PAIRS, IDLE_SECONDS = 50, 30.0

Medians: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A figure, as it stands in the table; `ratios` are the reach against each of the others."""

    figure: str
    unit: str
    values: Medians
    reach: float | None = None
    ratios: Medians = field(default_factory=dict)

    def cells(self) -> list[str]:
        ours = self.values["ours"]
        cells = [self.figure, f"**{ours:.4g}** {self.unit}"]
        for name in NAMES[1:]:
            there = self.values.get(name)
            ratio = f" ({ours / there:.2f})" if there else ""
            cells.append("–" if there is None else f"{there:.4g} {self.unit}{ratio}")
        wanted = [f"≤ {self.reach:g} {self.unit}"] if self.reach is not None else []
        wanted += [f"≤ {ratio:g} × {name}" for name, ratio in self.ratios.items()]
        return [*cells, ", ".join(wanted), self.verdict() if wanted else ""]

    def verdict(self) -> str:
        ours = self.values["ours"]
        missed = self.reach is not None and ours > self.reach
        for name, ratio in self.ratios.items():
            missed |= name in self.values and ours > ratio * self.values[name]
        return "missed" if missed else "reached"


# --- bare agents ----------------------------------------------------------------------------------------


def python_of(name: str) -> list[str]:
    """How a script of that program is started."""
    return [SYSTEM_PYTHON, PAIRS] if name == "libnice" else [sys.executable, AGENTS, name]


def installed() -> list[str]:
    """The programs that this machine has."""
    test = "import gi; gi.require_version('Nice', '0.1'); from gi.repository import Nice"
    with suppress(OSError):
        if subprocess.run([SYSTEM_PYTHON, "-c", test], capture_output=True, check=False).returncode == 0:
            return list(NAMES)
    print("libnice's bindings (gir1.2-nice-0.1, python3-gi) are not installed.")
    return list(NAMES[:2])


def loopback(names: Sequence[str], rounds: int) -> Medians:
    """Milliseconds to connect two agents of one process by their loopback addresses."""
    processes = {name: piped([*python_of(name), "connect"]) for name in names}
    try:
        return in_turns(names, rounds * 10, lambda name: float(ask(processes[name])))
    finally:
        for process in processes.values():
            end(process)


def idle(name: str) -> tuple[float, float | None]:
    """Bytes of memory for one more idle agent, and packets that it sends a second."""
    argv = [*python_of(name), "idle", str(IDLE_PAIRS)]
    is_alone = os.geteuid() == 0 and shutil.which("unshare") is not None
    if is_alone:  # in a network of its own, whose counters count nothing else
        argv = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *argv]
    process = piped(argv)
    try:
        assert process.stdout is not None
        before, after = (float(process.stdout.readline()) for _ in range(2))
        packets = None
        if is_alone:
            sent = sent_by(process.pid)
            time.sleep(IDLE_SECONDS)
            packets = (sent_by(process.pid) - sent) / IDLE_SECONDS / (2 * IDLE_PAIRS + 2)
        return (after - before) / (2 * IDLE_PAIRS), packets
    finally:
        end(process)


def sent_by(pid: int) -> int:
    """UDP datagrams that the network of that process has sent."""
    names, values = re.findall(r"^Udp: (.*)$", Path(f"/proc/{pid}/net/snmp").read_text(), re.MULTILINE)
    return int(dict(zip(names.split(), values.split(), strict=True))["OutDatagrams"])


def between_homes(bed: Bed, name: str) -> float:
    """Milliseconds from the start of both agents, behind a NAT each, to both having nominated."""
    with pair_of(bed, name) as pair:
        return Relay(pair).run()


@contextmanager
def pair_of(bed: Bed, name: str) -> Iterator[list[socket.socket]]:
    """Two agents that are ready to begin, each at the far end of a socket."""
    server = f"{bed.server.addresses[0]}:{STUN_PORT}"
    roles: tuple[Role, ...] = ("a", "b")
    sockets, processes = [], []
    try:
        for role in roles:
            host, controlling = bed.host(role).addresses[0], str(int(role == "a"))
            argv = [*python_of(name), "peer", host, server, controlling]
            if name in ("libnice", TRICKLING):
                options = (f"address={host}", f"stun={server}", f"controlling={controlling}")
                trickle = f"trickle={int(name == TRICKLING)}"
                argv = [SYSTEM_PYTHON, NICE_AGENT, *options, trickle, "begin=1"]
            mine, theirs = socket.socketpair()
            sockets.append(mine)
            processes.append(bed.spawn(role, argv, stdin=theirs, stdout=theirs))
            theirs.close()
        yield sockets
    finally:
        for process, mine in zip(processes, sockets, strict=True):
            with suppress(OSError):
                mine.sendall(b"end\n")
            end(process)
            mine.close()


# --- the product ----------------------------------------------------------------------------------------


def meeting(bed: Bed, wanted: str) -> Medians:
    """Milliseconds from the hub's word to a path of each kind, the later of both sides."""
    host = bed.spawn("a", [sys.executable, MEETING, "host", wanted], **PIPES)
    join = bed.spawn("b", [sys.executable, MEETING, "join", wanted], **PIPES)
    try:
        join.stdin.write(host.stdout.readline())
        join.stdin.flush()
        one, other = (json.loads(each.stdout.readline()) for each in (host, join))
        return {kind: max(one[kind], other[kind]) for kind in one.keys() & other.keys()}
    finally:
        end(host)
        end(join)


def median_of(runs: Sequence[Medians], kind: str) -> float:
    return statistics.median(run[kind] for run in runs if kind in run)


# --- processes and turns --------------------------------------------------------------------------------

PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


def piped(argv: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(argv, **PIPES)


def ask(process: subprocess.Popen[str]) -> str:
    """One line there, one back."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def end(process: subprocess.Popen[Any]) -> None:
    """End it by the end of its input, and otherwise all the same."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def in_turns(names: Sequence[str], rounds: int, measure: Callable[[str], float]) -> Medians:
    """The median of each; the first round is for warming up."""
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names:
            measured = measure(name)
            if number:
                results[name].append(measured)
    return {name: statistics.median(found) for name, found in results.items()}


# --- the tables -----------------------------------------------------------------------------------------


def bare_rows(names: Sequence[str], rounds: int) -> Iterator[Row]:
    yield Row("loopback, host–host: start to both nominated", "ms", loopback(names, rounds), 2.0)
    resting = {name: idle(name) for name in names}
    memory = {name: size / 1000 for name, (size, _) in resting.items()}
    yield Row("memory of an idle agent", "kB", memory, 50.0)
    packets = {name: sent for name, (_, sent) in resting.items() if sent is not None}
    if packets:
        yield Row("packets a second that an idle agent sends", "/s", packets, 1.0)


def kernel_rows(names: Sequence[str], rounds: int) -> Iterator[Row]:
    homes, hard = ("home", "home"), ("home", "symmetric")
    with bed_of(*homes) as bed:
        variants = [*names, TRICKLING] if "libnice" in names else names
        nominated = in_turns(variants, rounds, lambda name: between_homes(bed, name))
        ratios = {"aioice": 0.8, "libnice": 0.6}
        yield Row("bare agents, two `home` NATs: start to both nominated", "ms", nominated, None, ratios)
        if TRICKLING in nominated:
            trickling = {"ours": nominated["ours"], "libnice": nominated[TRICKLING]}
            yield Row("the same, libnice told to trickle", "ms", trickling)
        runs = [meeting(bed, "direct") for _ in range(rounds)]
    yield Row(
        "product, two `home` NATs: first byte by link zero", "ms", {"ours": median_of(runs, "first")}, 60.0
    )
    yield Row("the same: direct link in use", "ms", {"ours": median_of(runs, "direct")}, 150.0)
    with bed_of(*hard) as bed:
        runs = [meeting(bed, "relay") for _ in range(rounds)]
    figure = "product, `home` and `symmetric`: relay link in use"
    yield Row(figure, "ms", {"ours": median_of(runs, "relay")}, 250.0)


@contextmanager
def bed_of(a: str, b: str) -> Iterator[Bed]:
    with build_bed(PRESETS[a], PRESETS[b]) as bed:
        bed.serve()
        yield bed


def virtual_rows(seeds: int) -> Iterator[Row]:
    runs = [virtual.set_up("home", "home", seed) for seed in range(seeds)]
    hard = [virtual.set_up("home", "symmetric", seed) for seed in range(seeds)]
    yield Row(
        "virtual, two `home` NATs: first byte by link zero", "ms", {"ours": median_of(runs, "hub")}, 60.0
    )
    yield Row("the same: direct link in use", "ms", {"ours": median_of(runs, "direct")}, 150.0)
    figure = "virtual, `home` and `symmetric`: relay link in use"
    yield Row(figure, "ms", {"ours": median_of(hard, "relay")}, 250.0)
    gaps = [virtual.failover(seed) for seed in range(seeds)]
    yield Row(
        "virtual, direct path cut: bytes flow again, median", "s", {"ours": statistics.median(gaps)}, 2.0
    )
    yield Row("the same, the longest", "s", {"ours": max(gaps)}, 2.0)
    times = tcp_punch.met((tcp_punch.Temper.RESET, tcp_punch.Temper.RESET), 0.02, 0.0)
    median = {"ours": statistics.median(times)}
    yield Row("virtual, TCP by two NATs that refuse, skew up to 100 ms: connected", "ms", median, 250.0)
    missed = {"ours": 100 * (1 - len(times) / tcp_punch.RUNS)}
    yield Row("the same: not within 5 s", "%", missed, 1.0)
    sent = {"ours": virtual.keepalive(600.0)}
    yield Row("virtual, product: packets a second of an idle host, all links", "/s", sent)


def first_attempts(seeds: int, jobs: int) -> list[str]:
    """What the share of direct paths on lines that lose packets is, and where it is least."""
    results = virtual.first_attempts(seeds, jobs)
    outcomes = [outcome for each in results.values() for outcome in each]
    share = sum(outcomes) / len(outcomes)
    worst = sorted(results, key=lambda pair: sum(results[pair]))[:3]
    weak = ", ".join(f"{a} × {b} {sum(results[a, b]) / seeds:.1%}" for a, b in worst)
    verdict = "reached" if share >= 0.99 else f"missed; the least: {weak}"
    return [
        f"Direct on the first attempt, in virtual time, with {virtual.LOSS:.0%} of all packets lost:",
        f"{share:.2%} of {len(outcomes)} attempts, {seeds} for each of the {len(results)} pairs of presets",
        f"that get a direct path where nothing is lost (reach: ≥ 99 %, {verdict}).",
    ]


HEAD = ("figure", "ours", "aioice (ours / it)", "libnice (ours / it)", "reach", "")


def table(rows: Sequence[Row]) -> list[str]:
    lines = [HEAD, ("---", "---:", "---:", "---:", "---", "---"), *(row.cells() for row in rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


INTRODUCTION = """\
# ICE beside aioice and libnice

Made by `{command}`, and by nothing else. Medians of {rounds}
rounds in turns (loopback: ten times as many), on a machine with {cores} cores{load}. aioice is {aioice},
libnice Debian's {libnice}.

The two NATs and the hosts behind them are those of the laboratory: 10 ms between a host and the server, 20 ms
between the hosts, one way. The bare agents have one signalling, which takes 20 ms for each line; each has one
host and one server-reflexive candidate, tells them as its library does (ours as found, the others when all
are gathered), and begins when both processes are up. aioice and libnice have their own defaults; ours is set
as between two of its kind: 5 ms between checks, and nominations that may be followed by others. "Nominated"
is the later of the two sides. Memory is what the process grows by for each agent of {idle} connected pairs,
its socket included.
"""


def introduction(rounds: int) -> list[str]:
    with suppress(OSError):
        load = f", whose load was {os.getloadavg()[1]:.1f}"
    return INTRODUCTION.format(
        command=" ".join(["python", "bench/ice.py", *sys.argv[1:]]),
        rounds=rounds,
        cores=os.cpu_count(),
        load=load,
        aioice=version_of("aioice"),
        libnice=debian_version("libnice10"),
        idle=IDLE_PAIRS,
    ).splitlines()


def version_of(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def debian_version(package: str) -> str:
    argv = ["dpkg-query", "-W", "-f", "${Version}", package]
    with suppress(OSError):
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout or "missing"
    return "missing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seeds", type=int, default=20, help="virtual attempts of each pair")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    names = installed()
    rows: list[Row] = []
    sources = [bare_rows(names, options.rounds)]
    if os.geteuid() == 0:
        sources.append(kernel_rows(names, options.rounds))
    else:
        print("The kernel laboratory needs root.")
    for row in [*sources, virtual_rows(options.seeds)]:
        for each in row:
            print(table([each])[-1], flush=True)
            rows.append(each)
    text = first_attempts(options.seeds, options.jobs)
    print("\n".join(text))
    if options.markdown is not None:
        whole = [*introduction(options.rounds), "", *table(rows), "", *text]
        options.markdown.write_text("\n".join(whole) + "\n")


if __name__ == "__main__":
    main()
