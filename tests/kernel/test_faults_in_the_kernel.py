"""Whatever breaks in the middle of a transfer, it ends whole, or in a sentence and can be gone on with.

Real commands behind NATs of the kernel; the sender is held to `RATE`, so that there is a middle.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crowline.lab.namespaces import Internet
from fault_bench import Command, FaultBench, enlarge, make_noise, small_disk
from needs import needs_program

Factory = Callable[..., Internet]

MEBIBYTE = 1 << 20
SIZE = 16 * MEBIBYTE
RATE = ("--limit", "6M")
HALF = SIZE // 2


@pytest.fixture
def bench(internet: Factory, tmp_path: Path) -> FaultBench:
    return FaultBench(internet("kernel"), tmp_path)


def assert_same(source: Path, out: Path) -> None:
    """The copy is whole, and nothing else is left of the way it came."""
    assert sorted(each.name for each in out.iterdir()) == [source.name]
    assert digest(out / source.name) == digest(source)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def begun(bench: FaultBench, source: Path, out: Path, *options: str) -> tuple[Command, Command, str]:
    """Sender and receiver in the middle of it, and the code."""
    sender = bench.send([source], *RATE, *options)
    code = sender.code()
    receiver = bench.receive(code, out, *options)
    receiver.until_direct()
    receiver.until_moved(HALF)
    return sender, receiver, code


def assert_done(*commands: Command) -> None:
    for command in commands:
        assert command.end() == 0, command.describe()


def test_a_receiver_that_was_killed_goes_on_when_its_command_is_run_again(
    bench: FaultBench, tmp_path: Path
) -> None:
    """The same code again, while the sender still runs; what had arrived does not move again."""
    source, out = make_noise(tmp_path / "holiday.mov", SIZE), tmp_path / "out"
    sender, receiver, code = begun(bench, source, out)
    receiver.kill()
    again = bench.receive(code, out)
    assert_done(again, sender)
    assert_same(source, out)
    assert moved(again) < SIZE


def test_a_sender_that_was_killed_goes_on_when_its_command_is_run_again(
    bench: FaultBench, tmp_path: Path
) -> None:
    """The same paths give the same code, and the receiver that still runs takes the rest."""
    source, out = make_noise(tmp_path / "holiday.mov", SIZE), tmp_path / "out"
    sender, receiver, code = begun(bench, source, out)
    sender.kill()
    again = bench.send([source])
    assert again.code() == code
    assert_done(again, receiver)
    assert_same(source, out)
    assert moved(again) < SIZE


def test_both_sides_killed_go_on_in_later_processes(bench: FaultBench, tmp_path: Path) -> None:
    """As after a power cut in both homes."""
    source, out = make_noise(tmp_path / "holiday.mov", SIZE), tmp_path / "out"
    sender, receiver, code = begun(bench, source, out)
    sender.kill()
    receiver.kill()
    again = bench.receive(code, out), bench.send([source])
    assert_done(*again)
    assert_same(source, out)
    assert moved(again[0]) < SIZE


def test_a_server_that_was_killed_is_not_missed_by_a_direct_path(bench: FaultBench, tmp_path: Path) -> None:
    """Who has found the way needs no guide any more."""
    source, out = make_noise(tmp_path / "holiday.mov", SIZE), tmp_path / "out"
    sender, receiver, _ = begun(bench, source, out)
    bench.kill_server()
    assert_done(sender, receiver)
    assert_same(source, out)


def test_nats_rebooted_while_the_server_was_restarted(bench: FaultBench, tmp_path: Path) -> None:
    """No path is left, nobody knows them at the server: they meet again by their own secret."""
    source, out = make_noise(tmp_path / "holiday.mov", SIZE), tmp_path / "out"
    sender, receiver, _ = begun(bench, source, out)
    bench.kill_server()
    bench.reboot_nats(3.0)
    bench.start_server()
    assert_done(sender, receiver)
    assert_same(source, out)


@pytest.mark.parametrize("seconds", [1.0, 35.0])
def test_a_cable_that_was_out(bench: FaultBench, tmp_path: Path, seconds: float) -> None:
    """A second is a hiccup; after half a minute even the server has given the place away."""
    source, out = make_noise(tmp_path / "holiday.mov", SIZE), tmp_path / "out"
    sender, receiver, _ = begun(bench, source, out)
    with bench.cable_out(bench.right.hosts[0]):
        time.sleep(seconds)
    assert_done(sender, receiver)
    assert_same(source, out)


def test_a_disk_that_is_full_says_so_and_takes_the_rest_later(bench: FaultBench, tmp_path: Path) -> None:
    """Half fits. The receiver says what is wrong, the sender why it stopped; with more room both go on."""
    source, out = make_noise(tmp_path / "holiday.mov", SIZE), tmp_path / "out"
    with small_disk(out, HALF):
        sender = bench.send([source])
        code = sender.code()
        receiver = bench.receive(code, out)
        assert receiver.end() == 8, receiver.describe()
        assert sender.end() == 5, sender.describe()
        assert "full" in receiver.last("error")["message"]
        assert "full" in sender.last("error")["message"]
        enlarge(out, 3 * SIZE)
        again = bench.receive(code, out), bench.send([source])
        assert_done(*again)
        assert_same(source, out)


def test_a_file_that_changes_while_it_is_sent_is_not_kept(bench: FaultBench, tmp_path: Path) -> None:
    """The sender says which one; nothing of it is taken for the real one, and what is steady arrives."""
    steady, source = make_noise(tmp_path / "steady", MEBIBYTE), make_noise(tmp_path / "zebra", SIZE)
    out = tmp_path / "out"
    sender = bench.send([steady, source], *RATE)
    receiver = bench.receive(sender.code(), out)
    receiver.until_moved(HALF)
    with source.open("r+b") as file:
        file.seek(HALF - 4 * MEBIBYTE)
        file.write(bytes(MEBIBYTE))
    assert sender.end() == 8, sender.describe()
    assert "zebra" in sender.last("error")["message"]
    receiver.end()
    assert digest(out / "steady") == digest(steady)
    assert not (out / "zebra").exists()
    again = bench.send([steady, source])
    assert_done(bench.receive(again.code(), out), again)
    assert digest(out / "zebra") == digest(source)


@pytest.mark.parametrize("clock", ["-9000d", "+9000d"])
def test_a_clock_that_is_wrong_by_years_does_not_matter(
    bench: FaultBench, tmp_path: Path, clock: str
) -> None:
    """Nothing that proves who is there depends on what day it is."""
    faketime = needs_program("faketime")
    source, out = make_noise(tmp_path / "holiday.mov", 4 * MEBIBYTE), tmp_path / "out"
    sender = bench.send([source])
    through = ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", faketime, "-f", clock)
    receiver = bench.receive(sender.code(), out, through=through)
    assert_done(sender, receiver)
    assert_same(source, out)
    receiver.until_direct()


def moved(command: Command) -> int:
    """Stream bytes that this side's links carried."""
    done = command.last("done")
    return int(done["direct_bytes"] + done["relay_bytes"] + done["hub_bytes"])
