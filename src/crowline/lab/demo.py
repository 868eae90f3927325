"""The demonstration: real programs, real files, a whole small internet; and whether all of it went right."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crowline.lab.demo_files import make_file, make_folder
from crowline.lab.demo_stage import Seat, Stage, loopback_stage, missing_for_namespaces, namespace_stage
from crowline.lab.demo_transfer import Result, TransferFailed, transfer
from crowline.lab.namespaces import HOST_DELAY, TranslatorChoice

FILE_SIZE = 64 << 20  # bytes
RELAYED_SIZE = 8 << 20  # bytes: more than the hub carries of a meeting, so that the relay has work
RATE_SIZE = 1 << 30  # bytes
_ROOM = 3  # times the largest transfer: the original, the copy, and as much again to spare


class Narrator(Protocol):
    """Whoever tells the person what happens."""

    def heading(self, text: str) -> None: ...

    def line(self, label: str, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person asked for. `delay` is one way between a host and the server, in seconds."""

    rate: bool = False
    delay: float = HOST_DELAY
    translator: TranslatorChoice = "auto"
    loopback: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One transfer of the demonstration. `expected` is the kind of path it must end on; "" for any."""

    title: str
    sender: Seat
    receiver: Seat
    sources: tuple[Path, ...]
    expected: str


def run_demo(wishes: Wishes, narrator: Narrator) -> list[str]:
    """Play everything and say how it goes; give back what went wrong, nothing when all is right."""
    with (
        _folder(RATE_SIZE if wishes.rate else FILE_SIZE) as folder,
        _stage(wishes, folder, narrator) as stage,
    ):
        for label, text in stage.scenery:
            narrator.line(label, text)
        problems = []
        for number, case in enumerate(_cases(wishes, stage, folder), start=1):
            narrator.heading(f"{number}. {case.title}")
            problems += _play(case, stage, folder / f"case{number}", narrator)
        return problems


def _stage(wishes: Wishes, folder: Path, narrator: Narrator) -> AbstractContextManager[Stage]:
    reason = "asked for" if wishes.loopback else missing_for_namespaces()
    if not reason:
        narrator.heading("Two machines behind two different NATs, one server; all of it inside this machine")
        return namespace_stage(folder, wishes.delay, wishes.translator)
    narrator.heading(f"Two processes on loopback, no NAT between them ({reason})")
    return loopback_stage(folder)


def _cases(wishes: Wishes, stage: Stage, folder: Path) -> Iterator[Case]:
    """Built one after the other, so that each one's files are made just before it is played."""
    left, right = stage.home
    sources = folder / "sources"
    sources.mkdir()
    direct = "direct" if left.outside else ""
    if wishes.rate:
        make_file(sources / "large.bin", RATE_SIZE)
        yield Case("A file of 1 GiB", left, right, (sources / "large.bin",), direct)
        return
    make_file(sources / "holiday.mov", FILE_SIZE)
    yield Case("A file of 64 MiB", left, right, (sources / "holiday.mov",), direct)
    make_folder(sources / "notes")
    yield Case("A folder, the other way", right, left, (sources / "notes",), direct)
    if stage.strict:
        make_file(sources / "small.bin", RELAYED_SIZE)
        title = "A file of 8 MiB, symmetric NATs on both sides: no direct path exists"
        yield Case(title, stage.strict[0], stage.strict[1], (sources / "small.bin",), "relay")


def _play(case: Case, stage: Stage, folder: Path, narrator: Narrator) -> list[str]:
    try:
        result = transfer(case.sender.spawn, case.receiver.spawn, stage.server, case.sources, folder)
    except TransferFailed as failure:
        narrator.line("failed", failure.message)
        return [f"{case.title}: {failure.message}"]
    for label, text in describe(result):
        narrator.line(label, text)
    problems = judge(result, case.expected, case.sender.outside, case.receiver.outside)
    for problem in problems:
        narrator.line("wrong", problem)
    shutil.rmtree(folder / "received", ignore_errors=True)
    return [f"{case.title}: {problem}" for problem in problems]


def describe(result: Result) -> Iterator[tuple[str, str]]:
    """What there is to say about a transfer, as labels and texts."""
    yield "path", result.describe_path()
    kinds = [str(event.get("kind")) for event in result.receiver.paths()]
    if len(kinds) > 1:
        yield "on the way", " → ".join(kinds)
    if result.path.get("reason"):
        yield "because", str(result.path["reason"])
    done = result.done
    yield "set-up", f"{_milliseconds(done.get('setup_ms'))}, direct {_milliseconds(done.get('direct_ms'))}"
    seconds = float(done.get("seconds") or 0.0)
    rate = f"{result.size / seconds / 1e6:.1f} MB/s" if seconds else "unknown"
    shares = ", ".join(
        f"{done[key] / 1e6:.1f} MB {name}"
        for key, name in (("direct_bytes", "direct"), ("relay_bytes", "relayed"), ("hub_bytes", "by the hub"))
        if done.get(key)
    )
    yield (
        "rate",
        f"{result.size / 1e6:.1f} MB in {seconds:.2f} s: {rate}" + (f" ({shares})" if shares else ""),
    )
    yield "SHA-256", f"sent     {result.sent}"
    yield "", f"received {result.received or 'nothing whole'}: {'the same' if result.same else 'DIFFERENT'}"


def judge(result: Result, expected: str, sender_outside: str, receiver_outside: str) -> list[str]:
    """What is not as it must be."""
    problems = []
    for side, code in zip((result.sender, result.receiver), result.exit_codes, strict=True):
        if code != 0:
            problems.append(f"the {side.role} ended with {code}: {side.complaint()}".rstrip(": "))
    if not result.same:
        problems.append("what arrived is not what was sent")
    kind = result.path.get("kind")
    if expected and kind != expected:
        problems.append(f"the path is {kind} and should be {expected}")
    if expected == "direct" and kind == "direct":
        ends = [
            str((side.paths() or [{}])[-1].get("remote", "")) for side in (result.receiver, result.sender)
        ]
        for end, outside in zip(ends, (sender_outside, receiver_outside), strict=True):
            if end.rpartition(":")[0] != outside:
                problems.append(f"the path goes by {end}, and {outside} is the outside address")
    if expected == "relay" and (result.done.get("direct_bytes") or not result.done.get("relay_bytes")):
        problems.append("the bytes are not said to have gone by the relay")
    return problems


def _milliseconds(value: object) -> str:
    return f"after {value:.0f} ms" if isinstance(value, int | float) else "never"


@contextmanager
def _folder(largest: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crowline-demo-", ignore_cleanup_errors=True) as name:
        if shutil.disk_usage(name).free < _ROOM * largest:
            raise TransferFailed(
                f"There is no room for the demo's files in {name}.",
                hint="Set TMPDIR to a folder with more space.",
            )
        yield Path(name)
