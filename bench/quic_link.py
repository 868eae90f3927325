"""What one QUIC link moves between two processes over the loopback interface, by the size of its packets.

The link and the batched socket alone: no session above, no ICE below. Prints the median of the rounds in MB/s
and what each side spends of CPU seconds for each GB, beside moving the same bytes over a TCP connection.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.link.events import LinkData, LinkEvent, LinkUp
from crowline.link.identity import Identity
from crowline.link.quic import LINK_ID_LENGTH, QuicLink
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket

ROUNDS = 3
VOLUME = 512 << 20  # bytes of one round
FRAME = bytes(256 * 1024)  # what the session gives at once
SIZES = (1200, 1472, 8952, 16376)
KEY = Secret(bytes(32))
LOOPBACK = Address("127.0.0.1", 0)


class End:
    """One end of a link on a socket of its own."""

    def __init__(
        self, make: Callable[[End, bytes, Address], QuicLink], on_event: Callable[[LinkEvent], None]
    ):
        self._make, self._on_event = make, on_event
        self.socket = UdpSocket.bind(LOOPBACK, self._received, self.flush)
        self.link: QuicLink | None = None
        self._pump: Pump[Transmit, LinkEvent] | None = None

    def begin(self, first: bytes, source: Address) -> None:
        self.link = self._make(self, first, source)
        self._pump = Pump[Transmit, LinkEvent](self.link, self.socket.send, self._on_event)

    def flush(self) -> None:
        if self._pump is not None:
            self._pump.flush()

    def _received(self, data: memoryview, source: Address, size: int) -> None:
        if self.link is None:
            self.begin(bytes(data[:size]), source)
        assert self.link is not None
        self.link.receive_run(data, size, asyncio.get_running_loop().time())


async def take(size: int) -> None:
    """The server: say where it is, and at the end what it cost."""
    identity, done = Identity.generate(), asyncio.Event()
    got = 0

    def accept(end: End, first: bytes, source: Address) -> QuicLink:
        now = asyncio.get_running_loop().time()
        local = end.socket.local
        return QuicLink.accept(
            first, destination=source, local=local, identity=identity, client_key=KEY, now=now, size=size
        )

    def on_event(event: LinkEvent) -> None:
        nonlocal got
        if isinstance(event, LinkData):
            got += len(event.data)
            if got >= VOLUME:
                done.set()

    end = End(accept, on_event)
    tell({"port": end.socket.local.port, "fingerprint": identity.fingerprint.hex()})
    await done.wait()
    tell(cost())
    assert end.link is not None
    end.link.send(b"all", asyncio.get_running_loop().time())
    end.flush()
    await asyncio.sleep(0.2)
    end.socket.close()


async def give(size: int, port: int, fingerprint: str) -> None:
    """The client: send it all, and say how long that took."""
    up, heard = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    sent = 0

    def connect(end: End, first: bytes, destination: Address) -> QuicLink:
        return QuicLink.connect(
            destination=destination,
            local=end.socket.local,
            peer_fingerprint=bytes.fromhex(fingerprint),
            client_key=KEY,
            link_id=os.urandom(LINK_ID_LENGTH),
            now=loop.time(),
            size=size,
        )

    def on_event(event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            up.set()
        elif isinstance(event, LinkData):
            heard.set()

    def feed() -> None:
        nonlocal sent
        end.flush()
        assert end.link is not None
        while sent < VOLUME and not end.socket.congested and end.link.room() >= len(FRAME):
            end.link.send(FRAME, loop.time())
            sent += len(FRAME)
            end.flush()

    end = End(connect, on_event)
    end.begin(b"", Address("127.0.0.1", port))
    end.flush()
    await up.wait()
    began = time.perf_counter()
    while not heard.is_set():
        feed()
        await asyncio.sleep(0)
    tell({"rate": VOLUME / (time.perf_counter() - began) / 1e6, **cost()})
    end.socket.close()


def tell(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)


def cost() -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu": (used.ru_utime + used.ru_stime) / VOLUME * 1e9, "peak": used.ru_maxrss / 1024}


def by_link(size: int) -> tuple[float, float, float, float]:
    """MB/s, CPU seconds for each GB of sender and receiver, the larger peak of memory in MiB."""
    command = [sys.executable, __file__, str(size)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    where = json.loads(server.stdout.readline())
    client = subprocess.run(
        [*command, str(where["port"]), where["fingerprint"]], capture_output=True, text=True, check=True
    )
    sender, receiver = json.loads(client.stdout), json.loads(server.stdout.readline())
    server.wait()
    return sender["rate"], sender["cpu"], receiver["cpu"], max(sender["peak"], receiver["peak"])


def by_tcp() -> float:
    """MB/s of one connection between two processes, with the same pieces."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            with socket.create_connection(listener.getsockname()) as near:
                for _ in range(VOLUME // len(FRAME)):
                    near.sendall(FRAME)
            os._exit(0)
        far, _ = listener.accept()
        began, left, buffer = time.perf_counter(), VOLUME, bytearray(len(FRAME))
        with far:
            while left:
                left -= far.recv_into(buffer)
        os.waitpid(child, 0)
    return VOLUME / (time.perf_counter() - began) / 1e6


def main() -> None:
    if len(sys.argv) == 2:
        asyncio.run(take(int(sys.argv[1])))
        return
    if len(sys.argv) == 4:
        asyncio.run(give(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
        return
    print(f"{'kernel TCP, no encryption':<28}{median(by_tcp() for _ in range(ROUNDS)):8.0f} MB/s")
    for size in SIZES:
        found = [by_link(size) for _ in range(ROUNDS)]
        rate, sender, receiver, peak = (median(values) for values in zip(*found, strict=True))
        print(
            f"{f'QUIC link, {size:,} bytes':<28}{rate:8.0f} MB/s   CPU s/GB {sender:5.2f} + {receiver:5.2f}"
            f"   peak {peak:4.0f} MiB"
        )


if __name__ == "__main__":
    main()
