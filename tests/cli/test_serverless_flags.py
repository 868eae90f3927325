"""Flags of meetings without a server: what they mean, what excludes what, how tokens are shown."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from crowline.api.direct_point import DEFAULT_PORT
from crowline.base.errors import ServerUnreachable, UsageError, WrongCode
from crowline.cli import ask, main, meet, tokens
from crowline.cli.options import MeetingFlags
from crowline.cli.output import Output
from crowline.cli.place import PlaceFlags, parse_host
from crowline.rendezvous.role import Role
from crowline.rendezvous.token import Token

TOKEN = "crowline-" + "Ab3-_" * 48


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host.example.org", ("host.example.org", DEFAULT_PORT)),
        ("192.0.2.7:5000", ("192.0.2.7", 5000)),
        ("2001:db8::7", ("2001:db8::7", DEFAULT_PORT)),
        ("[2001:db8::7]", ("2001:db8::7", DEFAULT_PORT)),
        ("[2001:db8::7]:5000", ("2001:db8::7", 5000)),
    ],
)
def test_a_host_has_a_port_or_the_usual_one(text: str, expected: tuple[str, int]) -> None:
    """IPv6 addresses in brackets where a port follows."""
    assert parse_host(text) == expected


@pytest.mark.parametrize("text", ["", ":5000", "host:", "host:abc", "host:٣", "[]:5000", "host:1234567"])
def test_what_is_no_host_is_refused(text: str) -> None:
    """With a sentence."""
    with pytest.raises(UsageError):
        parse_host(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "--lan", "--no-server", "."],
        ["send", "--lan", "--to", "192.0.2.7", "."],
        ["send", "--to", "192.0.2.7", "--server", "ws://192.0.2.1", "."],
        ["send", "--to", "192.0.2.7", "--relay-only", "."],
        ["send", "--stun", "192.0.2.7:3478", "."],
        ["send", "--local-port", "5000", "."],
        ["send", "--password", "maple", "--lan", "."],
        ["send", "--local-port", "80", "--to", "192.0.2.7", "."],
        ["receive", "-y", "--from", "192.0.2.7", "7-maple-orbit-candle"],
        ["receive", "-y", "--no-server", "--lan"],
        ["receive", "-y", "--from", "192.0.2.7:80"],
        ["send", "--to", "192.0.2.7:22", "."],
    ],
    ids=lambda each: " ".join(each),
)
def test_flags_that_make_no_sense_together_are_refused(arguments: list[str], tmp_path: Any) -> None:
    """Before anything is sent, with the exit code of a usage error."""
    with pytest.raises(SystemExit) as leave:
        main([str(tmp_path) if each == "." else each for each in arguments])
    assert leave.value.code == 2


def test_a_token_that_is_none_is_exit_4() -> None:
    """As a code that is wrong."""
    with pytest.raises(SystemExit) as leave:
        main(["receive", "-y", "--no-server", "7-maple-orbit-candle"])
    assert leave.value.code == 4


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [200, 40])
def test_a_token_is_a_picture_too_where_that_fits(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """On a line of its own in any case; never cut off at the edge of a narrow screen."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", str(columns))
    tokens.show_token(Output(), TOKEN)
    lines = screen.getvalue().splitlines()
    assert TOKEN in lines
    assert any("█" in line or "▀" in line for line in lines) == (columns == 200)


def test_programs_get_the_token_as_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else on standard output."""
    tokens.show_token(Output(as_json=True), TOKEN)
    out, err = capsys.readouterr()
    assert out == f'{{"v":1,"t":"token","token":"{TOKEN}"}}\n' and not err


@pytest.mark.parametrize("answer", [True, False])
async def test_a_person_whose_server_is_out_of_reach_may_do_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: bool
) -> None:
    """Asked in one sentence; who says no gets the error, as scripts do without being asked."""
    asked: list[str] = []

    async def agree(question: str) -> bool:
        asked.append(question)
        return answer

    @asynccontextmanager
    async def room(flags: MeetingFlags, place: PlaceFlags, *_: object) -> AsyncIterator[str]:
        if not place.lan:
            raise ServerUnreachable("The server is out of reach.")
        assert flags.server is None
        yield "room"

    monkeypatch.setattr(ask, "agree", agree)
    monkeypatch.setattr(ask, "can_ask", lambda: True)
    monkeypatch.setattr(meet, "room_at", room)
    flags = MeetingFlags("ws://192.0.2.1", False, False, False, True, None)
    place = PlaceFlags(False, False, None, None, "", ())
    async with AsyncExitStack() as stack:
        if answer:
            assert await meet.enter(stack, Output(), flags, place, None) == ("room", replace(place, lan=True))
        else:
            with pytest.raises(ServerUnreachable):
                await meet.enter(stack, Output(), flags, place, None)
        with pytest.raises(ServerUnreachable):
            await meet.enter(stack, Output(as_json=True), flags, place, None)
    assert len(asked) == 1 and "this network" in asked[0]
    assert "out of reach" in capsys.readouterr().err


class AnsweredRoom:
    """Takes one answer, and has a peer from then on."""

    def __init__(self, right: str) -> None:
        self._right = right
        self._met = asyncio.Event()

    def answer(self, text: str) -> None:
        if "".join(text.split()) != self._right:
            raise WrongCode("no", hint="copy it again")
        self._met.set()

    async def peer(self) -> str:
        await self._met.wait()
        return "peer"


async def test_the_answer_is_asked_for_until_it_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty lines and wrong ones are no end; a mail may have broken the right one."""
    lines = iter(["", "hello", "crowline-wrong", "crowline-ri", "ght"])

    async def typed(question: str) -> str | None:
        return next(lines)

    monkeypatch.setattr(ask, "ask", typed)
    room: Any = AnsweredRoom("crowline-right")
    assert await tokens.peer_of_answer(Output(), room) == "peer"  # type: ignore[comparison-overlap]
    assert "copy it again" in capsys.readouterr().err


async def test_a_first_token_may_come_in_pieces_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of a mail, with a word before them; what is no token is asked for again."""
    token = Token(Role.HOST, bytes(32), bytes(32), "abcd", "x" * 24, ())
    text = str(token)
    lines = iter(["crowline-AAAA", f"here: {text[:50]}", text[50:100], text[100:]])

    async def typed(question: str) -> str | None:
        return next(lines)

    monkeypatch.setattr(ask, "ask", typed)
    assert Token.parse(await tokens.ask_token(Output(), None)) == token
    assert await tokens.ask_token(Output(), "given") == "given"


async def test_without_an_answer_the_command_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the input is one; so is the end of the meeting while a person is still being asked."""

    async def nothing(question: str) -> str | None:
        return None

    async def never(question: str) -> str | None:
        await asyncio.Event().wait()
        return None

    class Failing(AnsweredRoom):
        async def peer(self) -> str:
            raise WrongCode("over")

    monkeypatch.setattr(ask, "ask", nothing)
    room: Any = AnsweredRoom("right")
    with pytest.raises(UsageError):
        await tokens.peer_of_answer(Output(), room)
    monkeypatch.setattr(ask, "ask", never)
    failing: Any = Failing("right")
    with pytest.raises(WrongCode):
        await tokens.peer_of_answer(Output(), failing)
