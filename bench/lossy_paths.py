"""What our session brings over long paths that lose packets or queue them, beside one kernel CUBIC flow.

For each path: a CUBIC flow alone, our two peers alone (product code from the code to the stream, on a path
without NATs), the two at once, and two CUBIC flows at once, for what a competing flow keeps. Figures are
MB/s of stream bytes at the receiver, the mean of the whole time and of its second half. Needs root.

    python bench/lossy_paths.py [--seconds 20] [PATH ...]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from statistics import fmean
from typing import Any

from crowline import host, join
from crowline.lab.demo_stage import serve_on
from crowline.lab.long_path import Distance, LongPath
from crowline.lab.namespaces import Internet

RTT_80 = {"delay": 0.04, "rate": 12.5e6, "queue": 1 << 20}  # 100 Mbit/s, a queue of one round trip
PATHS = {
    "clean": Distance(**RTT_80),
    "loss-0.1": Distance(**RTT_80, loss=0.001),
    "loss-1": Distance(**RTT_80, loss=0.01),
    "bufferbloat": Distance(delay=0.04, rate=12.5e6, queue=12_500_000),  # a second of queue
    "gigabit": Distance(delay=0.01, rate=125e6, queue=2_500_000),
}
PIECE = 256 * 1024
PATIENCE = 30.0  # seconds until the peers must have met
SETTLE = 1.0  # seconds until there is nothing left of how they met


# --- in the namespaces ------------------------------------------------------------------------------------


class Meter:
    """Says on standard output what has arrived in each second, and at the end which links carried it."""

    def __init__(self) -> None:
        self._began = 0.0
        self._counts: list[int] = []

    def count(self, size: int) -> None:
        now = time.monotonic()
        self._began = self._began or now
        second = int(now - self._began)
        self._counts += [0] * (second + 1 - len(self._counts))
        self._counts[second] += size

    def say(self, links: str = "") -> None:
        print(" ".join(map(str, self._counts)), "|", links, flush=True)


def sink(address: str) -> None:
    """One TCP flow arrives."""
    meter = Meter()
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        flow, _ = listener.accept()
        with flow, suppress(ConnectionResetError):
            while data := flow.recv(1 << 20):
                meter.count(len(data))
    meter.say()


def source(address: str, port: int, seconds: float) -> None:
    """One CUBIC flow leaves."""
    with socket.socket() as flow:
        flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        flow.connect((address, port))
        data, end = os.urandom(PIECE), time.monotonic() + seconds
        while time.monotonic() < end:
            flow.send(data)
        flow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def receive(url: str) -> None:
    """Our receiving peer: its code first, then what came."""
    meter = Meter()
    async with host(url, port_mapping=False) as room:
        print(room.code, flush=True)
        peer = await room.peer()
        stream = await anext(peer.streams())
        while data := await stream.read():
            meter.count(len(data))
        carried = peer._connection.session.links.received
        kinds = {
            number: link.pair.transport.value for number, link in peer._connection.carriers.paths.up.items()
        }
        meter.say(
            ", ".join(f"{kinds.get(n, 'ended')} {size / 1e6:.0f} MB" for n, size in carried.items() if size)
        )


async def send(url: str, code: str, seconds: float) -> None:
    """Our sending peer, by a direct path from the beginning. It ends at once: the rest does not count."""
    async with join(code, url, port_mapping=False) as peer:
        stream = await peer.open_stream()
        changed = asyncio.Event()
        peer.on_path(lambda now, before: changed.set())
        while peer.path is None or not peer.path.is_direct:
            await changed.wait()
            changed.clear()
        await asyncio.sleep(SETTLE)
        data, end = os.urandom(PIECE), time.monotonic() + seconds
        while time.monotonic() < end:
            await stream.write(data)
        await stream.close()
        await stream.delivered()


# --- outside ----------------------------------------------------------------------------------------------


class Course:
    """One path with both programs on it."""

    def __init__(self, net: Internet, path: LongPath, url: str, seconds: float) -> None:
        self._net, self._path, self._url, self._seconds = net, path, url, seconds

    def run(self, *programs: str) -> list[tuple[list[float], str]]:
        """MB of each second and the links, of programs (``cubic``, ``ours``) that send at once."""
        begun = [self._begin(program) for program in programs]
        return [self._end(receiver, sender) for receiver, sender in begun]

    def _begin(self, program: str) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
        far, near = self._path.far, self._path.near
        if program == "cubic":
            receiver = self._spawn(far, "sink", far.addresses[0])
            port = receiver.stdout.readline().strip()
            return receiver, self._spawn(near, "source", far.addresses[0], port, str(self._seconds))
        receiver = self._spawn(far, "receive", self._url)
        code = receiver.stdout.readline().strip()
        return receiver, self._spawn(near, "send", self._url, code, str(self._seconds))

    def _end(self, receiver: Any, sender: Any) -> tuple[list[float], str]:
        answer, _ = receiver.communicate(timeout=PATIENCE + 10 * self._seconds)
        sender.wait(PATIENCE)
        counts, links = answer.strip().splitlines()[-1].split("|")
        return [int(count) / 1e6 for count in counts.split()][: int(self._seconds)], links.strip()

    def _spawn(self, place: Any, *arguments: str) -> Any:
        argv = [sys.executable, __file__, "--role", *arguments]
        return self._net.spawn(place, argv, stdout=subprocess.PIPE, text=True)


@contextmanager
def course(name: str, seconds: float) -> Iterator[Course]:
    with Internet() as net, closing(LongPath(net, PATHS[name])) as path:
        yield Course(net, path, serve_on(net, path.middle, net.folder()), seconds)


def show(
    name: str, what: str, seconds: list[float], base: list[float] | None = None, links: str = ""
) -> None:
    late = seconds[len(seconds) // 2 :]
    share = "" if base is None else f"{fmean(seconds) / fmean(base):6.2f} x"
    print(f"{name:<12} {what:<34} {fmean(seconds):8.2f} {fmean(late):8.2f} {share:>9}  {links}", flush=True)


def measure(name: str, seconds: float) -> None:
    with course(name, seconds) as here:
        ((alone, _),) = here.run("cubic")
        show(name, "one CUBIC flow", alone)
        ((ours, links),) = here.run("ours")
        show(name, "ours", ours, alone, links)
        (rival, _), (ours, links) = here.run("cubic", "ours")
        show(name, "a CUBIC flow beside ours", rival, alone)
        show(name, "ours beside it", ours, None, links)
        (one, _), (other, _) = here.run("cubic", "cubic")
        show(name, "a CUBIC flow beside another", [*map(fmean, zip(one, other, strict=False))], alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"of {', '.join(PATHS)}; all by default")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench/lossy_paths.py needs root: it works in network namespaces")
        return
    print(f"{'path':<12} {'':<34} {'MB/s':>8} {'2nd half':>8}")
    for name in options.paths or PATHS:
        measure(name, options.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] != ["--role"]:
        main()
    elif sys.argv[2] == "sink":
        sink(sys.argv[3])
    elif sys.argv[2] == "source":
        source(sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
    elif sys.argv[2] == "receive":
        asyncio.run(receive(sys.argv[3]))
    else:
        asyncio.run(send(sys.argv[3], sys.argv[4], float(sys.argv[5])))
