"""Rates as people write them, and what they read of a transfer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
import pytest

from crowline.api.transfer import FileFinished, Progress, Summary
from crowline.cli.options import MeetingFlags
from crowline.cli.output import Output
from crowline.cli.place import PlaceFlags
from crowline.cli.rate import Rate
from crowline.cli.receiving import Receiving, Wishes
from crowline.cli.reunion import Reunion
from crowline.cli.screen import Bar, Screen
from crowline.cli.view import TransferView, duration, show_done
from memory_stream import tree


class Peer:
    """What a summary asks a peer for."""

    setup_ms = 12.34
    direct_ms = None
    path = None

    def __init__(self, **carried: int) -> None:
        self.carried = {"hub": 0, "relay": 0, "direct": 0} | carried


@pytest.mark.parametrize("name", [".bashrc", ".Xauthority", "Desktop.ini", "autorun.inf"])
async def test_f7_a_stream_cannot_have_a_name_that_programs_obey(name: str, tmp_path: Path) -> None:
    """Neither with --yes, unless --take-dotfiles says so: as with files."""
    output = Output(as_json=False, quiet=True)
    flags = MeetingFlags(None, False, False, False, False, None)
    reunion = Reunion(output, flags, PlaceFlags(False, False, None, None, "", ()), None, "receive")
    answer = await Receiving(output, reunion, Wishes(tmp_path, yes=True, take_dotfiles=False)).take(name)
    assert isinstance(answer, str)
    assert tree(tmp_path) == {}
    sink = await Receiving(output, reunion, Wishes(tmp_path, yes=True, take_dotfiles=True)).take(name)
    assert not isinstance(sink, str)
    sink.close()


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("500", 500),
        ("500k", 500_000),
        ("2.5MB", 2_500_000),
        ("2.5 MB/s", 2_500_000),
        ("20Mbit", 2_500_000),
        ("8bit", 1),
        ("1g", 10**9),
        ("0.5T", 5 * 10**11),
        ("100 kbps", 12_500),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: int) -> None:
    """Powers of 1000, bytes unless bits are named."""
    assert Rate().convert(text, None, None) == rate


@pytest.mark.parametrize(
    "text", ["", "fast", "0", "0.5B", "-1", "1e3", "1_000", "１", "MB", "5 bits/h", "9" * 13]
)
def test_what_is_no_rate_is_said(text: str) -> None:
    """With an example of one that is."""
    with pytest.raises(click.BadParameter):
        Rate().convert(text, None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (2.71, "2.7 s"), (60, "1 min 0 s"), (200.4, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_as_long_as_they_need_to_be(seconds: float, text: str) -> None:
    """Tenths of a second for short ones, minutes for long ones."""
    assert duration(seconds) == text


def done(summary: Summary, capsys: pytest.CaptureFixture[str], **carried: int) -> tuple[str, dict[str, Any]]:
    show_done(Output(), summary, Peer(**carried))  # type: ignore[arg-type]
    text = capsys.readouterr().err.strip()
    show_done(Output(as_json=True), summary, Peer(**carried))  # type: ignore[arg-type]
    return text, json.loads(capsys.readouterr().out)


def test_the_summary_says_how_much_how_fast_and_by_which_way(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line for people, in numbers for programs."""
    text, fields = done(Summary(3, 4_000_000, 2.0), capsys, direct=9_900, relay=100)
    assert text == "Done: 3 files, 4.0 MB in 2.0 s (2.0 MB/s), checked. 99 % direct, 1 % relay."
    assert fields["bytes"] == fields["moved"] == 4_000_000
    assert (fields["files"], fields["skipped"], fields["direct_bytes"]) == (3, 0, 9_900)
    assert fields["setup_ms"] == 12.3 and fields["direct_ms"] is None


def test_what_was_there_already_is_not_counted_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """The rate is that of the bytes that moved."""
    text, fields = done(Summary(3, 4_000_000, 2.0, skipped=1, kept=3_000_000), capsys, direct=1_000_000)
    assert "(500.0 kB/s)" in text and "There already: 1 file, 3.0 MB." in text
    assert (fields["moved"], fields["skipped"]) == (1_000_000, 1)


def test_nothing_at_all_is_a_whole_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty file in no time, or everything was there."""
    assert done(Summary(1, 0, 0.0), capsys)[0] == "Done: 1 file, 0 B in 0.0 s, checked."
    text, _ = done(Summary(1, 5, 0.1, skipped=1, kept=5), capsys, direct=100)
    assert text == "Done: 1 file, 5 B in 0.1 s, checked. There already: 1 file, 5 B. 100 % direct."


def test_progress_without_a_known_end(capsys: pytest.CaptureFixture[str]) -> None:
    """`total` is null, and a bar shows no share of it."""
    view = TransferView(Output(as_json=True), None)
    view.on_event(Progress(1_000, 0, "stdin"))
    fields = json.loads(capsys.readouterr().out)
    assert (fields["bytes"], fields["total"]) == (1_000, None)
    screen, bar = Screen(), Bar(view, None)
    bar.update(1_000_000, "stdin")
    screen._bars.append(bar)
    assert "%" not in drawn(screen) and "stdin" in drawn(screen)


def test_a_file_that_was_there_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """With its hash, which was proven all the same."""
    TransferView(Output(as_json=True), 10).on_event(FileFinished("a", 10, bytes(32), skipped=True))
    assert json.loads(capsys.readouterr().out)["skipped"] is True


def test_each_transfer_has_a_bar_on_one_screen() -> None:
    """Of many receivers, those that still run are shown."""
    views = [TransferView(Output(), 100) for _ in range(3)]
    screen = Screen()
    for number, view in enumerate(views):
        bar = Bar(view, 100)
        bar.update(10 * number, f"file{number}")
        screen._bars.append(bar)
    text = drawn(screen)
    assert all(f"file{number}" in text for number in range(3))
    screen.remove(screen._bars[1])
    assert "file1" not in drawn(screen) and "file2" in drawn(screen)


def drawn(screen: Screen) -> str:
    from rich.console import Console

    shown = io.StringIO()
    Console(file=shown, width=200).print(screen.render())
    return shown.getvalue()
