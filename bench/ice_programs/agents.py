"""Bare ICE agents in asyncio, ours and aioice's: what `bench/ice.py` measures of them.

Arguments: PROGRAM (`ours` or `aioice`), then as in `libnice_pairs.py` `connect` or `idle COUNT`; or `peer
ADDRESS STUN CONTROLLING`: one agent whose other side is at the far end of the socket that is its standard
input. It says `ready`, begins to gather when the line `go` comes, and says `nominated MS`, from there on.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

import aioice
import aioice.ice

from crowline.base.addresses import Address
from crowline.ice.agent import MIN_TA, IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory
from crowline.ice.candidate_line import CandidateLine
from crowline.ice.events import IceFailed, PairNominated
from crowline.stun.client import BindingClient, Mapped
from crowline.stun.message import is_stun

LOOPBACK = "127.0.0.1"
TOGETHER = 10  # pairs that are connected at the same time where many are wanted
END = "end-of-candidates"


class Ours(asyncio.DatagramProtocol):
    """Our agent over one socket: it is told `candidate` when there is one, and resolves `nominated`.

    As between two peers of ours: 5 ms between checks, and renomination.
    """

    def __init__(self, controlling: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.agent = IceAgent(controlling, entropy=os.urandom, ta=MIN_TA, renominate=True)
        self.stun = BindingClient(entropy=os.urandom)
        self.factory = CandidateFactory()
        self.nominated: asyncio.Future[float] = self.loop.create_future()
        self.mapped: asyncio.Future[Candidate | None] = self.loop.create_future()
        self.timer: asyncio.TimerHandle | None = None

    @classmethod
    async def bound(cls, host: str, controlling: bool) -> Ours:
        loop = asyncio.get_running_loop()
        _, agent = await loop.create_datagram_endpoint(lambda: cls(controlling), local_addr=(host, 0))
        return agent

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.base = Address(*transport.get_extra_info("sockname")[:2])
        self.host = self.factory.host(self.base)
        self.agent.add_local_candidate(self.host, self.loop.time())

    def datagram_received(self, data: bytes, addr: Any) -> None:
        source, now = Address(*addr[:2]), self.loop.time()
        if is_stun(data):
            machine = self.stun if self.stun.owns(data) else self.agent
            machine.receive(data, source, now, self.base)
            self.pump()

    def ask(self, server: Address) -> None:
        """Find the server-reflexive candidate: `mapped`."""
        self.stun.query(server, self.loop.time(), self.base)
        self.pump()

    def meet(self, ufrag: str, pwd: str, *candidates: Candidate) -> None:
        now = self.loop.time()
        self.agent.set_remote(ufrag, pwd, now)
        for candidate in candidates:
            self.agent.add_remote_candidate(candidate, now)
        self.pump()

    def pump(self) -> None:
        for machine in (self.stun, self.agent):
            while (transmit := machine.next_transmit()) is not None:
                self.transport.sendto(transmit.data, (transmit.destination.host, transmit.destination.port))
        while (event := self.agent.next_event()) is not None:
            self.on_event(event)
        while (answer := self.stun.next_event()) is not None:
            found = isinstance(answer, Mapped) and answer.address != self.base
            self.mapped.set_result(
                self.factory.server_reflexive(answer.address, self.base, answer.server) if found else None
            )
        times = [at for at in (self.stun.next_timeout(), self.agent.next_timeout()) if at is not None]
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.loop.call_at(min(times), self.wake) if times else None

    def on_event(self, event: object) -> None:
        if isinstance(event, PairNominated):
            self.agent.use(event.pair, self.loop.time())
            if not self.nominated.done():
                self.nominated.set_result(time.perf_counter())
        elif isinstance(event, IceFailed) and not self.nominated.done():
            self.nominated.set_exception(ConnectionError(event.reason.value))

    def wake(self) -> None:
        for machine in (self.stun, self.agent):
            machine.handle_timeout(self.loop.time())
        self.pump()

    async def close(self) -> None:
        self.agent.close()
        if self.timer is not None:
            self.timer.cancel()
        self.transport.close()


async def connect_ours() -> tuple[list[Any], float]:
    """Two connected agents, and the milliseconds from telling both of each other to both having nominated."""
    pair = [await Ours.bound(LOOPBACK, controlling) for controlling in (True, False)]
    start = time.perf_counter()
    for each, other in (pair, reversed(pair)):
        each.meet(other.agent.ufrag, other.agent.pwd, other.host)
    ends = [await each.nominated for each in pair]
    return pair, (max(ends) - start) * 1000


async def connect_aioice() -> tuple[list[Any], float]:
    aioice.ice.get_host_addresses = lambda **_: [LOOPBACK]
    pair = [aioice.Connection(ice_controlling=controlling) for controlling in (True, False)]
    for each in pair:
        await each.gather_candidates()
    start = time.perf_counter()
    for each, other in (pair, reversed(pair)):
        each.remote_username, each.remote_password = other.local_username, other.local_password
        for candidate in other.local_candidates:
            await each.add_remote_candidate(candidate)
        await each.add_remote_candidate(None)
    await asyncio.gather(*(each.connect() for each in pair))
    return pair, (time.perf_counter() - start) * 1000


class Line:
    """Whole lines over the socket that is standard input."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls) -> Line:
        return cls(*await asyncio.open_connection(sock=socket.socket(fileno=os.dup(0))))

    def tell(self, *lines: str) -> None:
        self.writer.write("".join(f"{line}\n" for line in lines).encode())

    async def next(self) -> str:
        return (await self.reader.readline()).decode().rstrip("\n")


