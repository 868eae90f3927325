"""What a TLS link moves, beside other ways to use TLS in the same run.

One thread carries the same bytes over a Unix socket pair by `TlsLink` and by `ssl.SSLSocket`, in turns, and
by two links without any socket: the median of the rounds in MB for each second of CPU, both ends together.
Then two processes, on a TCP connection of the loopback interface: asyncio's own TLS by its streams, as it
comes and with the C library keeping what it freed as ours does (`base/heap.py`), our link with its driver,
and a session's stream on one. Last, what a handshake costs both ends.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from time import process_time

from throughput import Row

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.link.client_auth import LINK_ID_LENGTH
from crowline.link.events import LinkData
from crowline.link.identity import Identity
from crowline.link.tls import TlsLink
from crowline.link.tls_trust import TlsTrust
from crowline.net.own_certificate import load

ROUNDS = 5
VOLUME = 256 << 20  # bytes of one round
FRAME = os.urandom(256 * 1024)  # what the session gives at once
READ = 256 * 1024  # bytes read from a socket at once
STREAM = 1_000_000_000  # bytes of one round between two processes
KEPT = {"MALLOC_TRIM_THRESHOLD_": str(8 << 20), "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
HANDSHAKES = 50
CLIENT, SERVER = Address("192.0.2.1", 1000), Address("198.51.100.2", 2000)
KEY = Secret(bytes(32))
ONE, OTHER = Identity.generate(), Identity.generate()


def trusts() -> tuple[TlsTrust, TlsTrust]:
    """The client's and the server's."""
    client, server = (
        TlsTrust(
            is_client=own is ONE,
            identity=own,
            certificate=peer.certificate_der,
            fingerprint=peer.fingerprint,
            load=load,
        )
        for own, peer in ((ONE, OTHER), (OTHER, ONE))
    )
    return client, server


def links(own: TlsTrust, peer: TlsTrust) -> tuple[TlsLink, TlsLink]:
    """Both up."""
    client = TlsLink.connect(
        destination=SERVER,
        local=CLIENT,
        trust=own,
        client_key=KEY,
        link_id=os.urandom(LINK_ID_LENGTH),
        now=0.0,
    )
    server = TlsLink.accept(destination=CLIENT, local=SERVER, trust=peer, client_key=KEY, now=0.0)
    while carry(client, server) + carry(server, client):
        pass
    assert client.is_up and server.is_up
    return client, server


def carry(sender: TlsLink, receiver: TlsLink) -> int:
    """Bytes that went over."""
    carried = 0
    while (transmit := sender.next_transmit()) is not None:
        carried += len(transmit.data)
        receiver.receive(transmit.data, sender.local, 0.0)
    return carried


def taken(link: TlsLink) -> int:
    """Bytes of plaintext that have come."""
    size = 0
    while (event := link.next_event()) is not None:
        size += len(event.data) if isinstance(event, LinkData) else 0
    return size


def over_nothing() -> None:
    client, server = links(*trusts())
    received = 0
    while received < VOLUME:
        client.send(FRAME, 0.0)
        carry(client, server)
        received += taken(server)


def by_links() -> None:
    client, server = links(*trusts())
    near, far = pair()
    waiting, buffer = memoryview(b""), memoryview(bytearray(READ))
    received = 0
    while received < VOLUME:
        if client.room() >= len(FRAME):
            client.send(FRAME, 0.0)
        if not waiting and (transmit := client.next_transmit()) is not None:
            waiting = memoryview(transmit.data)
        with suppress(BlockingIOError):
            while waiting:
                waiting = waiting[near.send(waiting) :]
        client.queued = len(waiting)
        with suppress(BlockingIOError):
            while size := far.recv_into(buffer):
                server.receive(buffer[:size], CLIENT, 0.0)
                received += taken(server)
    near.close()
    far.close()


def by_sockets() -> None:
    near, far = pair()
    client = context(ssl.PROTOCOL_TLS_CLIENT, ONE, OTHER).wrap_socket(near, do_handshake_on_connect=False)
    server = context(ssl.PROTOCOL_TLS_SERVER, OTHER, ONE).wrap_socket(
        far, server_side=True, do_handshake_on_connect=False
    )
    for end in (client, server) * 2:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    waiting, buffer = memoryview(FRAME), memoryview(bytearray(READ))
    received = 0
    while received < VOLUME:
        with suppress(ssl.SSLWantWriteError):
            while waiting:
                waiting = waiting[client.send(waiting) :]
            waiting = memoryview(FRAME)
        with suppress(ssl.SSLWantReadError):
            while size := server.recv_into(buffer):
                received += size
    client.close()
    server.close()


def pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    for end in (near, far):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return near, far


def context(protocol: int, own: Identity, peer: Identity) -> ssl.SSLContext:
    made = ssl.SSLContext(protocol)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_verify_locations(cadata=peer.certificate_der)
    load(made, own)
    return made


def rate(call: Callable[[], None]) -> float:
    """MB for each second of CPU."""
    before = process_time()
    call()
    return VOLUME / (process_time() - before) / 1e6


def handshake() -> float:
    """Milliseconds of CPU for a link, of both ends together."""
    both = trusts()
    before = process_time()
    for _ in range(HANDSHAKES):
        links(*both)
    return (process_time() - before) / HANDSHAKES * 1e3


def main() -> None:
    machines = {
        "ssl.SSLSocket, socket pair": by_sockets,
        "TlsLink, socket pair": by_links,
        "TlsLink, no socket": over_nothing,
    }
    compare(machines)
    between_processes()
    print(f"{'a handshake, both ends':<28}{handshake():8.2f} ms of CPU")


def compare(ways: dict[str, Callable[[], None]]) -> None:
    """Print what each way moves, beside the first of them."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, call in ways.items():
            rates[name].append(rate(call))
    rival = median(next(iter(rates.values())))
    for name, found in rates.items():
        print(f"{name:<28}{median(found):8.0f} MB per CPU second   {median(found) / rival:5.2f}")


def between_processes() -> None:
    """Print what each way moves in a second, and what each side spends on a GB, beside the first of them."""
    rows = [
        Row("asyncio's TLS streams", sys.executable, "tls_stream.py", STREAM),
        Row("the same, memory kept", sys.executable, "tls_stream.py", STREAM),
        Row("TLS link and its driver", sys.executable, "tls_link_stream.py", STREAM, ("link",)),
        Row("a session's stream on it", sys.executable, "tls_link_stream.py", STREAM, ("session",)),
    ]
    for _ in range(ROUNDS):
        for row in rows:
            row.measure({**os.environ, **(KEPT if row is rows[1] else {})})
    rival, spent = rows[0].rate, rows[0].cpu(0) + rows[0].cpu(1)
    print(f"{'':<28}{'MB/s':>8}{'':>8}{'CPU s/GB, sender + receiver':>32}")
    for row in rows:
        cpu = f"{row.cpu(1):.2f} + {row.cpu(0):.2f}"
        faster, cheaper = f"{row.rate / rival:.2f} x", f"{spent / (row.cpu(0) + row.cpu(1)):.2f} x"
        print(f"{row.name:<28}{row.rate / 1e6:8.0f}{faster:>8}{cpu:>32}{cheaper:>8}")


if __name__ == "__main__":
    main()
