"""`crowline doctor` as people and scripts run it; what it finds is tested elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from typing import Any

import pytest

from crowline.api.doctor import examination as doctor
from crowline.api.doctor.examination import Examination
from crowline.cli import doctor as command
from crowline.cli import main
from crowline.diagnosis.diagnosis import diagnose
from diagnosed_places import facts_of


def run(*arguments: str) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as left:
        main(["doctor", *arguments])
    return int(left.value.code or 0)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where this machine stands, at one examination after the other; it stays at the last."""
    names = ["home"]

    async def examine(server: str | None = None, *, limit: float = 0.0) -> Examination:
        facts = facts_of(names[0] if len(names) == 1 else names.pop(0))
        return Examination(facts, diagnose(facts), 1.94)

    monkeypatch.setattr(doctor, "examine", examine)
    return names


@pytest.mark.parametrize(
    ("place", "code"), [("home", 0), ("symmetric", 0), ("udp-blocked", 21), ("proxy-only", 21)]
)
def test_the_exit_code_is_the_verdict(places: list[str], place: str, code: int) -> None:
    """For scripts that read nothing else."""
    places[:] = [place]
    assert run() == code


def test_people_read_it_on_standard_error(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Headings to the left, one line for each thing, none of them too long; nothing on standard output."""
    run()
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("  Verdict    You can connect directly")
    assert any(line.startswith("  Fix first  1. Turn on UPnP") for line in lines)
    assert max(map(len, lines)) <= 110


def test_programs_read_one_object_on_standard_output(
    places: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the verdict at its top."""
    run("--json")
    said = capsys.readouterr()
    assert said.err == ""
    fields: dict[str, Any] = json.loads(said.out)
    assert (fields["v"], fields["t"], fields["schema"]) == (1, "doctor", "doctor/1")
    assert fields["verdict"] == "direct-likely"


def test_the_quiet_read_one_sentence(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict."""
    run("-q")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "  You can connect directly to nearly everybody.\n")


def test_commands_stay_on_a_line_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However narrow the terminal: they are to be copied."""
    from crowline.diagnosis.facts import FirewallFacts, Stance

    facts = replace(facts_of("public"), firewalls=(FirewallFacts("firewalld", Stance.BLOCKS, Stance.LETS),))

    async def examine(server: str | None = None, *, limit: float = 0.0) -> Examination:
        return Examination(facts, diagnose(facts), 1.0)

    monkeypatch.setattr(doctor, "examine", examine)
    monkeypatch.setenv("COLUMNS", "40")
    run()
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert "sudo firewall-cmd --permanent --add-port=32768-60999/udp" in lines


def test_what_a_network_says_of_itself_cannot_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of interfaces, addresses of routers and pages of portals are others' words."""
    facts = replace(facts_of("home"), tunnel="wg\x1b[2J0")

    async def examine(server: str | None = None, *, limit: float = 0.0) -> Examination:
        return Examination(facts, diagnose(facts), 1.0)

    monkeypatch.setattr(doctor, "examine", examine)
    run()
    run("--json")
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err


class _Enough(Exception):
    """Nobody watches any longer."""


def test_a_watcher_is_told_of_changes_alone(
    places: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two looks alike are one report; programs get every look."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            raise _Enough

    monkeypatch.setattr(command.asyncio, "sleep", sleep)
    for option, reports in ((), 2), (("--json",), 4):
        slept.clear()
        places[:] = ["home", "home", "udp-blocked"]
        with pytest.raises(_Enough):
            asyncio.run(command._examine(None, 5.0, 60.0, command.Output(as_json=bool(option))))
        said = capsys.readouterr()
        assert (said.out if option else said.err).count("erdict") == reports
        assert slept == [60.0] * 4


@pytest.mark.parametrize("word", ["cgn", "Symmetric NAT"])
def test_a_word_is_explained(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, without asking anybody."""
    assert run("--explain", word) == 0
    said = capsys.readouterr().out
    assert "NAT" in said and max(map(len, said.splitlines())) <= 110


def test_an_unknown_word_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """With the words that there are."""
    assert run("--explain", "flux") == 2
    assert "mapping" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("1-a-b-c", "--watch", "5"),
        ("--pair", "--watch", "5"),
        ("--explain", "nat", "--pair"),
        ("--pair", "1-a-b-c"),
    ],
)
def test_two_things_at_once_are_refused(arguments: tuple[str, ...]) -> None:
    """Nothing is measured."""
    assert run(*arguments) == 2


async def test_help_is_there() -> None:
    """In a process of its own, as people ask for it; the exit codes are in it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crowline", "doctor", "--help"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "100"},
    )
    out, _ = await process.communicate()
    assert "21 UDP is blocked" in " ".join(out.decode().split())
