"""`crowline send` of a file of 1 GiB beside `wormhole send` and `scp` on this machine: seconds, CPU, memory.

Time counts from the code on the sender's screen, when the receiver is started, to the receiver's end, when
all is verified and in its place; for scp, which has no code, from its start to its end. They are whole
programs, so that their start counts. Servers: our own on loopback, a mailbox server for wormhole, an sshd
with keys of its own for scp, where there is one. In turns, `--rounds` times; medians.
"""

from __future__ import annotations

import argparse
import filecmp
import getpass
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import rivals
from throughput import served

SIZE = 1 << 30
# Seconds for one of them.
PATIENCE = 300
MAILBOX, SSH = 14000, 12222
# As many times faster as the project wants to be.
REACH = {"wormhole send": 3.0, "scp": 1.0}


class Run:
    """One transfer's figures."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        # Bytes at the peak of each process, in the order in which they ended.
        self.memory: list[int] = []

    def wait(self, process: subprocess.Popen[Any]) -> None:
        """Until it has ended well; its CPU time counts."""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{process.args} left with {process.returncode}")
        self.cpu += used.ru_utime + used.ru_stime
        self.memory.append(used.ru_maxrss * 1024)


def until(stream: IO[str], pattern: str) -> str:
    """The first group of the first line that has it."""
    for line in stream:
        if found := re.search(pattern, line):
            return found[1]
    raise SystemExit("a program ended without its code")


def by_crowline(file: Path, folder: Path, server: tuple[str, int]) -> Run:
    url, _ = server
    common = ["--server", url, "--json", "--no-port-mapping"]
    crowline = [sys.executable, "-m", "crowline"]
    sender = subprocess.Popen([*crowline, "send", *common, str(file)], stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None
    code = until(sender.stdout, r'"t":"code","code":"([^"]+)"')
    return finish(sender, [*crowline, "receive", *common, "-y", "--out", str(folder), code], folder)


def by_wormhole(file: Path, folder: Path, _: Any) -> Run:
    program = [str(Path(rivals.python()).with_name("wormhole"))]
    program += ["--relay-url", f"ws://127.0.0.1:{MAILBOX}/v1", "--transit-helper", "tcp:127.0.0.1:1"]
    sender = subprocess.Popen([*program, "send", str(file)], stderr=subprocess.PIPE, text=True)
    assert sender.stderr is not None
    code = until(sender.stderr, r"code is: (\S+)")
    return finish(sender, [*program, "receive", "--accept-file", code], folder)


def finish(sender: subprocess.Popen[str], receive: list[str], folder: Path) -> Run:
    """Start the receiver and measure until both have ended."""
    run, began = Run(), time.perf_counter()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    receiver = subprocess.Popen(receive, cwd=folder, **quiet)
    for stream in (sender.stdout, sender.stderr):
        if stream is not None:
            stream.read()
    run.wait(receiver)
    run.seconds = time.perf_counter() - began
    run.wait(sender)
    return run


def by_cp(file: Path, folder: Path, _: Any) -> Run:
    """A copy without anybody's network: what reading and writing alone cost on this machine."""
    run, began = Run(), time.perf_counter()
    run.wait(subprocess.Popen(["cp", "--reflink=never", str(file), str(folder)]))
    run.seconds = time.perf_counter() - began
    return run


def by_scp(file: Path, folder: Path, keys: str) -> Run:
    options = ["-q", "-P", str(SSH), "-i", f"{keys}/user"]
    for option in ("BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={keys}/known"):
        options += ["-o", option]
    run, began = Run(), time.perf_counter()
    target = f"{getpass.getuser()}@127.0.0.1:{folder}/"
    run.wait(subprocess.Popen(["scp", *options, str(file), target]))
    run.seconds = time.perf_counter() - began
    return run


@contextmanager
def mailbox(folder: Path) -> Iterator[str]:
    twist = Path(rivals.python()).with_name("twist")
    command = [str(twist), "wormhole-mailbox", f"--port=tcp:{MAILBOX}:interface=127.0.0.1"]
    with running(command, folder) as _:
        yield ""


@contextmanager
def sshd(folder: Path) -> Iterator[str]:
    """An sshd that knows one key; the folder of its keys."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    known = folder / "authorized"
    shutil.copy(folder / "user.pub", known)
    Path("/run/sshd").mkdir(exist_ok=True)
    command = [shutil.which("sshd", path="/usr/sbin:/sbin") or "sshd", "-D", "-e", "-f", "/dev/null"]
    for option in (
        f"Port={SSH}",
        "ListenAddress=127.0.0.1",
        f"HostKey={folder}/host",
        f"AuthorizedKeysFile={known}",
        "StrictModes=no",
        "PidFile=none",
        "Subsystem=sftp internal-sftp",
    ):
        command += ["-o", option]
    with running(command, folder):
        yield str(folder)


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[Any]]:
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        time.sleep(3)
        yield server
    finally:
        server.terminate()
        server.wait()


def measure(
    name: str,
    way: Callable[[Path, Path, Any], Run],
    server: Callable[[Path], Any],
    file: Path,
) -> Run:
    folder = tempfile.TemporaryDirectory
    with folder() as place, folder() as out, server(Path(place)) as where:
        run = way(file, Path(out), where)
        if not filecmp.cmp(file, Path(out) / file.name, shallow=False):
            raise SystemExit(f"{name}: what came is not what was sent")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=SIZE, help="bytes")
    arguments = parser.parse_args()
    rivals.go_inside()
    # Programs that were installed have been compiled; ours is when the first round runs it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    ways: dict[str, tuple[Callable[..., Run], Callable[..., Any]]] = {
        "crowline send": (by_crowline, served),
        "wormhole send": (by_wormhole, mailbox),
    }
    if shutil.which("sshd", path="/usr/sbin:/sbin"):
        ways["scp"] = (by_scp, sshd)
    ways["cp"] = (by_cp, nullcontext)
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "holiday.mov"
        with file.open("wb") as sink:
            for at in range(0, arguments.size, 1 << 20):
                sink.write(os.urandom(min(1 << 20, arguments.size - at)))
        for _ in range(arguments.rounds):
            for name, (way, server) in ways.items():
                runs[name].append(measure(name, way, server, file))
    show(runs, arguments.size)


def show(runs: dict[str, list[Run]], size: int) -> None:
    own = statistics.median(run.seconds for run in runs["crowline send"])
    amount = f"{size / 2**30:.3g} GiB"
    print(f"{amount:16}{'seconds':>9}{'MB/s':>8}{'ours is':>10}{'to reach':>10}{'CPU s/GB':>10}{'MiB':>16}")
    for name, measured in runs.items():
        seconds = statistics.median(run.seconds for run in measured)
        cpu = statistics.median(run.cpu for run in measured) / size * 1e9
        peaks = zip(*(run.memory for run in measured), strict=True)
        memory = " + ".join(f"{max(each) / 2**20:.0f}" for each in peaks)
        ratio = "" if seconds == own else f"{seconds / own:.2f} x"
        reach = f"{REACH[name]:g} x" if name in REACH else ""
        rate = size / seconds / 1e6
        print(f"{name:16}{seconds:9.2f}{rate:8.0f}{ratio:>10}{reach:>10}{cpu:10.2f}{memory:>16}")
    print("CPU: both sides, of scp its own side only. Memory: receiver + sender.")


if __name__ == "__main__":
    main()
