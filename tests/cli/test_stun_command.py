"""`crowline stun` as people and scripts run it, against our server and those of others."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed
from coturn import coturn, free_ports
from crowline.api.mapped_address import mapped_address
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, UsageError
from crowline.cli.stun import _parse_server
from crowline.server.certificate import Certificate
from needs import needs_program
from peer_programs import background
from turn_front import front

TRIES = 10
PATIENCE = 60.0  # seconds for a command that has a server to ask on this machine


class Outcome:
    """How a command ended."""

    def __init__(self, code: int | None, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode()
        self.err = err.decode()
        assert "Traceback" not in self.err, self.err

    @property
    def event(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.out)
        assert line["v"] == 1
        return line


async def ask(*arguments: str, **variables: str) -> Outcome:
    """Run the command. No proxy of the environment may be in the way."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crowline", "stun", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=kept | variables,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Outcome(process.returncode, out, err)


def check(outcome: Outcome, server: Address, transport: str) -> None:
    """On loopback the mapped address is our own."""
    assert outcome.code == 0, outcome.err
    event = outcome.event
    assert event["t"] == "mapped"
    assert event["address"] == event["local"]
    assert event["local"].rpartition(":")[0] == str(server).rpartition(":")[0]
    assert (event["server"], event["transport"]) == (str(server), transport)
    assert event["rtt_ms"] >= 0


async def test_the_address_is_on_standard_output_alone() -> None:
    """A script takes it as it is; people read the rest on standard error."""
    async with front() as running:
        server = running.address
        outcome, quiet = await ask(str(server)), await ask(str(server), "--quiet")
    assert outcome.code == 0, outcome.err
    host, _, port = outcome.out.strip().rpartition(":")
    assert host == "127.0.0.1" and 0 < int(port) < 65536
    assert f"seen by {server} over UDP" in outcome.err
    assert "no NAT" in outcome.err
    assert quiet.code == 0 and quiet.err == "" and quiet.out.startswith("127.0.0.1:")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_our_server_by_both_families(host: str, transport: str) -> None:
    """One JSON object says it all; an IPv6 address stands in brackets."""
    flags = ["-6" if ":" in host else "-4", *(["--tcp"] if transport == "tcp" else [])]
    async with front(Address(host, 0)) as running:
        server = running.address
        outcome = await ask(str(server), "--json", *flags)
    check(outcome, server, transport)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("family", [[], ["-4"]])
async def test_our_server_over_tls(tmp_path: Path, host: str, family: list[str]) -> None:
    """The certificate has to be good for the name or address that was typed."""
    files = self_signed(tmp_path, "localhost")
    secure = Certificate(files.certificate, files.key)
    async with front(tls=secure, tls_listen=(Address("127.0.0.1", 0),)) as running:
        server = running.tls_addresses[0]
        arguments = [f"{host}:{server.port}", "--json", "--tls", *family]
        trusted = await ask(*arguments, SSL_CERT_FILE=str(files.certificate))
        unknown = await ask(*arguments)
    check(trusted, server, "tls")
    assert unknown.code == 7
    assert (unknown.event["t"], unknown.event["exit"]) == ("error", 7)
    assert "certificate" in unknown.event["message"]


@pytest.mark.peer
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_coturn_by_every_way(tmp_path: Path, transport: str) -> None:
    """The relay that everybody runs answers the same question."""
    files = self_signed(tmp_path, "localhost")
    async with coturn(tmp_path, certificate=files) as (plain, secure):
        port = secure if transport == "tls" else plain
        flags = [] if transport == "udp" else [f"--{transport}"]
        outcome = await ask(f"127.0.0.1:{port}", "--json", *flags, SSL_CERT_FILE=str(files.certificate))
    check(outcome, Address("127.0.0.1", port), transport)


@asynccontextmanager
async def stund() -> AsyncIterator[Address]:
    """Debian's server of RFC 3489, which wants two addresses and has to be told both ports."""
    program = needs_program("stund")
    first, second = free_ports("127.0.0.1", 2)
    ports = ("-p", str(first), "-o", str(second))
    async with background(program, "-h", "127.0.0.1", "-a", "127.0.0.2", *ports):
        yield Address("127.0.0.1", first)


@pytest.mark.peer
async def test_a_classic_server() -> None:
    """The server of 2004 answers with attributes that STUN has given up; the address is as good."""
    async with stund() as server:
        outcome = await ask(str(server), "--json", "--timeout", "40")
    check(outcome, server, "udp")


