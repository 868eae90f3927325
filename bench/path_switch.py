"""How long bulk data pauses when it goes over from one path to another, while both live and when one dies.

Two product peers 20 ms apart (100 Mbit/s), the server with its relay half-way. One side sends all the time;
the other notes when something arrives. In each round every direct path is cut without a word, so that the
relay takes over; then it is mended, and a direct path takes over from the relay, which lives on. The pause is
the longest time without an arrival in the second around the switch. Needs root.

    python bench/path_switch.py [--rounds 12]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

from crowline import host, join
from crowline.lab.demo_stage import serve_on
from crowline.lab.kernel import load_rules
from crowline.lab.long_path import Distance, LongPath
from crowline.lab.namespaces import Internet

DISTANCE = Distance(delay=0.01, rate=12.5e6, queue=256 * 1024)
PIECE = 64 * 1024
# Seconds in which a switch must have happened.
PATIENCE = 60.0
# Seconds of bulk before each event.
CALM = 1.5
# Seconds before and after an event in which a pause counts as its own.
AROUND = 1.0
# Arrivals closer together than this are no pause worth noting.
NOTED = 0.005
CUT = "table ip cut { chain forward { type filter hook forward priority 0; drop; }; }"
MENDED = "table ip cut { chain forward { type filter hook forward priority 0; }; }\ndelete table ip cut"


# --- in the namespaces ------------------------------------------------------------------------------------


async def receive(url: str) -> None:
    """Say the code, then each change of path and each pause, as one JSON list a line."""
    async with host(url, port_mapping=False) as room:
        say("code", room.code)
        room.on_path(lambda now, _: say("path", time.monotonic(), now.kind if now else "none"))
        peer = await room.peer()
        stream = await peer.accept_stream()
        last = time.monotonic()
        with suppress(Exception):
            while await stream.read():
                now = time.monotonic()
                if now - last >= NOTED:
                    say("pause", last, now)
                last = now


async def send(url: str, code: str) -> None:
    """Send until standard input ends."""
    async with join(code, url, port_mapping=False) as peer:
        stream = await peer.open_stream()
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        piece = bytes(PIECE)
        while not ended.done():
            await stream.write(piece)


def say(*words: object) -> None:
    print(json.dumps(words), flush=True)


# --- here -------------------------------------------------------------------------------------------------


@dataclass
class Arrivals:
    """What the receiving peer said; times are of this machine's monotonic clock."""

    paths: list[tuple[float, str]] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def hear(self, line: str) -> None:
        what, *rest = json.loads(line)
        if what == "path":
            self.paths.append((rest[0], rest[1]))
        elif what == "pause":
            self.pauses.append((rest[0], rest[1]))

    def longest(self, event: float) -> float:
        """Seconds of the longest pause around that time."""
        return max((end - begin for begin, end in self.pauses if near(begin, end, event)), default=0.0)


def near(begin: float, end: float, event: float) -> bool:
    return begin < event + AROUND and end > event - AROUND


async def measure(rounds: int) -> tuple[list[float], list[float]]:
    """Pauses in seconds: when the direct paths died, and when one took over from the living relay."""
    with Internet() as net:
        path = LongPath(net, DISTANCE, "switch")
        url = serve_on(net, path.middle, net.folder())
        program = [sys.executable, __file__, url]
        receiving = net.spawn(path.far, [*program, "--receive"], stdout=subprocess.PIPE, text=True)
        assert receiving.stdout is not None
        code = json.loads(receiving.stdout.readline())[1]
        sending = net.spawn(path.near, [*program, "--send", code], stdin=subprocess.PIPE)
        try:
            return await switch_often(path, receiving, rounds)
        finally:
            for process in (sending, receiving):
                process.kill()
                process.wait()
            path.close()


async def switch_often(
    path: LongPath, receiving: subprocess.Popen[str], rounds: int
) -> tuple[list[float], list[float]]:
    arrivals, loop = Arrivals(), asyncio.get_running_loop()
    output = receiving.stdout
    assert output is not None

    async def listen() -> None:
        while line := await loop.run_in_executor(None, output.readline):
            arrivals.hear(line)

    async def until(kinds: set[str], since: float) -> float:
        """When such a path took over; `since` where it had before."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = [at for at, kind in arrivals.paths if at >= since and kind in kinds]
            if arrivals.paths and arrivals.paths[-1][1] in kinds:
                return found[-1] if found else since
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {kinds} path in {PATIENCE:.0f} s")
            await asyncio.sleep(0.05)

    listening = asyncio.create_task(listen())
    deaths, returns = [], []
    try:
        began = time.monotonic() - PATIENCE
        await until({"direct", "lan"}, began)
        for _ in range(rounds):
            await asyncio.sleep(CALM)
            cut_at = time.monotonic()
            load_rules(path.middle.namespace, CUT)
            await until({"relay", "hub"}, cut_at)
            await asyncio.sleep(AROUND)
            deaths.append(arrivals.longest(cut_at))
            mended_at = time.monotonic()
            load_rules(path.middle.namespace, MENDED)
            back_at = await until({"direct", "lan"}, mended_at)
            await asyncio.sleep(AROUND)
            returns.append(arrivals.longest(back_at))
    finally:
        receiving.kill()
        await listening
    return deaths, returns


def show(title: str, pauses: list[float]) -> None:
    ranked = sorted(pauses)
    middle, high = ranked[len(ranked) // 2], ranked[min(len(ranked) - 1, round(0.95 * len(ranked)))]
    print(f"{title:<44} median {middle * 1000:4.0f} ms   p95 {high * 1000:4.0f} ms   n {len(ranked)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--receive", action="store_true")
    parser.add_argument("--send", metavar="CODE")
    options = parser.parse_args()
    if options.receive:
        asyncio.run(receive(options.url))
    elif options.send:
        asyncio.run(send(options.url, options.send))
    else:
        deaths, returns = asyncio.run(measure(options.rounds))
        show("both live: from the relay to a direct path", returns)
        show("the direct path dies: to the relay", deaths)


if __name__ == "__main__":
    main()