async def peer_ours(host: str, stun: Address, controlling: bool, line: Line) -> Any:
    """Everything is told as it is found, and used as it comes."""
    agent = await Ours.bound(host, controlling)
    agent.ask(stun)
    line.tell(f"ice-ufrag:{agent.agent.ufrag}", f"ice-pwd:{agent.agent.pwd}")
    line.tell(CandidateLine.of(agent.host).write())

    def found(mapped: asyncio.Future[Candidate | None]) -> None:
        if (candidate := mapped.result()) is not None:
            agent.agent.add_local_candidate(candidate, agent.loop.time())
            line.tell(CandidateLine.of(candidate).write())
        agent.agent.end_of_local_candidates(agent.loop.time())
        line.tell(END)

    agent.mapped.add_done_callback(found)
    names: dict[str, str] = {}
    while (said := await line.next()) != END:
        name, _, value = said.partition(":")
        if name == "candidate":
            agent.agent.add_remote_candidate(CandidateLine.parse(said).candidate(), agent.loop.time())
            agent.pump()
        else:
            names[name] = value
        if name == "ice-pwd":
            agent.meet(names["ice-ufrag"], value)
    agent.agent.end_of_remote_candidates(agent.loop.time())
    agent.pump()
    await agent.nominated
    return agent


async def peer_aioice(host: str, stun: Address, controlling: bool, line: Line) -> Any:
    """aioice knows its candidates when all are gathered."""
    agent = aioice.Connection(ice_controlling=controlling, stun_server=(stun.host, stun.port), use_ipv6=False)
    await agent.gather_candidates()
    line.tell(f"ice-ufrag:{agent.local_username}", f"ice-pwd:{agent.local_password}")
    line.tell(*(f"candidate:{candidate.to_sdp()}" for candidate in agent.local_candidates), END)
    while (said := await line.next()) != END:
        name, _, value = said.partition(":")
        if name == "candidate":
            await agent.add_remote_candidate(aioice.Candidate.from_sdp(value))
        elif name == "ice-ufrag":
            agent.remote_username = value
        elif name == "ice-pwd":
            agent.remote_password = value
    await agent.add_remote_candidate(None)
    await agent.connect()
    return agent


CONNECT = {"ours": connect_ours, "aioice": connect_aioice}
PEER = {"ours": peer_ours, "aioice": peer_aioice}


async def serve_connect(program: str) -> None:
    """One pair after the other, for each line that comes."""
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        gc.collect()
        pair, elapsed = await CONNECT[program]()
        print(elapsed, flush=True)
        for each in pair:
            await each.close()


async def serve_idle(program: str, count: int) -> None:
    loop = asyncio.get_running_loop()
    pairs = [await CONNECT[program]()]
    print(resident(), flush=True)
    for start in range(0, count, TOGETHER):
        connecting = (CONNECT[program]() for _ in range(min(TOGETHER, count - start)))
        pairs += await asyncio.gather(*connecting)
    print(resident(), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for pair, _ in pairs:
        for each in pair:
            await each.close()


async def serve_peer(program: str, host: str, stun: str, controlling: str) -> None:
    line = await Line.open()
    line.tell("ready")
    while await line.next() != "go":
        pass
    began = time.perf_counter()
    server, _, port = stun.rpartition(":")
    agent = await PEER[program](host, Address(server, int(port)), controlling == "1", line)
    line.tell(f"nominated {(time.perf_counter() - began) * 1000:.3f}")
    while await line.next() != "end":
        pass
    await agent.close()
    line.writer.close()


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    program, mode, *options = sys.argv[1:]
    if mode == "connect":
        asyncio.run(serve_connect(program))
    elif mode == "idle":
        asyncio.run(serve_idle(program, int(options[0])))
    else:
        asyncio.run(serve_peer(program, *options))


if __name__ == "__main__":
    main()
