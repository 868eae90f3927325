"""`crowline map`: what is asked for, and what people and programs are told."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from crowline.api.port_mapping import mapper as port_mapper
from crowline.api.port_mapping import ports
from crowline.api.port_mapping.mapper import PortMap, PortNotOpened, RouterNews
from crowline.api.port_mapping.ports import OpenedPort
from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.cli import main
from crowline.portmap.router_events import Opened, Protocol, Refused

INSIDE = Address("192.168.1.10", 4000)
OUTSIDE = Address("44.1.1.7", 4000)


def opened(
    outside: Address | None = OUTSIDE, lifetime: float = 7200.0, *, ours: bool = True, text: str = ""
) -> OpenedPort:
    return OpenedPort("udp", 4000, INSIDE, outside, lifetime, "UPnP", "192.168.1.1", text, is_ours=ours)


def answers(monkeypatch: pytest.MonkeyPatch, name: str, answer: object) -> list[tuple[Any, dict[str, Any]]]:
    """Have that function of `ports` give or raise that; with what it is called."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    async def called(*arguments: object, **options: object) -> object:
        calls.append((arguments, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ports, name, called)
    return calls


def run(*arguments: str) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as leave:
        main(["map", *arguments])
    return int(leave.value.code or 0)


def test_a_port_is_opened(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The address alone is on standard output."""
    calls = answers(monkeypatch, "open_port", opened())
    assert run("add", "4000") == 0
    said = capsys.readouterr()
    assert said.out == "44.1.1.7:4000\n"
    assert "192.168.1.10:4000" in said.err and "7200 s" in said.err and "UPnP" in said.err
    assert calls == [((4000, Transport.UDP), {"host": None, "outside_port": 0, "lifetime": 7200})]


def test_what_is_asked_for_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transport, address, outside port, time."""
    calls = answers(monkeypatch, "open_port", opened())
    options = ["--tcp", "--host", "192.168.1.10", "--outside", "5000", "--lifetime", "600", "-q"]
    assert run("add", "4000", *options) == 0
    wanted = {"host": "192.168.1.10", "outside_port": 5000, "lifetime": 600}
    assert calls == [((4000, Transport.TCP), wanted)]


@pytest.mark.parametrize(
    ("port", "words"),
    [
        (opened(Address("10.0.0.2", 4000)), "another router is in front"),
        (opened(lifetime=0.0), "crowline map remove"),
        (opened(None), "does not say at which address"),
    ],
)
def test_what_is_wrong_with_a_port_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: OpenedPort, words: str
) -> None:
    """A private address, no end, no address at all."""
    answers(monkeypatch, "open_port", port)
    assert run("add", "4000") == 0
    assert words in capsys.readouterr().err


def test_a_port_is_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, for programs."""
    answers(monkeypatch, "open_port", opened())
    assert run("add", "4000", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert (row["t"], row["outside"], row["inside"]) == ("port", "44.1.1.7:4000", "192.168.1.10:4000")
    assert (row["transport"], row["port"], row["lifetime"], row["ours"]) == ("udp", 4000, 7200, True)


def test_a_refusal_is_a_sentence_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of this network, as of any local problem."""
    answers(monkeypatch, "open_port", PortNotOpened("UDP port 4000 was not opened: no."))
    assert run("add", "4000") == 8
    assert "was not opened: no." in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["add", "0"], ["add", "65536"], ["add", "x"], ["add", "1", "--lifetime", "5"], ["watch"]]
)
def test_misuse_is_exit_2(arguments: list[str]) -> None:
    """Before any router is asked."""
    assert run(*arguments) == 2


def test_what_is_open_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each; what other programs wrote there cannot move the cursor."""
    answers(monkeypatch, "list_ports", [opened(), opened(None, 0.0, ours=False, text="\x1b[2J evil")])
    assert run("list") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "44.1.1.7:4000" in first and "by crowline" in first and "7200 s" in first
    assert "\x1b" not in second and "evil" in second and "no end" in second and "crowline" not in second


def test_nothing_open_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And standard output stays empty, as in JSON."""
    answers(monkeypatch, "list_ports", [])
    assert run("list") == 0
    said = capsys.readouterr()
    assert said.out == "" and "Nothing is open" in said.err
    assert run("list", "--json") == 0
    assert capsys.readouterr().out == ""


def test_a_port_is_closed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By its number on this machine."""
    calls = answers(monkeypatch, "close_port", None)
    assert run("remove", "4000", "--tcp") == 0
    assert "TCP port 4000 is closed." in capsys.readouterr().err
    assert calls == [((4000, Transport.TCP), {"host": None})]


class Mapper:
    """What stands in for `PortMapper`: opens the first port, refuses the others, is closed at the end."""

    ends = 0

    def __init__(self, *, on_news: Callable[[RouterNews], None]) -> None:
        self._on_news = on_news
        self._ports = 0

    async def __aenter__(self) -> Mapper:
        self._on_news(RouterNews("192.168.1.1", "it speaks UPnP"))
        return self

    async def __aexit__(self, *_: object) -> None:
        Mapper.ends += 1

    def open(
        self, port: int, transport: Transport, *, host: str | None, on_change: Callable[[PortMap], None]
    ) -> PortMap:
        made = PortMap(Address("192.168.1.10", port), transport, 0, on_change)
        self._ports += 1
        if self._ports == 1:
            made._take(Opened(1, port, Address("44.1.1.7", port), 7200.0, Protocol.UPNP))
        else:
            made._take(Refused(2, "it is taken"))
        return made


def test_ports_are_watched_until_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What changes is told, and the ports are closed at the end."""
    monkeypatch.setattr(port_mapper, "PortMapper", Mapper)
    Mapper.ends = 0
    said: list[str] = []

    def stop() -> None:
        for _ in range(6000):
            said.append(capsys.readouterr().out)
            if "4001" in "".join(said):
                break
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=stop)
    stopper.start()
    code = run("watch", "4000", "4001", "4000", "--json")
    stopper.join()
    assert code == 130 and Mapper.ends == 1
    rows = [json.loads(line) for line in "".join(said).splitlines()]
    assert [row["t"] for row in rows] == ["router", "port", "port"]
    assert (rows[1]["open"], rows[1]["outside"]) == (True, "44.1.1.7:4000")
    assert (rows[2]["open"], rows[2]["reason"]) == (False, "it is taken")
