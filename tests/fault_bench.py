"""Two homes of the kernel lab with the product's own programs in them, and what can be done to all that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crowline.lab.demo_stage import WEB_PORT, Seat, seat, serve_on
from crowline.lab.demo_transfer import CROWLINE, Event
from crowline.lab.kernel import find_program
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host, Site

# Seconds until what must happen is taken for lost.
PATIENCE = 60.0
_POLL = 0.02
# Drops every packet without a word, as a cable does that is pulled somewhere behind the next switch.
_CUT = """
table inet cut {
  chain in { type filter hook input priority -300; policy accept; iifname != "lo" drop; }
  chain out { type filter hook output priority -300; policy accept; oifname != "lo" drop; }
}
"""


class Command:
    """A running `crowline` command that prints JSON, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[Any], complaints: Path) -> None:
        self.process = process
        self.events: list[Event] = []
        self._complaints = complaints
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def last(self, kind: str) -> Event:
        """Its newest event of that type; empty where there is none."""
        return next((event for event in reversed(self.events) if event.get("t") == kind), {})

    def until(self, holds: Callable[[Event], bool]) -> Event:
        """The first event for which that holds, waited for."""
        seen, deadline = 0, time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None and not self._listener.is_alive()
            while seen < len(self.events):
                if holds(self.events[seen]):
                    return self.events[seen]
                seen += 1
            if ended:
                break
            time.sleep(_POLL)
        raise AssertionError(f"it never came; {self.describe()}")

    def code(self) -> str:
        """What the other side has to type."""
        return str(self.until(lambda event: event["t"] == "code")["code"])

    def until_moved(self, count: int) -> None:
        """Wait until so many bytes have gone over, as this side counts them."""
        self.until(lambda event: event["t"] == "progress" and event["bytes"] >= count)

    def until_direct(self) -> None:
        """Wait for a direct path."""
        self.until(lambda event: event["t"] == "path" and event["kind"] in ("direct", "lan"))

    def kill(self) -> None:
        """As `kill -9`: it cannot say a word."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Its exit code, once it has ended."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; {self.describe()}") from None
        self._listener.join(PATIENCE)
        return int(self.process.returncode)

    def describe(self) -> str:
        """For a failed assertion."""
        told = [event for event in self.events if event["t"] != "progress"]
        return (
            f"exit {self.process.poll()}, {told[-8:]}, {self._complaints.read_text(errors='replace')[-2000:]}"
        )

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with suppress(ValueError):
                    self.events.append(json.loads(line))


class FaultBench:
    """`left` and `right` are behind NATs; the server is reached by `url`."""

    def __init__(self, net: Internet, folder: Path, profile: str = "home") -> None:
        self.net, self.folder = net, folder
        self.left, self.right = net.site(profile), net.site(profile)
        self._host = net.server()
        self._seats = {site.name: seat(net, site, folder) for site in (self.left, self.right)}
        self._server: subprocess.Popen[Any] | None = None
        self._count = 0
        self.url = ""
        self.start_server()

    def start_server(self) -> None:
        """The same server again: nothing of what the one before knew."""
        before = set(map(id, self.net._processes))
        self.url = serve_on(self.net, self._host, self.folder, web_port=WEB_PORT)
        [self._server] = [each for each in self.net._processes if id(each) not in before]

    def kill_server(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGKILL)
        self._server.wait(PATIENCE)

    def send(self, paths: Sequence[Path], *options: str, site: Site | None = None) -> Command:
        return self._start(site or self.left, ["send", "--json", *options, *map(str, paths)])

    def receive(
        self, code: str, out: Path, *options: str, site: Site | None = None, through: Sequence[str] = ()
    ) -> Command:
        """`through`: a command line that runs the one behind it."""
        out.mkdir(parents=True, exist_ok=True)
        argv = ["receive", "--json", "-y", "--out", str(out), *options, code]
        return self._start(site or self.right, argv, through)

    def reboot_nats(self, seconds: float) -> None:
        """Both homes are cut off for that long, and no mapping is left afterwards."""
        with self.cable_out(self.left.hosts[0]), self.cable_out(self.right.hosts[0]):
            time.sleep(seconds)
            self.net.advance(10_000_000)

    @contextmanager
    def cable_out(self, host: Host) -> Iterator[None]:
        """While it is entered, the host hears and says nothing, and is not told why."""
        nft = [find_program("ip"), "netns", "exec", host.namespace, find_program("nft")]
        subprocess.run([*nft, "-f", "-"], input=_CUT, text=True, check=True)
        try:
            yield
        finally:
            subprocess.run([*nft, "delete", "table", "inet", "cut"], check=True)

    def _start(self, site: Site, argv: Sequence[str], through: Sequence[str] = ()) -> Command:
        self._count += 1
        place: Seat = self._seats[site.name]
        complaints = self.folder / f"{argv[0]}-{self._count}.err"
        with complaints.open("wb") as errors:
            verb, *rest = argv
            process = place.spawn(
                [*through, *CROWLINE, verb, "--server", self.url, *rest],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return Command(process, complaints)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """While it is entered, `folder` is a disk of so many bytes."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def enlarge(folder: Path, size: int) -> None:
    """That disk has so many bytes from now on."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def make_noise(path: Path, size: int) -> Path:
    """A file that nothing could have guessed."""
    path.write_bytes(os.urandom(size))
    return path
