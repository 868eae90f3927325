"""The load of `bench/turn.py`: clients and peers in batches, without anything of the server's code paths.

Every function here runs in the process of the generator; what it returns is plain numbers.
"""

from __future__ import annotations

import itertools
import os
import resource
import select
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crowline.base.addresses import Address
from crowline.net import mmsg
from crowline.net.mmsg import HEADER, PART, Memory, Pointer
from crowline.stun import attributes as a
from crowline.stun.integrity import long_term_key
from crowline.stun.message import Message, MessageClass, Method, parse

USER, PASSWORD = "user", "password"
COOKIE = bytes.fromhex("2112a442")
SLOT = 2048
CALLS = mmsg.find()
_DONT_WAIT = int(socket.MSG_DONTWAIT)


class Batch:
    """A socket with a batch of datagrams to send again and again, and one to receive into."""

    def __init__(self, host: str, count: int, port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        for option in (33, 32):  # SO_RCVBUFFORCE, SO_SNDBUFFORCE
            self.socket.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        self.socket.bind((host, port))
        self.local = Address(*self.socket.getsockname())
        self._out, self._in = Memory(count * (SLOT + 256)), Memory(count * (SLOT + 256))
        self._first_out, self._first_in = Pointer(self._out.start), Pointer(self._in.start)
        self._count = count
        self._received: list[memoryview] = []
        for number in range(count):
            self._lay(self._in, number, SLOT, b"")

    def load(self, number: int, data: bytes, target: Address) -> None:
        at = self._data(number)
        self._out.view[at : at + len(data)] = data
        self._lay(self._out, number, len(data), mmsg.socket_name(target.host, target.port))

    def send(self, count: int) -> int:
        assert CALLS is not None
        return max(0, CALLS.sendmmsg(self.socket.fileno(), self._first_out, count, _DONT_WAIT))

    def receive(self) -> int:
        assert CALLS is not None
        return max(0, CALLS.recvmmsg(self.socket.fileno(), self._first_in, self._count, _DONT_WAIT, None))

    def received(self, number: int) -> memoryview:
        at = self._data(number)
        return self._in.view[at : at + SLOT]

    def stamp(self, number: int, offset: int, value: float) -> None:
        struct.pack_into("d", self._out.view, self._data(number) + offset, value)

    def _data(self, number: int) -> int:
        return self._count * 256 + number * SLOT

    def _lay(self, memory: Memory, number: int, size: int, name: bytes) -> None:
        part = self._count * HEADER.size + number * PART.size
        place = self._count * (HEADER.size + PART.size) + number * mmsg.NAME_SIZE
        memory.view[place : place + len(name)] = name
        PART.pack_into(memory.view, part, memory.start + self._data(number), size)
        HEADER.pack_into(
            memory.view, number * HEADER.size,
            memory.start + place if name else 0, len(name), memory.start + part, 1, 0, 0, 0, 0,
        )  # fmt: skip


@dataclass
class Client:
    """A TURN client on a socket of its own."""

    socket: socket.socket
    server: Address
    relayed: Address | None = None
    key: bytes = b""
    realm: str = ""
    nonce: str = ""

    def request(self, method: Method, *attributes: Any) -> bytes:
        proof = (a.Username(USER), a.Realm(self.realm), a.Nonce(self.nonce)) if self.key else ()
        message = Message(method, MessageClass.REQUEST, os.urandom(12), (*attributes, *proof))
        return message.encode(key=self.key or None)

    def ask(self, method: Method, *attributes: Any) -> Message:
        for _ in range(5):
            self.socket.sendto(self.request(method, *attributes), (self.server.host, self.server.port))
            if select.select([self.socket], [], [], 1.0)[0]:
                answer = parse(self.socket.recv(2048)).message
                if answer.message_class is MessageClass.SUCCESS or self.key:
                    return answer
                self.challenged(answer)
        raise RuntimeError("the server does not answer")

    def challenged(self, answer: Message) -> None:
        realm, nonce = answer.get(a.Realm), answer.get(a.Nonce)
        assert realm is not None and nonce is not None, answer
        self.realm, self.nonce = realm.value, nonce.value
        self.key = key_of(self.realm)

    def take(self, answer: Message) -> None:
        relayed = answer.get(a.XorRelayedAddress)
        assert relayed is not None, answer
        self.relayed = relayed.address

    def allocate(self) -> None:
        answer = self.ask(Method.ALLOCATE, a.RequestedTransport(17))
        if answer.get(a.ErrorCode) is not None:
            # An earlier client's allocation: it has gone, and the kernel gave its port away again.
            self.ask(Method.REFRESH, a.Lifetime(0))
            answer = self.ask(Method.ALLOCATE, a.RequestedTransport(17))
        self.take(answer)


_keys: dict[str, bytes] = {}
_addresses = (number // 10 for number in itertools.count())


def key_of(realm: str) -> bytes:
    if realm not in _keys:
        _keys[realm] = long_term_key(USER, realm, PASSWORD)
    return _keys[realm]


def plain(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


def binding(server: Address, seconds: float, sockets: int = 16, window: int = 32) -> dict[str, float]:
    """Answers a second with `sockets * window` questions under way, and the generator's share of a core."""
    batches = [Batch(f"127.0.1.{number + 1}", window) for number in range(sockets)]
    for batch in batches:
        for number in range(window):
            batch.load(number, b"\x00\x01\x00\x00" + COOKIE + os.urandom(12), server)
    flying = [0] * sockets
    answered, started, cpu = 0, time.perf_counter(), time.process_time()
    last = [started] * sockets
    while (now := time.perf_counter()) < started + seconds:
        for index, batch in enumerate(batches):
            got = batch.receive()
            answered += got
            flying[index] -= got
            if got:
                last[index] = now
            elif flying[index] and now - last[index] > 0.05:
                flying[index] = 0
            if flying[index] <= window // 2:
                flying[index] += batch.send(window - max(0, flying[index]))
                last[index] = now
    took = time.perf_counter() - started
    return {"rate": answered / took, "count": answered, "busy": (time.process_time() - cpu) / took}


def allocations(server: Address, count: int, window: int = 64) -> dict[str, Any]:
    """Allocations a second, `window` of them under way; the clients stay, for who measures what they cost."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    poll, waiting, done = select.epoll(), dict[int, Client](), list[Client]()
    started, cpu, begun = time.perf_counter(), time.process_time(), 0
    while len(done) < count and time.perf_counter() - started < 120:
        while len(waiting) < window and begun < count:
            # Ten clients an address: a server does well to bound its challenges to one of them.
            address = next(_addresses)
            client = Client(
                plain(f"127.{2 + address // 60_000}.{address // 240 % 250}.{address % 240 + 1}"), server
            )
            begun += 1
            poll.register(client.socket.fileno(), select.EPOLLIN)
            waiting[client.socket.fileno()] = client
            client.socket.sendto(client.request(Method.ALLOCATE, a.RequestedTransport(17)), tuple_of(server))
        ready = poll.poll(0.5)
        for client in [waiting[fd] for fd, _ in ready] or list(waiting.values()):
            try:
                answer = parse(client.socket.recv(2048)).message
            except BlockingIOError:
                client.key = b""
            else:
                if answer.message_class is MessageClass.SUCCESS:
                    client.take(answer)
                    done.append(client)
                    poll.unregister(client.socket.fileno())
                    del waiting[client.socket.fileno()]
                    continue
                client.challenged(answer)
            client.socket.sendto(client.request(Method.ALLOCATE, a.RequestedTransport(17)), tuple_of(server))
    took = time.perf_counter() - started
    busy = (time.process_time() - cpu) / took
    return {"rate": len(done) / took, "count": len(done), "busy": busy, "clients": done}


def tuple_of(address: Address) -> tuple[str, int]:
    return address.host, address.port


class Sessions:
    """`count` allocations with a channel each to one peer."""

    def __init__(self, server: Address, count: int, size: int) -> None:
        self.peer = Batch("127.0.0.2", 256)
        self.batches: list[Batch] = []
        self.size = size
        for number in range(count):
            batch = Batch("127.0.0.1", 64)
            client = Client(batch.socket, server)
            client.allocate()
            answer = client.ask(
                Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(self.peer.local)
            )
            assert answer.message_class is MessageClass.SUCCESS, answer
            assert client.relayed is not None
            payload = bytes(size)
            for slot in range(8):
                batch.load(slot, struct.pack("!HH", 0x4000, size) + payload, server)
            self.peer.load(number, payload, client.relayed)
            self.batches.append(batch)

    def run(self, seconds: float, tick: float, burst: int = 1) -> dict[str, Any]:
        """Every `tick` each client sends `burst` packets and the peer one to each; what arrived, and when."""
        delays: list[float] = []
        sent = received = 0
        started, cpu = time.perf_counter(), time.process_time()
        next_tick = started
        while (now := time.perf_counter()) < started + seconds:
            if now >= next_tick:
                next_tick = max(next_tick + tick, now - 10 * tick)
                for number, batch in enumerate(self.batches):
                    batch.stamp(0, 8, time.perf_counter())
                    sent += batch.send(burst)
                    self.peer.stamp(number, 4, time.perf_counter())
                sent += self.peer.send(len(self.batches))
            received += self._collect(delays)
        deadline = time.perf_counter() + 0.1
        while time.perf_counter() < deadline:
            received += self._collect(delays)
        busy = (time.process_time() - cpu) / (time.perf_counter() - started)
        delays.sort()
        p99 = delays[int(len(delays) * 0.99)] if delays else float("nan")
        return {"sent": sent, "count": received, "rate": received / seconds, "busy": busy, "p99": p99}

    def _collect(self, delays: list[float]) -> int:
        total = 0
        for batch, offset in ((self.peer, 4), *((each, 8) for each in self.batches)):
            got = batch.receive()
            if got:
                total += got
                stamp = struct.unpack_from("d", batch.received(got - 1), offset)[0]
                if stamp:
                    delays.append(time.perf_counter() - stamp)
        return total

    def close(self) -> None:
        for batch in (self.peer, *self.batches):
            batch.socket.close()


def bulk(server: Address, seconds: float, rate: float, size: int = 1200) -> dict[str, float]:
    """One client sends runs of 50 ChannelData at `rate` bytes a second; bytes that reached the peer."""
    peer, sender = Batch("127.0.0.2", 1), Batch("127.0.0.1", 1)
    client = Client(sender.socket, server)
    client.allocate()
    client.ask(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(peer.local))
    peer.socket.setsockopt(socket.SOL_UDP, 104, 1)
    peer.socket.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
    sender.socket.setsockopt(socket.SOL_UDP, 103, size + 4)
    run = (struct.pack("!HH", 0x4000, size) + bytes(size)) * 50
    buffer, sent, received = bytearray(65536), 0, 0
    started = time.perf_counter()
    while (now := time.perf_counter() - started) < seconds + 0.1:
        if now < seconds and sent < now * rate:
            try:
                sender.socket.sendto(run, tuple_of(server))
                sent += size * 50
            except BlockingIOError:
                pass
        try:
            while True:
                received += peer.socket.recv_into(buffer)
        except BlockingIOError:
            time.sleep(0.0001)
    for each in (peer, sender):
        each.socket.close()
    return {"sent": sent, "count": received}


def junk(server: Address, rate: float, seconds: float) -> None:
    """Datagrams of noise, STUN that lies about its length, and ChannelData of nobody, from 64 sources."""
    batches = [Batch(f"127.0.2.{number + 1}", 64) for number in range(64)]
    for batch in batches:
        for number in range(64):
            noise = (
                os.urandom(100),
                b"\x00\x01\x00\x50" + COOKIE + os.urandom(40),
                b"\x40\x00\x00\x40" + bytes(64),
                b"\x00\x03\x00\x00" + COOKIE + os.urandom(12),
            )[number % 4]  # fmt: skip
            batch.load(number, noise, server)
    started, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - started) < seconds:
        if sent >= now * rate:
            time.sleep(0.0005)
            continue
        batch = batches[sent // 64 % 64]
        sent += 64
        batch.send(64)
        batch.receive()


def round_trips(server: Address, seconds: float, rate: float) -> float:
    """The 99th percentile of the time that one lonely Binding takes, in seconds."""
    sock, times = plain("127.0.3.1"), list[float]()
    sock.setblocking(True)
    sock.settimeout(1.0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        sock.sendto(b"\x00\x01\x00\x00" + COOKIE + os.urandom(12), tuple_of(server))
        with suppress(TimeoutError):
            sock.recv(2048)
        times.append(time.perf_counter() - begun)
        time.sleep(max(0.0, 1 / rate - times[-1]))
    times.sort()
    return times[int(len(times) * 0.99)]
