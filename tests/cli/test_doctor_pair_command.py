"""`crowline doctor` of two sides, as people and scripts run it; what each finds of itself is made up here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from crowline.api.doctor import examination as doctor
from crowline.api.doctor.examination import Examination
from crowline.base.errors import NobodyCame
from crowline.cli import main
from crowline.cli.doctor_pair import examine_pair
from crowline.cli.output import Output
from crowline.diagnosis.diagnosis import diagnose
from crowline.server.server import Server
from diagnosed_places import facts_of
from serving import serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The servers towards which this machine's network was looked at; it looks like a home."""
    servers: list[str] = []

    async def examine(server: str | None = None, *, limit: float = 0.0) -> Examination:
        servers.append(server or "")
        facts = facts_of("home")
        return Examination(facts, diagnose(facts), 1.9)

    monkeypatch.setattr(doctor, "examine", examine)
    return servers


class Heard(Output):
    """What a command says, in place of a terminal."""

    def __init__(self, *, as_json: bool = False) -> None:
        super().__init__(as_json=as_json)
        self.lines: list[str] = []
        self.objects: list[dict[str, Any]] = []
        self.code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def emit(self, type_: str, /, **fields: Any) -> None:
        if type_ == "code":
            self.code.set_result(fields["code"])
        self.objects.append({"t": type_, **fields})

    def insist(self, text: str) -> None:
        self.lines.append(text)


async def test_one_reads_sentences_and_the_other_objects(server: Server, looked: list[str]) -> None:
    """Both hear the same verdict, and their exit codes say it too."""
    programs, people = Heard(as_json=True), Heard()
    async with asyncio.timeout(60):
        first = asyncio.create_task(examine_pair(programs, server=server.url))
        code = await programs.code
        assert await examine_pair(people, code, server=server.url) == 0
        assert await first == 0
    said = "\n".join(people.lines)
    for words in ("Verdict   You two connect directly.", "You  ", "Peer ", "Tried ", "✓ ", "Best ", "Why "):
        assert words in said, said
    assert "port restricted cone" in said
    report = programs.objects[-1]
    assert (report["t"], report["schema"]) == ("doctor-pair", "doctor/1")
    assert (report["verdict"], report["exit"]) == ("direct", 0)
    assert report["pairs"] and report["best"]["up"] > 0 and report["relay"]["loss"] < 1
    assert {"peer", "path"} <= {each["t"] for each in programs.objects}
    assert programs.lines == [f"On the other computer:   crowline doctor {code}"]
    assert looked == [server.url, server.url]


def test_a_typo_is_found_before_anything_is_looked_at(
    looked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As with every code."""
    with pytest.raises(SystemExit) as left:
        main(["doctor", "7-maple-orbit-candlf", "--server", "ws://127.0.0.1:1"])
    assert left.value.code == 4 and looked == []
    assert "7-maple-orbit-candle" in capsys.readouterr().err


async def test_who_comes_too_late_is_waited_for_no_longer(server: Server) -> None:
    """`--timeout` is how long the other person may take."""
    with pytest.raises(NobodyCame):
        await examine_pair(Heard(), server=server.url, timeout=0.2)
