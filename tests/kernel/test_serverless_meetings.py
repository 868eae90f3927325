"""Real programs that meet without a server: by host names, by tokens, and on one network."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crowline.lab.demo_files import make_file
from crowline.lab.demo_stage import Seat, seat, serve_on
from crowline.lab.kernel import load_rules
from crowline.lab.linux_nat import TABLE
from crowline.lab.namespaces import Internet
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Ipv6, PortMapping
from needs import needs_program
from places import with_ipv6

Factory = Callable[..., Internet]

CROWLINE = (sys.executable, "-m", "crowline")
PATIENCE = 60  # seconds for anything that a program does here
SIZE = 2_000_000


class Program:
    """One side: its JSON lines as they come, and what it is told on its standard input."""

    def __init__(self, place: Seat, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._complaints = folder / f"{arguments[0]}.stderr"
        with self._complaints.open("wb") as complaints:
            self.process = place.spawn(
                [*CROWLINE, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
        self._events: list[dict[str, Any]] = []
        self._told = threading.Condition()
        self._is_over = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def event(self, kind: str) -> dict[str, Any]:
        """The first of that kind; fails where the program ends without it."""

        def found() -> dict[str, Any] | None:
            return next((each for each in self._events if each["t"] == kind), None)

        with self._told:
            self._told.wait_for(lambda: self._is_over or found() is not None, PATIENCE)
            event = found()
        assert event is not None, self.complaint()
        return event

    def events(self, kind: str) -> list[dict[str, Any]]:
        with self._told:
            return [each for each in self._events if each["t"] == kind]

    def tell(self, line: str) -> None:
        """Paste a line."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Its exit code."""
        code = self.process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        return int(code)

    def complaint(self) -> str:
        return f"{self._events} {self._complaints.read_text(errors='replace')}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()

    def _listen(self) -> None:
        for line in self.process.stdout:
            with self._told:
                self._events.append(json.loads(line))
                self._told.notify_all()
        with self._told:
            self._is_over = True
            self._told.notify_all()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a program; none is left after the test."""
    with ExitStack() as stack:

        def start(place: Seat, *arguments: str) -> Program:
            program = Program(place, tmp_path / place.name, *arguments)
            stack.callback(program.close)
            return program

        yield start


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.mov"
    make_file(path, SIZE)
    return path


def seats(net: Internet, folder: Path, *presets: str) -> list[Seat]:
    return [seat(net, net.site(name), folder) for name in presets]


def assert_arrived(sender: Program, receiver: Program, source: Path, out: Path, kind: str = "direct") -> None:
    """Whole, and by no server."""
    codes = receiver.end(), sender.end()
    assert codes == (0, 0), f"{receiver.complaint()} {sender.complaint()}"
    assert (out / source.name).read_bytes() == source.read_bytes()
    for side in (sender, receiver):
        done = side.event("done")
        assert done["relay_bytes"] == done["hub_bytes"] == 0
        assert side.events("path")[-1]["kind"] == kind
    assert sender.event("peer")["words"] == receiver.event("peer")["words"]


@pytest.mark.parametrize("translator", ["kernel", "user"])
@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_two_homes_that_name_each_other_go_direct(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path, translator: str, first: str
) -> None:
    """Nothing else is in that internet; whichever side begins, and with a password."""
    net = internet(translator)
    left, right = seats(net, tmp_path, "home", "home")
    out = tmp_path / "out"
    out.mkdir()

    def send() -> Program:
        return run(left, "send", "--json", "--to", right.outside, "--password", "maple", str(source))

    def receive() -> Program:
        return run(
            right, "receive", "--json", "-y", "--out", str(out), "--from", left.outside, "--password", "maple"
        )

    if first == "sender":
        sender, receiver = send(), receive()
    else:
        receiver = receive()
        sender = send()
    assert_arrived(sender, receiver, source, out)


def test_translators_that_keep_stray_packets_are_not_led_astray(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path
) -> None:
    """The sender's openers die on their way: one that arrived would give the receiver's flow another port."""
    net = internet("kernel")
    net.set_core(8)
    sites = [net.site("home") for _ in range(2)]
    left, right = (seat(net, site, tmp_path) for site in sites)
    for site in sites:
        load_rules(f"{net.prefix}{site.name}", f"flush chain inet {TABLE} unasked\n")
    out = tmp_path / "out"
    out.mkdir()
    sender = run(left, "send", "--json", "--to", right.outside, str(source))
    sender.event("warn")  # that there is no password: its openers follow
    receiver = run(right, "receive", "--json", "-y", "--out", str(out), "--from", left.outside)
    assert_arrived(sender, receiver, source, out)


def test_two_firewalls_for_ipv6_let_each_other_in(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path
) -> None:
    """Nothing is translated there, but nobody is let in unasked; IPv4 would lead nowhere."""
    net = internet()
    sites = [net.site(with_ipv6("symmetric", Ipv6.FIREWALLED)) for _ in range(2)]
    left, right = (seat(net, site, tmp_path) for site in sites)
    hosts = [site.hosts[0].addresses[1] for site in sites]
    out = tmp_path / "out"
    out.mkdir()
    sender = run(left, "send", "--json", "--to", f"[{hosts[1]}]:5001", str(source))
    receiver = run(right, "receive", "--json", "-y", "--out", str(out), "--from", f"[{hosts[0]}]:5001")
    assert_arrived(sender, receiver, source, out)


def test_a_translator_that_draws_ports_is_met_by_a_side_that_anybody_reaches(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path
) -> None:
    """Without a password: the first packet comes from another port than was named, and is answered there."""
    net = internet()
    left, right = seats(net, tmp_path, "public", "symmetric")
    out = tmp_path / "out"
    out.mkdir()
    sender = run(left, "send", "--json", "--to", right.outside, str(source))
    receiver = run(right, "receive", "--json", "-y", "--out", str(out), "--from", left.outside)
    assert_arrived(sender, receiver, source, out)
    assert any("Compare the words" in each["message"] for each in sender.events("warn"))


def test_two_translators_that_draw_ports_end_in_a_sentence(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path
) -> None:
    """It cannot be done, and neither program hangs."""
    net = internet()
    left, right = seats(net, tmp_path, "symmetric", "symmetric")
    sender = run(left, "send", "--json", "--to", right.outside, "--timeout", "6", str(source))
    receiver = run(right, "receive", "--json", "-y", "--from", left.outside, "--timeout", "6")
    for program in (sender, receiver):
        assert program.end() == 3, program.complaint()
        assert "translator" in program.event("error")["hint"]


def test_two_homes_meet_by_tokens(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path
) -> None:
    """A STUN server says what leads there, nothing else is asked of it; the answer comes when it comes."""
    net = internet()
    left, right = seats(net, tmp_path, "home", "home")
    server = net.server()
    serve_on(net, server, tmp_path)
    stun = f"{server.addresses[0]}:3478"
    out = tmp_path / "out"
    out.mkdir()
    common = ("--json", "--no-server", "--no-port-mapping", "--stun", stun)
    sender = run(left, "send", *common, str(source))
    token = sender.event("token")["token"]
    receiver = run(right, "receive", *common, "-y", "--out", str(out), token)
    answer = receiver.event("token")["token"]
    sender.tell("that is not it")
    assert "copy" in sender.event("warn")["message"].lower() or "token" in sender.event("warn")["message"]
    sender.tell(answer)
    assert_arrived(sender, receiver, source, out)


@pytest.mark.parametrize("mapped", ["sender", "receiver"])
@pytest.mark.peer
def test_a_router_that_opens_ports_is_all_that_two_tokens_need(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path, mapped: str
) -> None:
    """No server is asked anything, and both translators draw ports: one opens a port for whoever comes."""
    needs_program("miniupnpd")
    net = internet("kernel")
    helping = replace(PRESETS["symmetric"], port_mapping=PortMapping.PCP)
    kinds = [helping if side == mapped else PRESETS["symmetric"] for side in ("sender", "receiver")]
    left, right = (seat(net, net.site(kind), tmp_path) for kind in kinds)
    out = tmp_path / "out"
    out.mkdir()
    sender = run(left, "send", "--json", "--no-server", str(source))
    token = sender.event("token")["token"]
    receiver = run(right, "receive", "--json", "--no-server", "-y", "--out", str(out), token)
    sender.tell(receiver.event("token")["token"])
    assert_arrived(sender, receiver, source, out)


def test_a_public_side_is_met_by_token_from_behind_any_translator(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path
) -> None:
    """Nobody tells the other one how it looks from outside: its checks do."""
    net = internet()
    left, right = seats(net, tmp_path, "public", "symmetric")
    out = tmp_path / "out"
    out.mkdir()
    common = ("--json", "--no-server", "--no-port-mapping")
    sender = run(left, "send", *common, str(source))
    receiver = run(right, "receive", *common, "-y", "--out", str(out), sender.event("token")["token"])
    sender.tell(receiver.event("token")["token"])
    assert_arrived(sender, receiver, source, out)


def test_two_hosts_of_one_network_meet_by_a_code(
    internet: Factory, run: Callable[..., Program], source: Path, tmp_path: Path
) -> None:
    """By multicast; the receiving side needs no flag, and a server that cannot be reached does not matter."""
    net = internet()
    site = net.site("home", hosts=2)
    left, right = (seat(net, site, tmp_path, host) for host in range(2))
    out = tmp_path / "out"
    out.mkdir()
    sender = run(left, "send", "--json", "--lan", str(source))
    code = sender.event("code")["code"]
    receiver = run(right, "receive", "--json", "-y", "--out", str(out), "--server", "ws://44.9.9.9", code)
    assert_arrived(sender, receiver, source, out, kind="lan")