@pytest.mark.parametrize("flags", [[], ["-4"]])
async def test_nobody_answers_over_udp(flags: list[str]) -> None:
    """Exit 7, with what was asked and what else to try."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        outcome = await ask(f"127.0.0.1:{port}", "--json", "--timeout", "0.3", *flags)
    assert outcome.code == 7
    assert str(port) in outcome.event["message"]
    assert "TCP" in outcome.event["hint"]


async def test_nobody_listens_on_tcp() -> None:
    """Exit 7 at once: the connection is refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        outcome = await ask(f"127.0.0.1:{bound.getsockname()[1]}", "--tcp")
    assert outcome.code == 7
    assert outcome.out == ""
    assert outcome.err.startswith("crowline: 127.0.0.1 port")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_what_listens_speaks_no_stun(answer: bytes) -> None:
    """Exit 7: another protocol's answer, or the end of the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        outcome = await ask(f"127.0.0.1:{port}", "--tcp", "--json")
    assert outcome.code == 7
    assert "gave no answer" in outcome.event["message"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["a", "b"], 2),
        (["127.0.0.1:0"], 2),
        (["127.0.0.1:x"], 2),
        ([""], 2),
        (["127.0.0.1", "--timeout", "0"], 2),
        (["127.0.0.1", "-6"], 7),
        (["::1", "-4", "--tcp"], 7),
        (["x" * 64 + ".test"], 7),
    ],
)
async def test_misuse_and_trouble_have_their_exit_codes(arguments: list[str], code: int) -> None:
    """A sentence on standard error, nothing on standard output."""
    outcome = await ask(*arguments)
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert outcome.err.strip()


async def test_a_machine_without_a_way_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 8: the problem is here, and no server is to blame."""
    monkeypatch.setattr("crowline.api.mapped_address.source_towards", lambda server: None)
    with pytest.raises(LocalProblem, match=r"no way to 192\.0\.2\.1"):
        await mapped_address("192.0.2.1")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("stun.example.org", "stun.example.org", None),
        ("stun.example.org:80", "stun.example.org", 80),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ],
)
def test_servers_are_written_as_usual(text: str, host: str, port: int | None) -> None:
    """Names and addresses, with and without a port."""
    assert _parse_server(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", ":80", "a:", "a:b", "a:65536", "a:999999", "a:\u0661", "[::1", "[::1]80", "[::1]:", "[]:80"]
)
def test_what_is_no_server_is_misuse(text: str) -> None:
    """Before anything is looked up."""
    with pytest.raises(UsageError):
        _parse_server(text)


# --- what kind of NAT is in between ---------------------------------------------------------------------


async def measure(server: Address, expected: str, *flags: str) -> Outcome:
    """Until all answers are there: a busy machine may keep one for longer than silence is listened to."""
    for _ in range(TRIES):
        outcome = await ask("--nat", *flags, str(server))
        if expected in outcome.out and "did not answer" not in outcome.out + outcome.err:
            break
    return outcome


async def test_the_nat_is_measured() -> None:
    """The old name alone on standard output, the facets of UDP and TCP beside it."""
    async with front(alternate_address="127.0.0.3") as running:
        outcome = await measure(running.address, "open internet")
    assert (outcome.code, outcome.out) == (0, "open internet\n")
    assert "UDP mapping      no translation" in outcome.err
    assert "UDP filtering    endpoint-independent" in outcome.err
    assert "TCP mapping      no translation" in outcome.err
    assert "TCP filtering    unknown (no server connects to its clients by TCP)" in outcome.err


async def test_programs_get_the_profile_of_the_nat() -> None:
    """One object, with what could not be learnt and why."""
    async with front() as running:
        outcome = await measure(running.address, "filter unknown", "--json")
    assert outcome.code == 0
    event = outcome.event
    assert (event["t"], event["classic"]) == ("nat", "no translation, filter unknown")
    assert event["udp"]["mapping"] == event["tcp"]["mapping"] == "no translation"
    assert event["udp"]["unknown"]["filtering"] == "the server has only one address"
    assert event["lifetimes"] is None
    assert outcome.err == ""


async def test_silence_is_what_a_blocked_network_looks_like() -> None:
    """No error, but the verdict: nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        outcome = await ask("--nat", "-q", f"127.0.0.1:{mute.getsockname()[1]}")
    assert (outcome.code, outcome.out, outcome.err) == (0, "UDP blocked\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("127.0.0.1", "127.0.0.2"),
        ("--lifetime", "127.0.0.1"),
        ("--nat", "--tcp", "127.0.0.1"),
        ("--nat", "--timeout", "3", "127.0.0.1"),
        ("--nat", "example.org:port"),
        (),
    ],
)
async def test_what_does_not_go_together_is_said(arguments: tuple[str, ...]) -> None:
    """Before anything is sent."""
    outcome = await ask(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""


async def test_names_that_nobody_knows_are_no_server() -> None:
    """The same code as for every server that is not there; this one cannot even be a name."""
    outcome = await ask("--nat", "x" * 64 + ".test")
    assert outcome.code == 7
