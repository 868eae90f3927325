"""A NAT-PMP client that is not ours, against the laboratory's gateway on a loopback address."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from crowline.base.addresses import Address
from crowline.lab.behaviour import UDP
from crowline.lab.nat import Nat
from crowline.lab.port_mapping_service import PORT, PortMappingService
from crowline.lab.presets import HOME
from crowline.lab.profile import PortMapping
from needs import missing, needs_program

OUTSIDE = "44.1.1.7"  # the client refuses gateways that report an address from a documentation range
PATIENCE = 30.0  # seconds for a client that answers in milliseconds


class LoopbackGateway:
    """The service behind a real socket, on an address of 127.0.0.0/8 that nobody else has."""

    def __init__(self) -> None:
        self.nat = Nat(HOME, OUTSIDE, random.Random(1).randbytes)
        self._service = PortMappingService(self.nat, PortMapping.NAT_PMP, time.monotonic())
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.host = self._bind()
        self._socket.settimeout(0.1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def _bind(self) -> str:
        for _ in range(20):
            host = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
            try:
                self._socket.bind((host, PORT))
            except OSError:
                continue
            return host
        return missing("only one loopback address can be bound here")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                data, (host, port) = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            self._service.receive(data, Address(host, port), time.monotonic())
            while (answer := self._service.next_transmit()) is not None:
                self._socket.sendto(answer.data, (answer.destination.host, answer.destination.port))


@pytest.fixture
def gateway() -> Iterator[LoopbackGateway]:
    made = LoopbackGateway()
    yield made
    made.close()


def natpmpc(gateway: LoopbackGateway, *arguments: str) -> str:
    """What the client says; fails with it where the client fails."""
    argv = [needs_program("natpmpc"), "-g", gateway.host, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.peer
def test_natpmpc_learns_the_outside_address(gateway: LoopbackGateway) -> None:
    """The client prints the address that the translator has outside."""
    assert f"Public IP address : {OUTSIDE}" in natpmpc(gateway)


@pytest.mark.peer
def test_natpmpc_opens_and_closes_a_port(gateway: LoopbackGateway) -> None:
    """A stranger gets in through the port that the client asked for, and no longer once it is closed."""
    said = natpmpc(gateway, "-a", "5001", "5000", "udp", "300")
    assert "Mapped public port 5001 protocol UDP to local port 5000" in said
    stranger, outside = Address("44.2.0.1", 9), Address(OUTSIDE, 5001)
    inside = gateway.nat.inbound(UDP, outside, stranger, time.monotonic())
    assert inside is not None
    assert inside.port == 5000
    natpmpc(gateway, "-a", "0", "5000", "udp", "0")
    assert gateway.nat.inbound(UDP, outside, stranger, time.monotonic()) is None
