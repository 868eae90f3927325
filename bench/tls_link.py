"""What a TLS link moves for each second of CPU, both ends together, beside plain TLS sockets in the same run.

One thread carries the same bytes over a Unix socket pair by `TlsLink` and by `ssl.SSLSocket`, in turns, and
by two links without any socket; then over a TCP connection of the loopback interface by the driver of TLS
links and by asyncio's own TLS. Prints the median of the rounds in MB for each CPU second, each beside its
rival, and what a handshake costs both ends.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from time import process_time

from crowline.api.tls_links import TlsLinkTable, TlsPairLink
from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.base.secrets import Secret
from crowline.ice.candidate import Candidate, CandidateType
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.link.client_auth import LINK_ID_LENGTH
from crowline.link.events import LinkData
from crowline.link.identity import Identity
from crowline.link.tls import TlsLink
from crowline.link.tls_trust import TlsTrust
from crowline.net.own_certificate import load
from crowline.net.tcp_framed import FramedStream
from crowline.net.tcp_stream import TcpStream

ROUNDS = 5
VOLUME = 256 << 20  # bytes of one round
FRAME = os.urandom(256 * 1024)  # what the session gives at once
READ = 256 * 1024  # bytes read from a socket at once
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


class Driven:
    """One end of a link on a TCP connection, by the driver; it sends `VOLUME` bytes if it is the client."""

    def __init__(self, own: TlsTrust, sock: socket.socket, done: asyncio.Event) -> None:
        self.received, self._sent, self._done = 0, 0, done
        self._link: TlsPairLink | None = None
        self.table = TlsLinkTable(
            trust=own,
            client_key=KEY,
            entropy=os.urandom,
            numbers=itertools.count(),
            on_up=self._up,
            on_data=self._data,
            on_down=lambda link, reason: None,
            on_drained=self._drained,
        )
        stream = TcpStream(
            sock, is_accepted=False, on_trusted=lambda stream: None, on_ended=lambda stream, was_reset: None
        )
        self.stream = FramedStream(
            stream,
            on_packet=lambda stream, packet: None,
            on_ended=lambda stream, reason: None,
            on_drained=self._drained,
        )
        self._is_sender = own.is_client

    def begin(self) -> None:
        """As after a check."""
        near, far = (
            Candidate("1", 1, "tcp", 1, address, CandidateType.HOST)
            for address in (self.stream.local, self.stream.remote)
        )
        self.stream.send(b"check")
        pair = ValidPair(near, far, CandidatePair(near, far))
        self.table.nominate(pair, self.stream, is_controlling=self._is_sender)

    def _up(self, link: TlsPairLink) -> None:
        self._link = link

    def _data(self, link: TlsPairLink, data: Buffer) -> None:
        self.received += len(data)
        if self.received >= VOLUME:
            self._done.set()

    def _drained(self) -> None:
        self.table.flush()
        while self._is_sender and self._link is not None and self._sent < VOLUME:
            if self._link.room() < len(FRAME):
                return
            self._link.send(FRAME, 0.0)
            self._sent += len(FRAME)
            self.table.flush()


class Plain(asyncio.Protocol):
    """One end of a TLS connection of asyncio."""

    def __init__(self, done: asyncio.Event, *, is_sender: bool) -> None:
        self._done, self._is_sender, self._moved = done, is_sender, 0
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._is_sender:
            self.resume_writing()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        while not self._is_paused and self._moved < VOLUME:
            self.transport.write(FRAME)
            self._moved += len(FRAME)

    def data_received(self, data: bytes) -> None:
        self._moved += len(data)
        if self._moved >= VOLUME:
            self._done.set()


async def by_driver() -> None:
    done = asyncio.Event()
    ends = [Driven(own, sock, done) for own, sock in zip(trusts(), tcp_pair(), strict=True)]
    for end in ends:
        end.begin()
    await done.wait()
    for end in ends:
        end.table.close()
        end.stream.stream.abort()


async def by_asyncio() -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    near, far = tcp_pair()
    client = context(ssl.PROTOCOL_TLS_CLIENT, ONE, OTHER)
    server = context(ssl.PROTOCOL_TLS_SERVER, OTHER, ONE)
    opened = await asyncio.gather(
        loop.create_connection(
            lambda: Plain(done, is_sender=True), sock=near, ssl=client, server_hostname=""
        ),
        loop.connect_accepted_socket(lambda: Plain(done, is_sender=False), far, ssl=server),
    )
    await done.wait()
    for transport, _ in opened:
        transport.abort()
    await asyncio.sleep(0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for end in (near, far):
        end.setblocking(False)
    return near, far


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
    drivers = {
        "asyncio's TLS, loopback": lambda: asyncio.run(by_asyncio()),
        "driven TLS link, loopback": lambda: asyncio.run(by_driver()),
    }
    for ways in (machines, drivers):
        compare(ways)
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


if __name__ == "__main__":
    main()
