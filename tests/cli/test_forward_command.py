"""`crowline forward` between two processes, used by programs that know nothing of it."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import crowline
from crowline.api.forwarding.events import RuleReady
from crowline.base.secrets import Secret
from crowline.cli import main
from crowline.net.known_peers import KnownPeer, KnownPeers
from crowline.rendezvous.role import Role
from needs import needs_program
from threaded_server import served

CROWLINE = [sys.executable, "-m", "crowline"]
PATIENCE = 30  # seconds for anything that a command does here


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as url:
        yield url


class Page(http.server.BaseHTTPRequestHandler):
    """One page."""

    def do_GET(self) -> None:
        body = b"a page of " + self.headers["Host"].encode() * 10_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    """The port of a web server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


class Side:
    """One process, whose objects come in a queue."""

    def __init__(self, server: str, *arguments: str, home: Path | None = None) -> None:
        argv = [*CROWLINE, "forward", *arguments, "--json", "--server", server, "--no-port-mapping"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CROWLINE", "XDG"))}
        if home is not None:
            kept |= {"HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_STATE_HOME": str(home)}
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kept,
        )
        self.seen: list[dict[str, Any]] = []
        self._objects: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._objects.put(json.loads(line))
        self._objects.put(None)

    def wait_for(
        self, kind: str, accepts: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> dict[str, Any]:
        """The next object of that kind."""
        while (found := self._objects.get(timeout=PATIENCE)) is not None:
            self.seen.append(found)
            if found["t"] == kind and accepts(found):
                return found
        raise AssertionError((self.seen, self.process.stderr and self.process.stderr.read()))

    def end(self) -> int:
        """By Ctrl-C, as people end it."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for file in (self.process.stdout, self.process.stderr):
            assert file is not None
            file.close()


@pytest.fixture
def sides() -> Iterator[list[Side]]:
    """Sides of the test, none of which it leaves behind."""
    found: list[Side] = []
    yield found
    for side in found:
        side.close()


def fetch(port: int) -> bytes:
    """The page at that port, by a plain socket."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        data = b""
        while piece := sock.recv(1 << 16):
            data += piece
        return data.partition(b"\r\n\r\n")[2]


def port_of(where: object) -> int:
    return int(str(where).rpartition(":")[2])


@pytest.fixture(scope="module")
def pair(server: str, web: int) -> Iterator[tuple[Side, Side]]:
    """One side that asks for everything, and one that allows one port, until Ctrl-C."""
    rules = ["-L", f"0:localhost:{web}", "-R", f"0:127.0.0.1:{web}", "-D", "0"]
    allowed = ["--allow", f"localhost:{web}", "--allow-listen", "*"]
    here = Side(server, *rules)
    try:
        there = Side(server, here.wait_for("code")["code"], *allowed)
        try:
            yield here, there
            assert here.end() == 130
            assert there.wait() == 10
            assert there.wait_for("error")["exit"] == 10
        finally:
            there.close()
    finally:
        here.close()


@pytest.fixture(scope="module")
def places(pair: tuple[Side, Side]) -> list[int]:
    """The ports of the three rules."""
    ready = [pair[0].wait_for("rule") for _ in range(3)]
    assert all(rule["state"] == "ready" for rule in ready)
    return [port_of(rule["where"]) for rule in ready]


def test_ports_of_both_directions_and_both_sides(pair: tuple[Side, Side], places: list[int]) -> None:
    """One web page by -L and by -R; the objects say what is where, who came, and how it ended."""
    here, there = pair
    for port in places[:2]:
        assert fetch(port) == b"a page of " + b"x" * 10_000
    closed = here.wait_for("connection", lambda found: found["state"] == "closed")
    assert closed["received"] > 10_000 and closed["reason"] == ""
    shared = [there.wait_for("shared")["what"] for _ in range(2)]
    assert any("to reach" in what for what in shared) and any("listens" in what for what in shared)


@pytest.mark.peer
def test_curl_goes_through_socks_by_name_and_by_address(web: int, places: list[int]) -> None:
    """And says what its SOCKS server says of a host that is not allowed."""
    curl = needs_program("curl")

    def get(scheme: str, url: str) -> subprocess.CompletedProcess[bytes]:
        argv = [curl, "-sS", "-m", str(PATIENCE), "-x", f"{scheme}://127.0.0.1:{places[2]}", url]
        kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        return subprocess.run(argv, capture_output=True, timeout=2 * PATIENCE, env=kept, check=False)

    for scheme, host in (("socks5h", "localhost"), ("socks5", "127.0.0.1")):
        done = get(scheme, f"http://{host}:{web}/")
        assert done.returncode == 0, done.stderr
        assert done.stdout == b"a page of " + f"{host}:{web}".encode() * 10_000
    refused = get("socks5h", "http://127.0.0.1:9/")
    assert refused.returncode == 97 and b"(2)" in refused.stderr, refused


def test_who_allows_nothing_is_not_asked_without_a_terminal(
    server: str, sides: list[Side], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what it refused; the other side ends with exit 5."""
    sides.append(Side(server, "--allow", "localhost:9"))
    [there] = sides
    rules = ["-L", "0:localhost:8", "--json", "--server", server, "--no-port-mapping"]
    with pytest.raises(SystemExit) as ended:
        main(["forward", there.wait_for("code")["code"], *rules])
    assert ended.value.code == 5
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["state"] for event in found if event["t"] == "rule"] == ["denied"]
    assert found[-1]["t"] == "error" and found[-1]["exit"] == 5
    assert "--allow" in there.wait_for("warn")["message"]


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [(["-L", "nonsense"], 2), (["--allow", "host"], 2), (["--allow-listen", "x"], 2), ([], 2)],
)
def test_what_makes_no_sense_is_said_before_anything_happens(arguments: list[str], exit_code: int) -> None:
    """Also where nobody can be asked and nothing was asked for."""
    with pytest.raises(SystemExit) as ended:
        main(["forward", *arguments, "--server", "ws://127.0.0.1:1"])
    assert ended.value.code == exit_code


def test_a_taken_port_is_exit_8_before_anybody_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody types a code for nothing, and no server is asked."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit) as ended:
            main(["forward", "-D", "0", "-D", str(taken.getsockname()[1]), "--server", "ws://127.0.0.1:1"])
    assert ended.value.code == 8 and "is taken" in capsys.readouterr().err


async def test_who_stays_forwards_for_each_process_of_a_known_peer(
    server: str, web: int, sides: list[Side], tmp_path: Path
) -> None:
    """One that was killed and the next: nobody starts anything on the side that shares."""
    homes = [tmp_path / name for name in ("ana", "ben")]
    known = [KnownPeers(home / "crowline") for home in homes]
    secret, keys = Secret(os.urandom(32)), [each.own_key().public for each in known]
    for store, name, key, role in zip(known, ("ben", "ana"), reversed(keys), Role, strict=True):
        store.add(KnownPeer(name, key, secret, role, server))
    sides.append(Side(server, "--peer", "ben", "--stay", "--allow", f"localhost:{web}", home=homes[0]))
    sides.append(Side(server, "--peer", "ana", "-L", f"0:localhost:{web}", home=homes[1]))
    staying, user = sides
    assert fetch(port_of(user.wait_for("rule")["where"])).startswith(b"a page of x")
    user.process.kill()
    ready: asyncio.Future[RuleReady] = asyncio.get_running_loop().create_future()
    async with (
        asyncio.timeout(PATIENCE),
        crowline.room_with("ana", "forward", known=known[1], port_mapping=False) as room,
    ):
        work = crowline.forward_ports(await room.peer(), local=[f"0:localhost:{web}"], tell=ready.set_result)
        forwarding = asyncio.ensure_future(work)
        port = port_of((await ready).where)
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)
    assert port and await asyncio.to_thread(staying.end) == 130


def test_a_person_is_asked_and_their_word_counts(server: str, web: int, sides: list[Side]) -> None:
    """On a terminal, with what the other side wants in the question: yes to the one, no to the other."""
    sides.append(Side(server, "-L", f"0:localhost:{web}", "-L", f"0:127.0.0.1:{web}"))
    [asking] = sides
    argv = [*CROWLINE, "forward", asking.wait_for("code")["code"], "--server", server, "--no-port-mapping"]
    person, terminal = os.openpty()
    with subprocess.Popen(argv, stdin=terminal, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        try:
            for host, answer, state in (("localhost", b"y\n", "ready"), ("127.0.0.1", b"n\n", "denied")):
                seen = read_until(person, b"Agree? [Y/n]")
                assert f"to reach {host}:{web} (tcp) from this computer".encode() in seen
                os.write(person, answer)
                rule = asking.wait_for("rule")
                assert rule["state"] == state
                if state == "ready":
                    assert fetch(port_of(rule["where"])).startswith(b"a page of x")
            assert asking.end() == 130
            read_until(person, b"The other side says")
            assert process.wait(PATIENCE) == 10
        finally:
            process.kill()
            os.close(person)


def read_until(terminal: int, text: bytes) -> bytes:
    """What is on the screen up to `text`."""
    seen = b""
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, seen
        seen += os.read(terminal, 4096)
    return seen
