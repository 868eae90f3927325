"""The control of the attack suite: the same probes against Debian's coturn, which is known to fail some.

A probe that a lax server passes too would prove little. coturn 4.6.1, which Debian 12 ships, permits
private and metadata peers and obeys attributes behind the integrity. A later one may have closed these
holes; then its answers need only be sensible.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method
from needs import needs_program
from turn_pair import Caller, World, error_code
from turn_socket import PATIENCE, free_port

pytestmark = pytest.mark.peer

VULNERABLE_VERSION = "4.6.1"


class UdpCaller(Caller):
    """The hand-made client of the attack suite, on a real socket."""

    def __init__(self, server: Address) -> None:
        super().__init__(World())
        self.username, self.password, self.realm = "user", "password", "example.org"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((server.host, server.port))

    def send_raw(self, data: bytes) -> bytes | None:
        """The answer to the request `data`, whatever else comes before it."""
        self.socket.send(data)
        while (answer := self.socket.recv(2048))[8:20] != data[8:20]:
            pass
        return answer

    def wait_for_the_server(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(ConnectionRefusedError):
                self.send_raw(Message(Method.BINDING, MessageClass.REQUEST, b"are you here").encode())
                return
            time.sleep(0.02)
        raise TimeoutError("coturn does not answer")


@pytest.fixture(scope="module")
def coturn() -> Iterator[Address]:
    """coturn on loopback with its defaults about peers."""
    with tempfile.TemporaryDirectory() as folder:
        yield from run_coturn(Path(folder))


def run_coturn(folder: Path) -> Iterator[Address]:
    program = needs_program("turnserver")
    address = Address("127.0.0.1", free_port())
    command = [
        program, "-n", "-L", address.host, "-E", address.host, "-p", str(address.port), "-r", "example.org",
        "--no-tls", "--no-dtls", "--no-cli", "--no-stdout-log", "-a", "-u", "user:password",
        "-l", str(folder / "log"), "--pidfile", str(folder / "pid"), "-b", str(folder / "db"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def caller(coturn: Address) -> Iterator[UdpCaller]:
    """A client with an allocation at coturn."""
    client = UdpCaller(coturn)
    client.wait_for_the_server()
    assert error_code(client.allocate()) == 0
    yield client
    client.code(Method.REFRESH, a.Lifetime(0))
    client.socket.close()


def is_vulnerable() -> bool:
    output = subprocess.run(
        [needs_program("turnserver"), "--version"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return VULNERABLE_VERSION in output.stdout + output.stderr


def permission(caller: UdpCaller, host: str) -> int:
    return caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(Address(host, 80)))


def test_probes_are_understood(caller: UdpCaller) -> None:
    """What every server must answer alike: success, loopback 403, a mismatch 437, a bad number 400."""
    assert permission(caller, "44.9.9.9") == 0
    assert permission(caller, "127.0.0.1") == 403
    assert error_code(caller.allocate()) == 437
    assert (
        caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x3FFF), a.XorPeerAddress(Address("44.9.9.9", 1)))
        == 400
    )


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "10.0.0.1", "100.64.0.1", "192.168.1.1", "168.63.129.16"]
)
def test_p2_p3_probes_find_the_hole(caller: UdpCaller, host: str) -> None:
    """The permission that our server refuses is granted by a server without our policy."""
    assert permission(caller, host) in ((0,) if is_vulnerable() else (0, 403))


def test_a5_probe_finds_the_hole(caller: UdpCaller) -> None:
    """A LIFETIME of 0 behind the integrity deletes the allocation of a server that believes it."""
    signed = caller.signed(Method.REFRESH, a.Lifetime(900))
    late = Message(Method.REFRESH, MessageClass.REQUEST, signed[8:20], (a.Lifetime(0),)).encode()[20:]
    forged = signed[:2] + (len(signed) + len(late) - 20).to_bytes(2, "big") + signed[4:] + late
    answer = caller.send(forged)
    assert answer is not None
    assert answer.get(a.Lifetime) == a.Lifetime(0 if is_vulnerable() else 900)
