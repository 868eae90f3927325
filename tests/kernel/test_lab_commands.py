"""`crowline lab run`, `shell` and `clean` as their users type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from crowline.lab import leftovers
from crowline.lab.namespace import NAMESPACES
from crowline.lab.namespaces import Internet

LAB = (sys.executable, "-m", "crowline", "lab")
PATIENCE = 50.0
ATTEMPTS = 5

KILLED_RUN = """
import time
from crowline.lab.namespaces import Internet
with Internet() as net:
    site = net.site("home")
    (net.folder() / "file").write_text("left")
    net.spawn(site.hosts[0], ["sleep", "300"])
    print(net.prefix, net.wire.pid, flush=True)
    time.sleep(300)
"""


def lab(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LAB, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def traces(prefix: str) -> list[str]:
    folders = [NAMESPACES, leftovers.RECORDS, Path("/tmp")]
    return [entry.name for folder in folders for entry in folder.iterdir() if entry.name.startswith(prefix)]


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_commands_run_on_all_hosts() -> None:
    """Each line says whose it is; the server's command is ended; the first failure is the exit code."""
    result = lab(
        *("run", "--a", "home", "--b", "symmetric", "--rtt", "4", "--no-serve", "--json"),
        *("--on-server", "echo I am $CROWLINE_LAB_ROLE; sleep 300"),
        *("--on-b", "echo complaint >&2; exit 7", "--", "sh", "-c", "echo I am $CROWLINE_LAB_ADDRESSES"),
    )
    events = [json.loads(line) for line in result.stdout.splitlines()]
    said = {(event["role"], event["channel"], event["text"]) for event in events if event["t"] == "line"}
    assert said == {
        ("server", "out", "I am server"),
        ("a", "out", "I am 192.168.1.10"),
        ("b", "err", "complaint"),
    }
    assert {event["role"]: event["code"] for event in events if event["t"] == "exit"} == {"a": 0, "b": 7}
    assert result.returncode == 7


def test_both_hosts_reach_crowlines_own_server() -> None:
    """`crowline serve` runs on the server, and the commands find it; one of them only by the proxy."""
    code = (
        "import os; from urllib.request import urlopen;"
        "url = os.environ['CROWLINE_SERVER'].replace('ws://', 'http://');"
        "print(url, urlopen(url, timeout=5).status)"
    )
    result = lab("run", "--a", "nat64", "--b", "home", "--", sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == [
        "a      │ http://[2a01:100:0:1::1]:443 200",
        "b      │ http://44.1.0.1:443 200",
    ]


def test_a_single_command_has_the_terminal() -> None:
    """Its input and output are those of `crowline lab run`, untouched."""
    result = lab("run", "-q", "--no-serve", "--on-a", "tr a-z A-Z; exit 3", input="through\n")
    assert (result.returncode, result.stdout, result.stderr) == (3, "THROUGH\n", "")


def test_what_takes_too_long_is_ended() -> None:
    """With the exit code of timeout(1)."""
    start = time.monotonic()
    result = lab("run", "-q", "--no-serve", "--timeout", "0.3", "--", "sleep", "300")
    assert result.returncode == 124
    assert time.monotonic() - start < PATIENCE / 2


def test_mistakes_are_named() -> None:
    """No command, no such place, no such program: a sentence, a hint and exit code 2."""
    for arguments, sentence in (
        ((), "There is no command to run."),
        (("--a", "nowhere", "--", "true"), "nowhere is no place."),
        (("--no-serve", "--", "no-such-program"), "There is no program no-such-program here."),
    ):
        result = lab("run", *arguments)
        assert result.returncode == 2
        assert result.stderr.splitlines()[-2] == f"crowline: {sentence}"
        assert "Traceback" not in result.stderr


def test_a_shell_reaches_every_host() -> None:
    """It runs on the host that was asked for; `a`, `b` and `server` lead to the others."""
    lines = "echo $CROWLINE_LAB_ROLE\na ip -4 -br addr show eth0\n"
    lines += "server sh -c 'echo $CROWLINE_LAB_ROLE'\nexit 5\n"
    environment = {**os.environ, "SHELL": "/bin/sh"}
    result = lab("shell", "-q", "--no-serve", "--on", "b", input=lines, env=environment)
    assert result.returncode == 5
    said = result.stdout.splitlines()
    assert (said[0], said[2]) == ("b", "server")
    assert "192.168.1.10/24" in said[1]


def kill_a_run() -> str:
    """A laboratory of which nobody is alive; its prefix."""
    with subprocess.Popen([sys.executable, "-c", KILLED_RUN], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        prefix, wire = owner.stdout.readline().split()
        assert len(traces(prefix)) >= 4  # two namespaces, a record, a folder
        os.kill(int(wire), signal.SIGKILL)
        owner.kill()
    assert wait_until(lambda: not Path(f"/proc/{wire}/ns").exists() or prefix in leftovers.abandoned())
    return prefix


def test_cleaning_removes_what_was_left_and_nothing_else() -> None:
    """The remains of a laboratory whose processes were all killed go; one that is at work, and files and
    namespaces that are no laboratory's, stay."""
    stranger = f"crowbar-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", stranger], check=True)
    try:
        with Internet() as living:
            folder, kept = living.folder(), living.server().namespace
            removed: dict[str, dict[str, int]] = {}
            # Any laboratory that begins on this machine at that moment sweeps too, and may be first.
            for _ in range(ATTEMPTS):
                prefix = kill_a_run()
                result = lab("clean", "--json")
                assert result.returncode == 0
                removed |= {
                    event["laboratory"]: event for event in map(json.loads, result.stdout.splitlines())
                }
                assert wait_until(lambda prefix=prefix: traces(prefix) == [])  # type: ignore[misc]
                event = removed.get(prefix, {})
                counts = [event.get(kind) for kind in ("namespaces", "processes", "folders")]
                if counts == [3, 1, 1]:
                    break
            assert counts == [3, 1, 1]
            assert living.prefix not in removed
            assert folder.is_dir() and (NAMESPACES / kept).exists()
            assert (NAMESPACES / stranger).exists()
        assert not folder.exists()
        assert lab("clean").returncode == 0
    finally:
        subprocess.run(["ip", "netns", "del", stranger], check=True)


def test_an_interrupted_run_leaves_nothing() -> None:
    """Ctrl-C and SIGTERM take everything down, and say so."""
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [*LAB, "run", "--no-serve", "--", "sh", "-c", "echo $CROWLINE_LAB_FOLDER; sleep 300"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        folder = Path(process.stdout.readline().split()[-1])
        assert folder.is_dir()
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "everything that was built is removed" in said
        assert traces(folder.name.rpartition("-")[0]) == []
