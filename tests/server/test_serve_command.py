"""`crowline serve` as a process: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed

SERVE = [sys.executable, "-c", "from crowline.cli import main; main()", "serve"]
LOOPBACK = ["--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0"]


@contextmanager
def running(*flags: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process and the object that says where it listens."""
    process = subprocess.Popen(
        [*SERVE, *flags, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def ends(*flags: str) -> tuple[int, str]:
    done = subprocess.run([*SERVE, *flags], capture_output=True, text=True, timeout=30)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_listens_until_a_signal(number: signal.Signals, code: int) -> None:
    """One object says where; SIGTERM ends it with 0, Ctrl-C with 130, without a traceback."""
    with running(*LOOPBACK) as (process, listening):
        assert (listening["v"], listening["t"]) == (1, "listening")
        with urllib.request.urlopen(listening["url"].replace("ws:", "http:") + "/healthz") as page:
            assert json.load(page)["ok"] is True
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code
        assert "Traceback" not in errors


def test_people_read_where_it_listens() -> None:
    """A few lines on standard error, nothing on standard output."""
    process = subprocess.Popen([*SERVE, *LOOPBACK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert output == ""
    assert "ws://127.0.0.1:" in lines[0]
    assert "UDP" in lines[1]


@pytest.mark.parametrize("passwords", [["wonder", "sixteen letters!"], ["sixteen letters!"]])
def test_a11_short_passwords_are_warned_of(tmp_path: Path, passwords: list[str]) -> None:
    """Whoever sees one exchange can try words: the owner hears whose is short, and not what it is."""
    settings = tmp_path / "crowline.toml"
    users = [f'user{number} = "{password}"' for number, password in enumerate(passwords)]
    settings.write_text("\n".join(["[users]", *users]))
    with running(*LOOPBACK, "--config", str(settings)) as (process, _):
        process.terminate()
        # Not by `communicate`, which misses what came together with the line that was read before.
        assert process.stdout is not None
        output = process.stdout.read()
    lines = [json.loads(line) for line in output.splitlines()]
    warnings = [line["message"] for line in lines if line["t"] == "warn"]
    assert len(warnings) == len(passwords) - 1
    for warning in warnings:
        assert "user0" in warning
        assert "user1" not in warning
        assert "wonder" not in warning


@pytest.mark.parametrize("flag", ["--listen", "--stun-listen"])
def test_a_port_in_use_is_a_sentence(flag: str) -> None:
    """Exit code 8 and a hint, whichever of the ports it is."""
    with socket.socket(type=socket.SOCK_STREAM) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        taken = tcp if flag == "--listen" else udp
        taken.bind(("127.0.0.1", 0))
        if taken is tcp:
            taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, errors = ends(*LOOPBACK, flag, where)
    assert code == 8
    assert errors.startswith("crowline: ")
    assert len(errors.splitlines()) == 2


@pytest.mark.parametrize(
    "flags",
    [
        ["--allow-peer", "10.0.0.1/8"],
        ["--allow-peer", "example.org"],
        ["--listen", "localhost:80"],
        ["--relay-ports", "9-1"],
        ["--budget", "much"],
        ["--hub-rate", "1K"],
        ["--hub-rate-total", "1M"],
        ["--public-address", "me"],
        ["--no-such-flag"],
    ],
)
def test_a_wrong_flag_is_a_usage_error(flags: list[str]) -> None:
    """Exit code 2 and a sentence."""
    code, errors = ends(*LOOPBACK, *flags)
    assert code == 2
    assert errors.strip()


def test_tls_needs_a_certificate(tmp_path: Path) -> None:
    """A missing file and a foreign key end with 8 and a sentence; half of the flags is a usage error."""
    files, other = self_signed(tmp_path), self_signed(tmp_path, "other.test")
    secure = ["--tls-listen", "127.0.0.1:0", "--cert", str(files.certificate), "--key"]
    for key in (tmp_path / "none.key", other.key):
        code, errors = ends(*LOOPBACK, *secure, str(key))
        assert code == 8
        assert str(key) in errors
        assert len(errors.splitlines()) == 2
    assert ends(*LOOPBACK, *secure[:-1])[0] == 2
    with running(*LOOPBACK, *secure, str(files.key)) as (_, listening):
        assert [address.rpartition(":")[0] for address in listening["tls"]] == ["127.0.0.1"]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_two_servers_on_one_port_are_a_sentence(kind: socket.SocketKind) -> None:
    """The second one ends with 8, whether UDP or only TCP of the port is taken."""
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        code, errors = ends("--listen", "127.0.0.1:0", "--stun-listen", f"127.0.0.1:{port}")
    assert code == 8
    assert str(port) in errors


def test_loopback_is_relayed_to_only_from_loopback() -> None:
    """A server for others never opens its own machine's services."""
    code, errors = ends(
        "--listen", "0.0.0.0:0", "--stun-listen", "127.0.0.1:0", "--allow-peer", "127.0.0.0/8"
    )
    assert code == 2
    assert "127.0.0.0/8" in errors
    with running(*LOOPBACK, "--allow-peer", "127.0.0.0/8") as (_, listening):
        assert listening["t"] == "listening"


def test_a_file_sets_what_flags_do_not(tmp_path: Path) -> None:
    """TOML with the flags as keys; a flag given as well wins."""
    file = tmp_path / "server.toml"
    file.write_text(
        'listen = "192.0.2.1:1"\nstun-listen = "127.0.0.1:0"\nmotd = "Hello"\nbudget = "1M"\n'
        'hub-rate = "1M"\nhub-rate-total = "10M"\n'
    )
    with running("--config", str(file), "--listen", "127.0.0.1:0") as (_, listening):
        assert listening["url"].startswith("ws://127.0.0.1:")


@pytest.mark.parametrize(
    ("text", "code"),
    [("lisen = 'x'", 2), ("listen = 5", 2), ("not toml", 2), ("claims-per-minute = 0", 2), (None, 8)],
)
def test_a_wrong_file_is_a_sentence(text: str | None, code: int, tmp_path: Path) -> None:
    """Unknown keys, wrong types, broken and missing files, each with its exit code."""
    file = tmp_path / "server.toml"
    if text is not None:
        file.write_text(text)
    assert ends(*LOOPBACK, "--config", str(file))[0] == code


def test_without_the_extra_it_says_how_to_install() -> None:
    """A client-only installation has no server in it."""
    hide = "import sys; sys.modules['uvicorn'] = None; from crowline.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hide, "serve", *LOOPBACK], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 8
    assert "crowline[server]" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_no_server() -> None:
    """`--help` is quick: nothing of the server is loaded for it."""
    probe = (
        "import sys; from crowline.cli import main\n"
        "try: main(['serve', '--help'])\n"
        "finally: print([name for name in sys.modules if name in ('uvicorn', 'starlette', 'cryptography')])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"
